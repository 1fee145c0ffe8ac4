"""WorkerThreads that take jobs: started when one is needed, ended when they have been idle."""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from pymdc._calls.interpreter import DAEMONS, REST
from pymdc._calls.waiting import Queue

Job = Callable[[], None]


class WorkerThreads:
    """A job gets a thread at once: one that rests, or else a new one.

    There is no lock here, because a signal handler that makes a call may interrupt any line. Each
    step is one operation on a set or a queue; whoever takes a step that another one may have
    counted on to come later, or not at all, looks again.
    """

    def __init__(self) -> None:
        self.idle_seconds = REST
        self._jobs: Queue[list[Job]] = Queue()  # an empty list is no job
        self._free: set[threading.Thread] = set()  # those that wait for a job, or are about to
        self._all: set[threading.Thread] = set()
        self._closed = False

    @property
    def current(self) -> bool:
        """Say whether the thread that asks is one of these."""
        thread = threading.current_thread()
        return isinstance(thread, _Thread) and thread.owner is self

    def spawn(self, job: Job) -> bool:
        """Let a thread do *job*; False when none can be started, because Python ends."""
        if sys.is_finalizing():
            return False
        held = [job]
        self._jobs.put(held)
        return self._enough() or not _taken(held)

    def next(self) -> Job | None:
        """Wait for another job; None when the thread shall end."""
        thread = threading.current_thread()
        while True:
            try:
                held = self._jobs.get(0 if self._closed else self.idle_seconds)
                self._free.discard(thread)
                self._enough()  # somebody may have counted on this thread meanwhile
            except Empty:
                self._free.discard(thread)
                if not self._jobs:
                    return None
            else:
                if job := _taken(held):
                    return job
                if self._closed:
                    self._wake()
                    return None
            self._free.add(thread)

    def rest(self) -> None:
        """Be among those that wait for a job, before `next`."""
        self._free.add(threading.current_thread())

    def close(self, timeout: float | None = None) -> bool:
        """End the threads, each after its job; wait, and say whether all have ended in time."""
        last = None if timeout is None else time.monotonic() + timeout
        self._closed = True
        self._wake()
        if self.current:
            return False
        threads = {thread for thread in self._all.copy() if thread.ident}
        _join(threads, last)
        return not any(thread.is_alive() for thread in threads)

    def abandon(self) -> None:
        """Forget the threads: in a forked child only the one that forked is there, to end."""
        self._jobs = Queue()
        self._closed = True
        self._free.clear()
        self._all.clear()

    def _wake(self) -> None:
        """Let one of those that wait end, and that one the next."""
        if self._free:
            self._jobs.put([])

    def _enough(self) -> bool:
        """See that each job has a thread; say whether that is so."""
        while len(self._jobs) > len(self._free):
            if not _away_from_handlers(self._begin):
                return False
        return True

    def _begin(self) -> bool:
        # What has ended leaves here, not by itself before it ends: `close` shall wait for that.
        begun = {other for other in self._all.copy() if other.ident}
        self._all.difference_update(begun.difference(threading.enumerate()))
        thread = _Thread(self)
        self._all.add(thread)
        self._free.add(thread)
        if _start(thread):
            return True
        self._free.discard(thread)
        self._all.discard(thread)
        return False


class _Thread(threading.Thread):
    def __init__(self, owner: WorkerThreads) -> None:
        # A daemon, so that a call given up by Ctrl-C holds nothing.
        super().__init__(name="pymdc-worker", daemon=DAEMONS)
        self.owner = owner

    def run(self) -> None:
        while job := self.owner.next():
            job()
            del job  # while idle it would keep alive what the last call held
            self.owner.rest()


def on_worker() -> bool:
    """Say whether the thread that asks is one that takes jobs."""
    return isinstance(threading.current_thread(), _Thread)


def start_thread(thread: threading.Thread) -> bool:
    """Start *thread*; False when that can't be, because Python ends or the system refuses."""
    return _away_from_handlers(partial(_start, thread))


def run_on_thread(work: Callable[[], None]) -> None:
    """Do *work* on a thread for that alone, and wait for it; where none can be had, do it here.

    It may take locks that each new thread takes as well, as in `_away_from_handlers`.
    """
    if DAEMONS:
        thread = threading.Thread(target=work, name="pymdc-closer", daemon=True)
        if start_thread(thread):
            thread.join()
            return
    work()


def _away_from_handlers(start: Callable[[], bool]) -> bool:
    """Return what *start* returns, which starts a thread; False if none can be started.

    It is called on a thread for that alone. To start a thread takes locks that each new one takes
    as well, and a signal handler that interrupts it may wait for a call that needs a new one.
    """
    if sys.is_finalizing():
        return False
    if not DAEMONS:  # no signal handlers run in a sub-interpreter
        return start()
    started: SimpleQueue[bool] = SimpleQueue()

    def tell() -> None:
        begun = False
        try:
            begun = start()
        finally:
            started.put(begun)

    try:
        _thread.start_new_thread(tell, ())
    except RuntimeError:
        return False
    return started.get()


def _start(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        return False
    return True


def _join(threads: Iterable[threading.Thread], last: float | None) -> None:
    """Wait for *threads* to end, until *last*."""
    for thread in threads:
        with suppress(RuntimeError):  # of one that is only just started: it ends by itself
            thread.join(None if last is None else max(0.0, last - time.monotonic()))


def _taken(held: list[Job]) -> Job | None:
    """Return the job that is *held*, for one who asks."""
    try:
        return held.pop()
    except IndexError:
        return None

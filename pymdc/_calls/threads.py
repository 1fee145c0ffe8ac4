"""Worker threads: started when a job needs one, ended after some idle seconds."""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from pymdc._calls.capture import Job
from pymdc._calls.interpreter import DAEMONS, IDLE_SECONDS
from pymdc._calls.waiting import Queue


class WorkerThreads:
    """Runs each job at once, on an idle thread or on a new one.

    There is no lock, because a signal handler that makes a call may interrupt any line. Each step
    is one operation on a set or a queue. After a step that may conflict with a step of another
    thread, the number of threads is checked again.
    """

    def __init__(self) -> None:
        self.idle_seconds = IDLE_SECONDS
        self._jobs: Queue[list[Job]] = Queue()  # each in a list, empty if the job was taken back
        self._idle: set[threading.Thread] = set()  # waiting for a job, or about to wait
        self._all: set[threading.Thread] = set()
        self._closed = False

    @property
    def current(self) -> bool:
        """Whether the current thread is one of these."""
        thread = threading.current_thread()
        return isinstance(thread, _Thread) and thread.owner is self

    def spawn(self, job: Job) -> bool:
        """Run *job* on a thread; return False, without running it, if no thread can be started."""
        if sys.is_finalizing():
            return False
        cell = [job]
        self._jobs.put(cell)
        return self._start_missing() or not _take(cell)

    def next(self) -> Job | None:
        """Wait for the next job of the current thread; None if the thread shall end."""
        thread = threading.current_thread()
        while True:
            try:
                cell = self._jobs.get(0 if self._closed else self.idle_seconds)
                self._idle.discard(thread)
                self._start_missing()  # `spawn` may have counted this thread as idle
            except Empty:
                self._idle.discard(thread)
                if not self._jobs:
                    return None
            else:
                if job := _take(cell):
                    return job
                if self._closed:
                    self._wake()
                    return None
            self._idle.add(thread)

    def mark_idle(self) -> None:
        """Count the current thread as idle, before it calls `next` again."""
        self._idle.add(threading.current_thread())

    def close(self, timeout: float | None = None) -> bool:
        """End each thread after its job; say whether all ended within *timeout* seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._closed = True
        self._wake()
        if self.current:
            return False
        threads = {thread for thread in self._all.copy() if thread.ident}
        _join(threads, deadline)
        return not any(thread.is_alive() for thread in threads)

    def abandon(self) -> None:
        """Forget the threads: a forked child has only the thread that forked, which shall end."""
        self._jobs = Queue()
        self._closed = True
        self._idle.clear()
        self._all.clear()

    def _wake(self) -> None:
        """Wake one idle thread, which ends and wakes the next."""
        if self._idle:
            self._jobs.put([])

    def _start_missing(self) -> bool:
        """Start threads until each job has one; say whether all could be started."""
        while len(self._jobs) > len(self._idle):
            if not _outside_handlers(self._start_one):
                return False
        return True

    def _start_one(self) -> bool:
        # Ended threads are removed here; they do not remove themselves, so that `close` can wait
        # until they have ended.
        started = {other for other in self._all.copy() if other.ident}
        self._all.difference_update(started.difference(threading.enumerate()))
        thread = _Thread(self)
        self._all.add(thread)
        self._idle.add(thread)
        if _start(thread):
            return True
        self._idle.discard(thread)
        self._all.discard(thread)
        return False


class _Thread(threading.Thread):
    def __init__(self, owner: WorkerThreads) -> None:
        # A daemon: Python must not wait for a call that Ctrl-C interrupted.
        super().__init__(name="pymdc-worker", daemon=DAEMONS)
        self.owner = owner

    def run(self) -> None:
        while job := self.owner.next():
            job()
            del job  # an idle thread must not keep the data of its last call alive
            self.owner.mark_idle()


def on_worker() -> bool:
    """Say whether the current thread is a worker, of any client."""
    return isinstance(threading.current_thread(), _Thread)


def start_thread(thread: threading.Thread) -> bool:
    """Start *thread*; return False if Python is ending or the system refuses."""
    return _outside_handlers(partial(_start, thread))


def run_on_thread(job: Job) -> None:
    """Do *job* on a new thread and wait for it; on this thread if none can be started.

    *job* may take locks of `threading` itself: see `_outside_handlers`.
    """
    if DAEMONS:
        thread = threading.Thread(target=job, name="pymdc-closer", daemon=True)
        if start_thread(thread):
            thread.join()
            return
    job()


def _outside_handlers(start: Callable[[], bool]) -> bool:
    """Call *start*, which starts a thread, where no signal handler can interrupt it.

    Starting a thread takes locks that every new thread takes as well. A signal handler that
    interrupted the start on the main thread, and made a call, would wait for a thread that cannot
    start. So *start* runs on a thread of its own, where no signal handlers run.
    Returns what *start* returns, or False if that thread cannot be started.
    """
    if sys.is_finalizing():
        return False
    if not DAEMONS:  # no signal handlers run in a sub-interpreter
        return start()
    results: SimpleQueue[bool] = SimpleQueue()

    def report() -> None:
        started = False
        try:
            started = start()
        finally:
            results.put(started)

    try:
        _thread.start_new_thread(report, ())
    except RuntimeError:
        return False
    return results.get()


def _start(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except (RuntimeError, MemoryError):
        return False
    return True


def _join(threads: Iterable[threading.Thread], deadline: float | None) -> None:
    """Wait for *threads* to end, until *deadline*."""
    for thread in threads:
        with suppress(RuntimeError):  # a thread that is still starting: it ends by itself
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


def _take(cell: list[Job]) -> Job | None:
    """Return the job in *cell* to the first thread that asks, None to the others."""
    try:
        return cell.pop()
    except IndexError:
        return None

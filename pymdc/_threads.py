"""Threads that take jobs: started when one is needed, ended when they have been idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from pymdc._interpreter import DAEMONS, REST

Job = Callable[[], None]


class Threads:
    """A job gets a thread at once: one that rests, or else a new one."""

    def __init__(self) -> None:
        self.idle_seconds = REST
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._resting = 0
        self._all: set[threading.Thread] = set()
        self._closed = False

    @property
    def current(self) -> bool:
        """Say whether the thread that asks is one of these."""
        thread = threading.current_thread()
        return isinstance(thread, _Thread) and thread.owner is self

    def take(self, job: Job) -> bool:
        """Let a thread do *job*; False when none can be started, because Python ends."""
        with self._lock:
            if self._resting:
                self._resting -= 1
                self._jobs.put(job)
                return True
        return self.begin(_Thread(self, job))

    def begin(self, thread: threading.Thread) -> bool:
        """Start *thread* as one of these, to be ended by itself; False when that can't be."""
        with self._lock:
            # What has ended leaves here, not by itself before it ends: `close` shall wait for that.
            begun = {other for other in self._all if other.ident}
            self._all -= begun.difference(threading.enumerate())
            self._all.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._all.discard(thread)
            return False
        return True

    def next(self) -> Job | None:
        """Wait for another job; None when the thread shall end."""
        with self._lock:
            if self._closed:
                return None
            self._resting += 1
        while True:
            try:
                return self._jobs.get(timeout=self.idle_seconds)
            except Empty:
                with self._lock:
                    if self._resting:  # else what is to be got has come by now
                        self._resting -= 1
                        return None

    def close(self, timeout: float | None = None) -> bool:
        """End the threads, each after its job; wait, and say whether all have ended in time."""
        last = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._closed, self._resting = True, 0
            threads = [thread for thread in self._all if thread.ident]
            for _ in threads:
                self._jobs.put(None)
        if self.current:
            return False
        for thread in threads:
            thread.join(None if last is None else max(0.0, last - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def abandon(self) -> None:
        """Forget the threads: in a forked child only the one that forked is there, to end."""
        self._lock = threading.Lock()  # the old one may be held by a thread that is not there
        self._closed, self._resting = True, 0
        self._all.clear()


class _Thread(threading.Thread):
    def __init__(self, owner: Threads, job: Job) -> None:
        # A daemon, so that a call given up by Ctrl-C holds nothing.
        super().__init__(name="pymdc-worker", daemon=DAEMONS)
        self.owner = owner
        self._job: Job | None = job

    def run(self) -> None:
        job, self._job = self._job, None
        while job is not None:
            job()
            job = None  # while idle it would keep alive what the last call held
            job = self.owner.next()


def on_any() -> bool:
    """Say whether the thread that asks is one that takes jobs."""
    return isinstance(threading.current_thread(), _Thread)

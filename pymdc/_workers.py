"""The worker threads: who gets one at once, who waits for a turn, and what holds the process."""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from pymdc._call import Call, Callback, Work, outcome
from pymdc._scope import Scope

_Job = Callable[[], None]

_PRECISION = 0.25  # seconds between two looks at whether Ctrl-C ended the main thread
_LAST_SECONDS = 5.0  # for callbacks to hear that they are cancelled, after Ctrl-C
_all: weakref.WeakSet[Workers] = weakref.WeakSet()


class _Worker(threading.Thread):
    """A thread that takes one job after another, and ends when none has come for a while."""

    def __init__(self, workers: Workers) -> None:
        # A daemon, so that a call given up by Ctrl-C holds nothing; the keeper, which is none,
        # holds the process while callbacks have to run.
        super().__init__(name="pymdc-worker", daemon=True)
        self.inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._workers = workers

    def run(self) -> None:
        job = self.inbox.get()
        while job is not None:
            job()
            job = None  # while idle it would keep alive what the last call held
            job = self._next() if self._workers.rests(self) else None

    def _next(self) -> _Job | None:
        try:
            return self.inbox.get(timeout=self._workers.idle_seconds)
        except Empty:
            return None if self._workers.retires(self) else self.inbox.get()


class Workers:
    """Worker threads, started when needed; *size* bounds how many serve callbacks at once.

    A blocking call gets a worker whatever waits in the queue: its own thread sleeps meanwhile.
    """

    def __init__(self, size: int) -> None:
        self.idle_seconds = 5.0
        self._size = size
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._queue: deque[Call] = deque()
        self._hastened: deque[Call] = deque()
        self._hastening = False
        self._idle: list[_Worker] = []
        self._threads: set[threading.Thread] = set()
        self._lanes = 0
        self._calls: set[Call] = set()
        self._kept = False
        self._closed = False
        _all.add(self)

    def run(self, work: Work, scope: Scope) -> Any:
        """Do *work* on a worker, wait for it, and return its outcome; Ctrl-C ends its *scope*."""
        if isinstance(threading.current_thread(), _Worker):
            return outcome(work)
        answers: SimpleQueue[Any] = SimpleQueue()
        try:
            self.start(work, answers.put)
            return answers.get()
        except BaseException:
            scope.cancel()
            raise

    def start(self, work: Work, deliver: Callback) -> None:
        """Do *work* on a worker, which hands its outcome to *deliver*."""

        def job() -> None:
            deliver(outcome(work))

        if not self._hand_over(job):
            job()

    def submit(self, work: Work, callback: Callback, scope: Scope) -> Call:
        """Do *work* on a worker in its turn, which hands its outcome to *callback*."""
        call = Call(work, callback, scope, self.hasten, self.overtake)
        with self._lock:
            self._calls.add(call)
            if self._lanes == self._size:
                self._queue.append(call)
                return call
            self._lanes += 1
        if not (self._keep() and self._hand_over(lambda: self._serve(call))):
            self._serve_without_thread(call)
        return call

    def hasten(self, call: Call) -> None:
        """Run a cancelled *call* now, if it waits for its turn: it is only told."""
        with self._lock:
            if call not in self._queue:
                return
            self._queue.remove(call)
            self._hastened.append(call)
            if self._hastening:
                return
            self._hastening = True
        if not self._hand_over(self._tell):
            self._tell()

    def overtake(self, call: Call) -> None:
        """Let *call* pass the queue when a callback waits for it: that one's worker sleeps."""
        with self._lock:
            if not isinstance(threading.current_thread(), _Worker) or call not in self._queue:
                return
            self._queue.remove(call)
        if not self._hand_over(lambda: self._finish(call)):
            self._finish(call)

    def cancel(self) -> None:
        """Cancel every call that has a callback."""
        with self._lock:
            calls = tuple(self._calls)
        for call in calls:
            call.cancel()

    def give_up(self) -> None:
        """Cancel every call, and those that callbacks make of it, for a few seconds."""
        last = time.monotonic() + _LAST_SECONDS
        while not self.quiet(0) and time.monotonic() < last:
            self.cancel()
            self.quiet(_PRECISION)

    def quiet(self, timeout: float | None = None) -> bool:
        """Wait until every callback has run; in a callback, do not wait. Say whether all have."""
        own = isinstance(threading.current_thread(), _Worker)
        with self._quiet:
            return self._quiet.wait_for(lambda: not self._calls, 0 if own else timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Wait as `quiet` does, then for the workers to end. Say whether all was done in time."""
        last = None if timeout is None else time.monotonic() + timeout
        quiet = self.quiet(timeout)
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            threads = tuple(self._threads)
        for worker in idle:
            worker.inbox.put(None)
        if not quiet:
            return False
        for thread in threads:
            thread.join(None if last is None else max(0.0, last - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def abandon(self) -> None:
        """Forget the calls: in a forked child they are the parent's, who runs their callbacks."""
        _all.discard(self)
        self._queue.clear()
        for call in self._calls:
            call.abandon()
        self._calls.clear()

    def rests(self, worker: _Worker) -> bool:
        """Take *worker* among the idle ones, or say no when it shall end."""
        with self._lock:
            if self._closed:
                self._threads.discard(worker)
                return False
            self._idle.append(worker)
            return True

    def retires(self, worker: _Worker) -> bool:
        """Let an idle *worker* end, or say no when a job is on its way to it."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            self._threads.discard(worker)
            return True

    def _serve(self, call: Call | None) -> None:
        while call is not None:
            self._finish(call)
            with self._lock:
                call = self._queue.popleft() if self._queue else None
                if call is None:
                    self._lanes -= 1

    def _tell(self) -> None:
        while True:
            with self._lock:
                if not self._hastened:
                    self._hastening = False
                    return
                call = self._hastened.popleft()
            self._finish(call)

    def _finish(self, call: Call) -> None:
        call.run()
        with self._lock:
            self._calls.discard(call)
            if not self._calls:
                self._quiet.notify_all()

    def _serve_without_thread(self, call: Call) -> None:
        # Python 3.12.0 to 3.12.2 start no thread once the main thread has ended.
        with self._lock:
            others = self._lanes > 1
            if others:
                self._lanes -= 1
                self._queue.append(call)
        if not others:
            self._serve(call)

    def _hand_over(self, job: _Job) -> bool:
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None:
            worker = _Worker(self)
            if not self._begin(worker):
                return False
        worker.inbox.put(job)
        return True

    def _begin(self, thread: threading.Thread) -> bool:
        with self._lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads.discard(thread)
            return False
        return True

    def _keep(self) -> bool:
        with self._lock:
            if self._kept:
                return True
            self._kept = True
        if self._begin(threading.Thread(target=self._stay, name="pymdc-keeper", daemon=False)):
            return True
        with self._lock:
            self._kept = False
        return False

    def _stay(self) -> None:
        ended = False
        while not ended:
            if _interrupted():
                self.give_up()
            with self._quiet:
                ended = self._quiet.wait_for(lambda: not self._calls, _PRECISION) or _interrupted()
                if ended:
                    self._kept = False
                    self._threads.discard(threading.current_thread())


def _interrupted() -> bool:
    """Say whether Ctrl-C has ended the main thread."""
    return (
        not threading.main_thread().is_alive()
        and getattr(sys, "last_type", None) is KeyboardInterrupt
    )


@atexit.register
def _tell_the_rest() -> None:
    """Cancel what is left when Ctrl-C interrupts the wait for the last callbacks."""
    for workers in tuple(_all):
        workers.give_up()

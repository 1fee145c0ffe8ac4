"""The workers of a client: who gets one at once, who waits in the queue, and who is cancelled."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

from pymdc._arguments import Callback
from pymdc._calls import capture as captured
from pymdc._calls.call import Call, Work
from pymdc._calls.cancel_scope import Scope
from pymdc._calls.capture import as_value
from pymdc._calls.monitor import INTERRUPTED, PRECISION, is_late, monitor
from pymdc._calls.threads import Threads, on_worker
from pymdc._calls.waiting import Queue


class WorkerPool:
    """Threads for calls, started when needed; *size* bounds how many serve callbacks at once.

    Blocking calls bypass the queue.
    A queued call may be claimed by a worker, by who cancels it, and by a callback that waits for
    it; whoever claims it first performs it.

    Whoever makes, cancels or awaits a call takes no lock but that of its scope: a signal handler
    may interrupt any line of that, and make a call that needs a thread which waits for the lock,
    or raise, so that nobody releases it.
    """

    def __init__(self, size: int) -> None:
        self.threads = Threads()
        self._scopes: dict[Scope, None] = {}  # of the calls that are under way
        self._unclaimed: set[Call] = set()
        self._claimed: dict[object, Call] = {}  # until the callback has returned, by its claim
        self._cancelled_because = ""
        self._queue, self._cancelled = (_Slots(size, self.threads) for _ in range(2))
        monitor.add(self)

    def run(self, work: Work, scope: Scope) -> Any:
        """Do *work* on a worker, wait for it, and return its value; Ctrl-C cancels it."""
        if monitor.interrupted:
            scope.cancel(INTERRUPTED)
        if on_worker():
            return self.capture(work, scope)
        values: Queue[Any] = Queue()
        held = [work]

        def job() -> None:
            values.put(self.capture(held.pop(), scope))

        try:
            self.spawn(job)
            return _await(values, scope)
        except BaseException:
            scope.cancel()
            monitor.give_up(values)
            raise

    def submit(self, work: Work, callback: Callback, scope: Scope) -> Call:
        """Do *work* on a worker when its turn comes, and hand its value to *callback*."""
        if monitor.interrupted:
            scope.cancel(INTERRUPTED)
        call = Call(work, callback, scope, self)
        try:
            self._unclaimed.add(call)
            if sys.is_finalizing():
                call.perform()
                return call
            monitor.hold()  # first: other calls, too, may have nobody left to look after them
            self._queue.append(call)
        except BaseException:  # Ctrl-C, for nothing else is raised
            self.release(self.claim(call))
            self._queue.look()
            raise
        return call

    def spawn(self, job: Callable[[], None]) -> None:
        """Do *job* on a worker at once; on this thread where none can be had."""
        if not self.threads.take(job):
            job()

    def start(self, work: captured.Work, deliver: Callback) -> None:
        """Do *work* on a worker at once, which hands its outcome to *deliver* and keeps neither."""
        held = [work]

        def job() -> None:
            deliver(captured.capture(held.pop()))

        self.spawn(job)

    def capture(self, work: Work, scope: Scope) -> Any:
        """Do *work* in *scope*; return its value, or the exception that ends it."""
        self._scopes[scope] = None
        if self._cancelled_because:
            scope.cancel(self._cancelled_because)
        try:
            scope.start()
            value = work(scope)
        except BaseException as error:  # noqa: BLE001  # here it becomes a value
            value = as_value(error)
        value = scope.finish(value)
        self._scopes.pop(scope, None)
        self._notify()
        return value

    def claim(self, call: Call) -> object | None:
        """Return a claim if the caller is to perform *call*, or None if another thread is."""
        claim = object()
        self._claimed[claim] = call  # at every moment the call is in one of the two
        try:
            self._unclaimed.remove(call)
        except KeyError:
            del self._claimed[claim]
            return None
        return claim

    def release(self, claim: object | None) -> None:
        """End a *claim*: the callback has returned."""
        self._claimed.pop(claim, None)
        self._notify()

    def expedite(self, call: Call) -> None:
        """Start a queued *call* at once if a callback waits for it, whose worker sleeps."""
        if on_worker() and call in self._unclaimed:
            self.spawn(call.perform)

    def perform_cancelled(self, call: Call) -> None:
        """Perform a cancelled *call* at once if it is queued, so that its callback is told."""
        if call in self._unclaimed:
            self._cancelled.append(call)

    @property
    def current(self) -> bool:
        """Whether the thread that asks works for these calls."""
        here = threading.get_ident()
        return self.threads.current or any(scope.thread == here for scope in self._scopes.copy())

    @property
    def idle(self) -> bool:
        """Whether no callback has still to run or to return."""
        return not (self._unclaimed or self._claimed)

    @property
    def outstanding(self) -> bool:
        """Whether calls are under way, or callbacks have still to run or to return."""
        claimed = self._claimed.copy().values()
        return bool(self._scopes or self._unclaimed) or not all(call.done() for call in claimed)

    def check_deadlines(self) -> None:
        """End the calls whose time is over."""
        now = time.monotonic()
        for scope in self._scopes.copy():
            scope.expire(now)

    def cancel(self, why: str) -> None:
        """Cancel every call, first those that are queued, so that none of them is sent instead."""
        for call in (*self._unclaimed.copy(), *self._claimed.copy().values()):
            call.cancel()
        for scope in self._scopes.copy():
            scope.cancel(why)

    def cancel_for_good(self, why: str) -> None:
        """Cancel every call, also those that a worker is about to begin."""
        self._cancelled_because = why
        self.cancel(why)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait for the calls and their callbacks, except in one of these; say whether all ended."""
        return monitor.idle_changes.wait_for(self._done, 0 if self.current else timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Wait as `wait_idle` does, then for the threads to end; say whether all ended in time."""
        last = None if timeout is None else time.monotonic() + timeout
        done = self.wait_idle(timeout)
        if done and last is not None:
            timeout = max(0.0, last - time.monotonic())
        if done:
            monitor.join()
        return self.threads.close(timeout if done else 0) and done

    def abandon(self) -> None:
        """Forget the calls: in a forked child they are the parent's, which runs their callbacks."""
        monitor.remove(self)
        self.threads.abandon()
        self._queue.abandon()
        self._cancelled.abandon()
        for call in {*self._unclaimed, *self._claimed.values()}:
            call.abandon("the call is the parent process's")
        self._unclaimed.clear()
        self._claimed.clear()
        for scope in self._scopes.copy():
            if scope.thread != threading.get_ident():
                del self._scopes[scope]

    def _done(self) -> bool:
        return self.idle and not self._scopes

    def _notify(self) -> None:
        if self.idle:
            monitor.idle_changes.tell()


class _Slots:
    """Has calls performed in their order, at most *size* at once, each of these on a thread."""

    def __init__(self, size: int, threads: Threads) -> None:
        self._size = size
        self._threads = threads
        self._calls: deque[Call] = deque()
        self._slots: set[object] = set()  # those that are taken, and those that are to be
        self._taken = 0
        self._lock = threading.RLock()  # the last functions of a program take slots themselves

    def append(self, call: Call) -> None:
        """Have *call* performed when its turn comes."""
        self._calls.append(call)
        self.look()

    def look(self) -> None:
        """Take a slot if there is a call for it, and not every slot is taken."""
        if not self._calls or len(self._slots) >= self._size:
            return  # when one of them is free, it looks again
        slot = object()
        try:
            self._slots.add(slot)
            begun = not is_late() and self._threads.take(partial(self._serve, slot))
        except BaseException:
            self._slots.discard(slot)
            raise
        # Python 3.12.0 to 3.12.2 start no thread once the main thread has ended.
        if not begun:
            self._slots.discard(slot)
            if not self._slots:
                self._serve(slot)

    def abandon(self) -> None:
        """Forget the calls and the slots, except for one that this thread may have."""
        self._lock = threading.RLock()  # the old one may be held by a thread that is not there
        self._calls.clear()
        self._slots.clear()

    def _serve(self, slot: object) -> None:
        while self._calls and self._takes(slot):
            with suppress(IndexError):
                while True:
                    self._calls.popleft().perform()
            with self._lock:
                self._taken -= 1
            self._slots.discard(slot)
        self._slots.discard(slot)

    def _takes(self, slot: object) -> bool:
        with self._lock:
            if self._taken == self._size:
                return False
            self._taken += 1
        self._slots.add(slot)
        return True


def _await(values: Queue[Any], scope: Scope) -> Any:
    """Return the value that comes to *values*; look after the deadline of *scope* meanwhile."""
    while True:
        left = scope.left()
        with suppress(Empty):
            return values.get(left if 0 < left < PRECISION else PRECISION)
        scope.expire(time.monotonic())

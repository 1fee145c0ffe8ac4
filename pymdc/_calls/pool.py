"""The worker pool of a client: blocking calls, the queue of callback calls, cancellation."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

from pymdc._arguments import Callback
from pymdc._calls.call import Call, Work
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import Job, as_value, capture
from pymdc._calls.monitor import INTERRUPTED, PRECISION, is_shutting_down, monitor
from pymdc._calls.threads import WorkerThreads, on_worker
from pymdc._calls.waiting import Queue


class WorkerPool:
    """Worker threads for calls; at most *size* callback calls run at once.

    Blocking calls bypass the queue.
    A queued call can be claimed by a worker, by the thread that cancels it, and by a callback that
    waits for it; the first to claim the call performs it.

    Making, cancelling and awaiting a call take no lock except the lock of its scope. A signal
    handler may interrupt any of these lines. With a lock, a handler that makes a call could make
    the worker wait for ever, and a handler that raises could leave the lock locked.
    """

    def __init__(self, size: int) -> None:
        self.threads = WorkerThreads()
        self._scopes: dict[CancelScope, None] = {}  # of the calls that are running
        self._unclaimed: set[Call] = set()
        self._claimed: dict[object, Call] = {}  # by claim, until the callback has returned
        self._cancel_reason = ""  # for all calls, also for later ones
        self._queue, self._cancelled = (_Slots(size, self.threads) for _ in range(2))
        monitor.add(self)

    def run(self, work: Work, scope: CancelScope) -> Any:
        """Do *work* on a worker, wait for it, and return its value; Ctrl-C cancels the call."""
        if monitor.interrupted:
            scope.cancel(INTERRUPTED)
        if on_worker():
            return self.capture(work, scope)
        values: Queue[Any] = Queue()
        cell = [work]  # emptied by the job, so that the job does not keep the work alive
        try:
            self.spawn(lambda: values.put(self.capture(cell.pop(), scope)))
            return _await(values, scope)
        except BaseException:
            scope.cancel()
            monitor.give_up(values)
            raise

    def submit(self, work: Work, callback: Callback, scope: CancelScope) -> Call:
        """Queue *work* for a worker, which passes its value to *callback*."""
        if monitor.interrupted:
            scope.cancel(INTERRUPTED)
        call = Call(work, callback, scope, self)
        try:
            self._unclaimed.add(call)
            if sys.is_finalizing():
                call.perform()
                return call
            monitor.hold()  # first: the monitor thread of earlier calls may have ended
            self._queue.append(call)
        except BaseException:  # Ctrl-C; nothing else is raised
            self.release(self.claim(call))
            self._queue.fill()
            raise
        return call

    def spawn(self, job: Job) -> None:
        """Do *job* on a worker at once, or on this thread if no worker can be started."""
        if not self.threads.spawn(job):
            job()

    def start(self, job: Job, deliver: Callback) -> None:
        """Do *job* on a worker at once, which passes the outcome to *deliver*."""
        cell = [job]  # as in `run`
        self.spawn(lambda: deliver(capture(cell.pop())))

    def capture(self, work: Work, scope: CancelScope) -> Any:
        """Do *work* in *scope*; return its value, or the exception that ends it."""
        self._scopes[scope] = None
        if self._cancel_reason:
            scope.cancel(self._cancel_reason)
        try:
            scope.start()
            value = work(scope)
        except BaseException as error:  # noqa: BLE001  # the exception is the value
            value = as_value(error)
        value = scope.finish(value)
        self._scopes.pop(scope, None)
        self._notify()
        return value

    def claim(self, call: Call) -> object | None:
        """Return a claim if this thread shall perform *call*, None if another thread claimed it."""
        claim = object()
        self._claimed[claim] = call  # first: a call is always in at least one of the two
        try:
            self._unclaimed.remove(call)
        except KeyError:
            del self._claimed[claim]
            return None
        return claim

    def release(self, claim: object | None) -> None:
        """End *claim* after the callback has returned."""
        self._claimed.pop(claim, None)
        self._notify()

    def expedite(self, call: Call) -> None:
        """Start a queued *call* at once if a callback is waiting for it."""
        if on_worker() and call in self._unclaimed:
            self.spawn(call.perform)

    def perform_cancelled(self, call: Call) -> None:
        """Perform a cancelled *call* at once if it is queued, so that its callback runs."""
        if call in self._unclaimed:
            self._cancelled.append(call)

    @property
    def current(self) -> bool:
        """Whether the current thread performs a call of this pool."""
        here = threading.get_ident()
        return self.threads.current or any(scope.thread == here for scope in self._scopes.copy())

    @property
    def idle(self) -> bool:
        """Whether every callback has returned."""
        return not (self._unclaimed or self._claimed)

    @property
    def outstanding(self) -> bool:
        """Whether a call is running or queued, or a callback has not returned."""
        claimed = self._claimed.copy().values()
        return bool(self._scopes or self._unclaimed) or not all(call.done() for call in claimed)

    def check_deadlines(self) -> None:
        """End the calls whose deadline has passed."""
        now = time.monotonic()
        for scope in self._scopes.copy():
            scope.check_deadline(now)

    def cancel(self, why: str) -> None:
        """Cancel every call, and every later one.

        Queued calls are cancelled first: otherwise a freed worker would send one of them.
        """
        self._cancel_reason = why
        for call in (*self._unclaimed.copy(), *self._claimed.copy().values()):
            call.cancel()
        for scope in self._scopes.copy():
            scope.cancel(why)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait for all calls and callbacks; say whether all ended within *timeout* seconds.

        On a thread that performs one of these calls, return at once.
        """
        seconds = 0 if self.current else timeout
        return monitor.idle_changes.wait_for(lambda: self.idle and not self._scopes, seconds)

    def close(self, timeout: float | None = None) -> bool:
        """Wait as `wait_idle` does, then for the threads to end; say whether all ended in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        done = self.wait_idle(timeout)
        if done and deadline is not None:
            timeout = max(0.0, deadline - time.monotonic())
        if done:
            monitor.join()
        return self.threads.close(timeout if done else 0) and done

    def abandon(self) -> None:
        """Forget all calls: in a forked child they belong to the parent, which runs callbacks."""
        self.threads.abandon()
        self._queue.abandon()
        self._cancelled.abandon()
        for call in {*self._unclaimed, *self._claimed.values()}:
            call.abandon("the call belongs to the parent process")
        self._unclaimed.clear()
        self._claimed.clear()
        here = threading.get_ident()
        self._scopes = {scope: None for scope in self._scopes if scope.thread == here}

    def _notify(self) -> None:
        if self.idle:
            monitor.idle_changes.notify()


class _Slots:
    """A queue of calls, performed in order on at most *size* threads."""

    def __init__(self, size: int, threads: WorkerThreads) -> None:
        self._size = size
        self._threads = threads
        self._calls: deque[Call] = deque()
        self._slots: set[object] = set()  # of the threads that serve, or are about to serve
        self._active = 0
        self._lock = threading.RLock()  # exit functions run `_serve` on the main thread

    def append(self, call: Call) -> None:
        """Add *call* to the queue."""
        self._calls.append(call)
        self.fill()

    def fill(self) -> None:
        """Fill a free slot with a thread if a call is queued."""
        if not self._calls or len(self._slots) >= self._size:
            return  # each thread checks the queue again before it leaves its slot
        slot = object()
        try:
            self._slots.add(slot)
            started = not is_shutting_down() and self._threads.spawn(partial(self._serve, slot))
        except BaseException:
            self._slots.discard(slot)
            raise
        # Python 3.12.0 to 3.12.2 start no thread after the main thread has ended.
        if not started:
            self._slots.discard(slot)
            if not self._slots:
                self._serve(slot)

    def abandon(self) -> None:
        """Forget the calls and the slots."""
        self._lock = threading.RLock()  # a thread that no longer exists may hold the old one
        self._calls.clear()
        self._slots.clear()

    def _serve(self, slot: object) -> None:
        while self._calls and self._activate(slot):
            with suppress(IndexError):
                while True:
                    self._calls.popleft().perform()
            with self._lock:
                self._active -= 1
            self._slots.discard(slot)
        self._slots.discard(slot)

    def _activate(self, slot: object) -> bool:
        with self._lock:
            if self._active == self._size:
                return False
            self._active += 1
        self._slots.add(slot)
        return True


def _await(values: Queue[Any], scope: CancelScope) -> Any:
    """Wait for the value in *values* and return it; check all deadlines meanwhile.

    The deadlines of other clients are checked too, because the work in *scope* may run a function
    of the caller that waits for a call of another client.
    """
    while True:
        left = scope.remaining()
        with suppress(Empty):
            return values.get(left if 0 < left < PRECISION else PRECISION)
        monitor.check_deadlines()

"""The workers: who gets one at once, who waits for a turn, and what holds the process."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

from pymdc._call import Call, Callback, Work, outcome
from pymdc._scope import Clock, Scope
from pymdc._threads import Threads, on_any

_PRECISION = 0.25  # seconds between two looks at whether Ctrl-C ended the main thread
_LAST_SECONDS = 5.0  # for callbacks to hear that they are cancelled, after Ctrl-C
_CTRL_C = "the program was interrupted"
_all: weakref.WeakSet[Workers] = weakref.WeakSet()
_log = logging.getLogger("pymdc")


class Workers:
    """Threads for calls, started when needed; *size* bounds how many serve callbacks at once.

    *clock* is looked at while callbacks have to run, also where it can't have a thread of its own.

    A blocking call gets a thread whatever waits in the queue: its own one sleeps meanwhile.
    A call with a callback waits until somebody takes it, and whoever comes later finds it gone:
    so it may stand in the queue, be cancelled and be waited for at the same time.
    """

    def __init__(self, size: int, clock: Clock | None = None) -> None:
        self.threads = Threads()
        self._clock = clock or Clock()
        self._size = size
        self._calls: set[Call] = set()  # whose callbacks have not returned
        self._waiting: set[Call] = set()  # those of them that nobody has taken
        self._guests: set[threading.Thread] = set()  # other clients' workers, on these calls
        self._queue: deque[Call] = deque()
        self._lanes: set[Call] = set()  # each named by the call that opened it
        self._cancelled: deque[Call] = deque()
        self._tellers = 0
        self._kept = self._given_up = False
        self._renew_locks()
        _all.add(self)

    def _renew_locks(self) -> None:
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)

    def run(self, work: Work, scope: Scope) -> Any:
        """Do *work* on a worker, wait for it, and return its outcome; Ctrl-C ends its *scope*."""
        if self._given_up:
            scope.cancel(_CTRL_C)
        if on_any():
            return self._run_here(work)
        answers: SimpleQueue[Any] = SimpleQueue()
        try:
            self.start(work, answers.put)
            return answers.get()
        except BaseException:
            scope.cancel()
            raise

    def _run_here(self, work: Work) -> Any:
        """Do *work* on this worker, which may be another client's: then `quiet` waits for it."""
        if self.current:
            return outcome(work)
        guest = threading.current_thread()
        with self._lock:
            self._guests.add(guest)
        value = outcome(work)
        with self._lock:
            self._guests.discard(guest)
            self._quiet.notify_all()
        return value

    @property
    def current(self) -> bool:
        """Say whether the thread that asks works for these calls."""
        return self.threads.current or threading.current_thread() in self._guests

    def start(self, work: Work, deliver: Callback) -> None:
        """Do *work* on a worker, which hands its outcome to *deliver*."""

        def job() -> None:
            deliver(outcome(work))

        if not self.threads.take(job):
            job()

    def submit(self, work: Work, callback: Callback, scope: Scope) -> Call:
        """Do *work* on a worker in its turn, which hands its outcome to *callback*."""
        if self._given_up:
            scope.cancel(_CTRL_C)
        call = Call(work, callback, scope, self._hasten, self._overtake)
        try:
            self._accept(call)
        except BaseException:  # Ctrl-C, for nothing else is raised
            self._withdraw(call)
            raise
        return call

    def cancel(self, why: str) -> None:
        """Cancel every call, first those that wait, so that none of them is sent instead."""
        with self._lock:
            calls = (*self._waiting, *(self._calls - self._waiting))
        for call in calls:
            call.cancel()
        self._clock.cancel(why)

    def give_up(self, last: float | None = None) -> None:
        """Cancel every call of every client, until these are quiet or a few seconds are over."""
        last = last or time.monotonic() + _LAST_SECONDS
        while not self.quiet(0) and time.monotonic() < last:
            for workers in {self, *_everybody()}:
                workers._given_up = True
                workers.cancel(_CTRL_C)
            self.quiet(_PRECISION)

    def quiet(self, timeout: float | None = None) -> bool:
        """Wait until every callback has run; in a callback, do not wait. Say whether all have."""
        if self.current:
            timeout = 0
        with self._quiet:
            return self._quiet.wait_for(lambda: not (self._calls or self._guests), timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Wait as `quiet` does, then for the threads to end. Say whether all was done in time."""
        last = None if timeout is None else time.monotonic() + timeout
        quiet = self.quiet(timeout)
        if quiet and last is not None:
            timeout = max(0.0, last - time.monotonic())
        return self.threads.close(timeout if quiet else 0) and quiet

    def abandon(self) -> None:
        """Forget the calls: in a forked child they are the parent's, who runs their callbacks."""
        _all.discard(self)
        self._renew_locks()  # the old ones may be held by a thread that is not there
        self.threads.abandon()
        for calls in (self._queue, self._waiting, self._lanes):
            calls.clear()
        for call in self._calls:
            call.abandon()
        self._calls.clear()

    def _accept(self, call: Call) -> None:
        with self._lock:
            self._calls.add(call)
            self._waiting.add(call)
            opens = len(self._lanes) < self._size
            (self._lanes.add if opens else self._queue.append)(call)
        if opens:
            self._open(call)
        else:
            self._keep()  # whoever serves the lanes may have had nothing left to do until now

    def _open(self, lane: Call) -> None:
        if _late() or not (self._keep() and self.threads.take(partial(self._serve, lane))):
            self._serve_without_thread(lane)

    def _withdraw(self, call: Call) -> None:
        """Undo what was done for *call*, unless it is taken, and leave its lane to the next."""
        with self._lock:
            if call not in self._waiting:
                return
            for calls in (self._waiting, self._calls, self._lanes):
                calls.discard(call)
            with suppress(ValueError):
                self._queue.remove(call)
            self._quiet.notify_all()
            if not self._queue or len(self._lanes) == self._size:
                return
            lane = self._queue.popleft()
            self._lanes.add(lane)
        self._open(lane)

    def _serve(self, lane: Call) -> None:
        call: Call | None = lane
        while call is not None:
            self._finish(call)
            with self._lock:
                call = self._queue.popleft() if self._queue and lane in self._lanes else None
                if call is None:
                    self._lanes.discard(lane)

    def _hasten(self, call: Call) -> None:
        """Run a cancelled *call* now, if it waits for its turn: it is only told."""
        with self._lock:
            if call not in self._waiting:
                return
            self._cancelled.append(call)
            if self._tellers == self._size:
                return
            self._tellers += 1
        if not self.threads.take(self._tell):
            self._tell()

    def _tell(self) -> None:
        while True:
            with self._lock:
                if not self._cancelled:
                    self._tellers -= 1
                    return
                call = self._cancelled.popleft()
            self._finish(call)

    def _overtake(self, call: Call) -> None:
        """Let *call* pass the queue when a callback waits for it: that one's worker sleeps."""
        if not (on_any() and call in self._waiting):
            return
        if not self.threads.take(partial(self._finish, call)):
            self._finish(call)

    def _finish(self, call: Call) -> None:
        """Take *call* and run it, unless somebody has."""
        with self._lock:
            if call not in self._waiting:
                return
            self._waiting.discard(call)
        failure = outcome(call.run)
        with self._lock:
            self._calls.discard(call)
            if not self._calls:
                self._quiet.notify_all()
        if failure is not None:  # of what add_done_callback was given: Exceptions are logged there
            outcome(partial(_log.error, "after a callback came %r", failure))

    def _serve_without_thread(self, lane: Call) -> None:
        # Python 3.12.0 to 3.12.2 start no thread once the main thread has ended.
        with self._lock:
            others = len(self._lanes) > 1
            if others:
                self._lanes.discard(lane)
                self._queue.append(lane)
        if not others:
            self._serve(lane)

    def _keep(self) -> bool:
        """Have a thread that is no daemon while callbacks have to run: it holds the process."""
        with self._lock:
            if self._kept:
                return True
            self._kept = True
        begun = False
        try:
            keeper = threading.Thread(target=self._stay, name="pymdc-keeper", daemon=False)
            begun = self.threads.begin(keeper)
        finally:
            if not begun:
                with self._lock:
                    self._kept = False
        return begun

    def _stay(self) -> None:
        ended = False
        while not ended:
            if _interrupted():
                self.give_up()
            self._clock.look()
            with self._quiet:
                ended = self._quiet.wait_for(lambda: not self._calls, _PRECISION) or _interrupted()
                if ended:
                    self._kept = False


def _interrupted() -> bool:
    """Say whether Ctrl-C has ended the main thread; at a prompt it ends but a line."""
    return (
        not threading.main_thread().is_alive()
        and getattr(sys, "last_type", None) is KeyboardInterrupt
        and not hasattr(sys, "ps1")
    )


def _late() -> bool:
    """Say whether the program's last functions run, after which no thread is waited for."""
    main = threading.main_thread()
    return threading.current_thread() is main and not main.is_alive()


def _everybody() -> tuple[Workers, ...]:
    try:
        return tuple(_all)
    except RuntimeError:  # a client is made at this moment
        return _everybody()


@atexit.register
def _tell_the_rest() -> None:
    """Cancel what is left when Ctrl-C interrupts the wait for the last callbacks."""
    last = time.monotonic() + _LAST_SECONDS
    for workers in _everybody():
        workers.give_up(last)

"""The workers: who gets one at once, who waits for a turn, and what holds the process."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any

from pymdc._calls.call import Call
from pymdc._calls.cancel_scope import Clock, Scope
from pymdc._calls.capture import Callback, Work, outcome
from pymdc._calls.threads import Threads, on_any
from pymdc._calls.waiting import Changes, Queue

_PRECISION = 0.25  # seconds between two looks at whether Ctrl-C ended the main thread
_LAST_SECONDS = 5.0  # for callbacks to hear that they are cancelled, after Ctrl-C
_LAST_SECOND = 1.0  # for blocking calls to end what they do, after Ctrl-C
_CTRL_C = "the program was interrupted"
_all: weakref.WeakSet[Workers] = weakref.WeakSet()
_log = logging.getLogger("pymdc")


class Workers:
    """Threads for calls, started when needed; *size* bounds how many serve callbacks at once.

    *clock* is looked at while callbacks have to run, also where it can't have a thread of its own.

    A blocking call gets a thread whatever waits in the queue: its own one sleeps meanwhile.
    A call with a callback waits until somebody takes it, and whoever comes later finds it gone:
    so it may stand in the queue, be cancelled and be waited for at the same time.

    Whoever makes, cancels or awaits a call takes no lock but that of its scope: a signal handler
    may interrupt any line of that, and make a call that needs a thread which waits for the lock,
    or raise, so that nobody releases it.
    """

    def __init__(self, size: int, clock: Clock | None = None) -> None:
        self.threads = Threads()
        self._clock = clock or Clock()
        self._waiting: set[Call] = set()  # those that nobody has taken
        self._running: dict[
            object, Call
        ] = {}  # what else has a callback, by who is about to take it
        self._guests: set[threading.Thread] = set()  # other clients' workers, on these calls
        self._given_up_on: list[Queue[Any]] = []  # for the values of blocking calls
        self._keepers: set[threading.Thread] = set()
        self._given_up = False
        self._changes = Changes()
        self._queue, self._cancelled = (_Lanes(size, self.threads, self._finish) for _ in range(2))
        _all.add(self)

    def run(self, work: Work, scope: Scope) -> Any:
        """Do *work* on a worker, wait for it, and return its outcome; Ctrl-C ends its *scope*."""
        if self._given_up:
            scope.cancel(_CTRL_C)
        if on_any():
            return self._run_here(work)
        answers: Queue[Any] = Queue()
        try:
            self.start(work, answers.put)
            return answers.get()
        except BaseException:
            scope.cancel()
            left = [other for other in self._given_up_on if not other]
            self._given_up_on = [*left, answers]
            raise

    def _run_here(self, work: Work) -> Any:
        """Do *work* on this worker, which may be another client's: then `quiet` waits for it."""
        if self.current:
            return outcome(work)
        guest = threading.current_thread()
        self._guests.add(guest)
        value = outcome(work)
        self._guests.discard(guest)
        self._changes.tell()
        return value

    @property
    def current(self) -> bool:
        """Say whether the thread that asks works for these calls."""
        return self.threads.current or threading.current_thread() in self._guests

    @property
    def outstanding(self) -> bool:
        """Whether callbacks have still to run or to return."""
        running = self._running.copy().values()
        return bool(self._guests or self._waiting) or not all(call.done() for call in running)

    @property
    def _called_back(self) -> bool:
        return not (self._waiting or self._running)

    def start(self, work: Work, deliver: Callback) -> None:
        """Do *work* on a worker, which hands its outcome to *deliver* and keeps neither."""
        held = [work]

        def job() -> None:
            deliver(outcome(held.pop()))

        if not self.threads.take(job):
            job()

    def submit(self, work: Work, callback: Callback, scope: Scope) -> Call:
        """Do *work* on a worker in its turn, which hands its outcome to *callback*."""
        if self._given_up:
            scope.cancel(_CTRL_C)
        call = Call(work, callback, scope, self._hasten, self._overtake)
        if sys.is_finalizing():
            call.perform()
            return call
        try:
            self._waiting.add(call)
            self._keep()  # first: it is for others, too, who may have had nothing left to do
            self._queue.append(call)
        except BaseException:  # Ctrl-C, for nothing else is raised
            self._withdraw(call)
            raise
        return call

    def cancel(self, why: str) -> None:
        """Cancel every call, first those that wait, so that none of them is sent instead."""
        for call in (*self._waiting.copy(), *self._running.copy().values()):
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

    def await_given_up(self, last: float) -> None:
        """Wait for the blocking calls that Ctrl-C ended, until *last*: they may have to tidy up."""
        for answers in self._given_up_on:
            with suppress(Empty):
                answers.get(last - time.monotonic())

    def quiet(self, timeout: float | None = None) -> bool:
        """Wait until every callback has run; in a callback, do not wait. Say whether all have."""
        if self.current:
            timeout = 0
        return self._changes.wait_for(lambda: self._called_back and not self._guests, timeout)

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
        self.threads.abandon()
        self._queue.abandon()
        self._cancelled.abandon()
        for call in {*self._waiting, *self._running.values()}:
            call.abandon("the call is the parent process's")
        self._waiting.clear()
        self._running.clear()
        self._guests &= {threading.current_thread()}

    def _withdraw(self, call: Call) -> None:
        """Undo what was done for *call*, unless it is taken, and leave its lane to the next."""
        if self._takes(call):
            self._tell()
            self._queue.look()

    def _hasten(self, call: Call) -> None:
        """Run a cancelled *call* now, if it waits for its turn: it is only told."""
        if call in self._waiting:
            self._cancelled.append(call)

    def _overtake(self, call: Call) -> None:
        """Let *call* pass the queue when a callback waits for it: that one's worker sleeps."""
        if not (on_any() and call in self._waiting):
            return
        if not self.threads.take(partial(self._finish, call)):
            self._finish(call)

    def _finish(self, call: Call) -> None:
        """Take *call* and run it, unless somebody has."""
        place = object()
        self._running[place] = call  # before it waits no more
        failure = outcome(call.perform) if self._takes(call) else None
        self._running.pop(place, None)
        self._tell()
        if failure is not None:  # of what add_done_callback was given: Exceptions are logged there
            outcome(partial(_log.error, "after a callback came %r", failure))

    def _takes(self, call: Call) -> bool:
        try:
            self._waiting.remove(call)
        except KeyError:
            return False
        return True

    def _tell(self) -> None:
        if self._called_back:
            self._changes.tell()

    def _keep(self) -> None:
        """Have a thread that is no daemon while callbacks have to run: it holds the process."""
        if self._keepers or _late():
            return
        keeper = threading.Thread(target=self._stay, name="pymdc-keeper", daemon=False)
        begun = False
        try:
            self._keepers.add(keeper)
            begun = self.threads.begin(keeper)
        finally:
            if not begun:
                self._keepers.discard(keeper)

    def _stay(self) -> None:
        keeper = threading.current_thread()
        while keeper in self._keepers:
            if _interrupted():
                self.give_up()
            self._clock.look()
            if self._changes.wait_for(lambda: self._called_back, _PRECISION) or _interrupted():
                self._keepers.discard(keeper)
                if not (self._called_back or _interrupted()):  # one came before it could see that
                    self._keepers.add(keeper)


class _Lanes:
    """Has calls finished in their order, at most *size* at once, each of these on a thread."""

    def __init__(self, size: int, threads: Threads, finish: Callable[[Call], None]) -> None:
        self._size = size
        self._threads = threads
        self._finish = finish
        self._calls: deque[Call] = deque()
        self._lanes: set[object] = set()  # those that are opened, and those that are to be
        self._opened = 0
        self._lock = threading.RLock()  # the last functions of a program open lanes themselves

    def append(self, call: Call) -> None:
        """Have *call* finished when it is its turn."""
        self._calls.append(call)
        self.look()

    def look(self) -> None:
        """Open a lane if there is a call for it, and not every lane is open."""
        if not self._calls or len(self._lanes) >= self._size:
            return  # when one of them ends, it looks again
        lane = object()
        try:
            self._lanes.add(lane)
            begun = not _late() and self._threads.take(partial(self._serve, lane))
        except BaseException:
            self._lanes.discard(lane)
            raise
        # Python 3.12.0 to 3.12.2 start no thread once the main thread has ended.
        if not begun:
            self._lanes.discard(lane)
            if not self._lanes:
                self._serve(lane)

    def abandon(self) -> None:
        """Forget the calls and the lanes, except for one that this thread may be."""
        self._lock = threading.RLock()  # the old one may be held by a thread that is not there
        self._calls.clear()
        self._lanes.clear()

    def _serve(self, lane: object) -> None:
        while self._calls and self._opens(lane):
            with suppress(IndexError):
                while True:
                    self._finish(self._calls.popleft())
            with self._lock:
                self._opened -= 1
            self._lanes.discard(lane)
        self._lanes.discard(lane)

    def _opens(self, lane: object) -> bool:
        with self._lock:
            if self._opened == self._size:
                return False
            self._opened += 1
        self._lanes.add(lane)
        return True


def _interrupted() -> bool:
    """Say whether Ctrl-C has ended the main thread; at a prompt it ends but a line."""
    return (
        _main_has_ended()
        and getattr(sys, "last_type", None) is KeyboardInterrupt
        and not hasattr(sys, "ps1")
    )


def _late() -> bool:
    """Say whether the program's last functions run, after which no thread is waited for."""
    return threading.current_thread() is threading.main_thread() and _main_has_ended()


def _main_has_ended() -> bool:
    main = threading.main_thread()
    # Up to Python 3.12 a signal handler that raises in is_alive() of the thread that it interrupts
    # lets that one count as ended.
    ended = getattr(main, "_is_stopped", None)
    return not main.is_alive() if ended is None else bool(ended)


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
    last = time.monotonic() + _LAST_SECOND
    for workers in _everybody():
        workers.await_given_up(last)

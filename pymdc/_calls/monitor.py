"""What looks after all calls of the process: their deadlines, Ctrl-C, and the process's end."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import Any, Protocol

from pymdc._calls.threads import run_on_thread, start_thread
from pymdc._calls.waiting import Changes, Queue

PRECISION = 0.25  # seconds between two looks at the deadlines
INTERRUPTED = "the program was interrupted"
_LAST_SECONDS = 5.0  # for callbacks to hear that they are cancelled, after Ctrl-C
_LAST_SECOND = 1.0  # for blocking calls to end what they do, after Ctrl-C


class Pool(Protocol):
    """What the monitor knows of the workers of a client."""

    @property
    def idle(self) -> bool:
        """Whether no callback has still to run or to return."""

    def check_deadlines(self) -> None:
        """End the calls whose time is over."""

    def cancel(self, why: str) -> None:
        """Cancel every call."""


class Monitor:
    """Has a thread while callbacks are outstanding, for which the process therefore stays.

    ``interrupted`` is true once Ctrl-C has ended the program: calls are cancelled from then on.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Know of no calls and threads, as in a forked child, where they are the parent's."""
        self.interrupted = False
        self.idle_changes = Changes()  # a pool has become idle
        self._thread: threading.Thread | None = None  # the latest
        self._pools: weakref.WeakSet[Pool] = weakref.WeakSet()
        self._threads: set[threading.Thread] = set()
        self._given_up: list[Queue[Any]] = []  # for the values of interrupted blocking calls

    def add(self, pool: Pool) -> None:
        """Look after the calls of *pool*, too."""
        self._pools.add(pool)

    def remove(self, pool: Pool) -> None:
        """Look after the calls of *pool* no longer."""
        self._pools.discard(pool)

    def hold(self) -> None:
        """Hold the process until no callback is outstanding."""
        if self._threads or is_late():
            return
        thread = threading.Thread(target=self._run, name="pymdc-monitor", daemon=False)
        started = False
        try:
            self._threads.add(thread)
            self._thread = thread
            started = start_thread(thread)
        finally:
            if not started:
                self._threads.discard(thread)

    def join(self) -> None:
        """Wait until the thread has ended, if no callback is outstanding."""
        thread, self._thread = self._thread, None
        if thread is not None:
            run_on_thread(partial(self._join, thread))

    def give_up(self, values: Queue[Any]) -> None:
        """Remember a blocking call that was interrupted, whose value will come to *values*."""
        self._given_up = [*(other for other in self._given_up if not other), values]

    def interrupt(self, last: float | None = None) -> None:
        """Cancel every call, until all callbacks have returned or a few seconds are over."""
        last = last or time.monotonic() + _LAST_SECONDS
        while not self._idle() and time.monotonic() < last:
            self.interrupted = True
            for pool in self._all():
                pool.cancel(INTERRUPTED)
            self.idle_changes.wait_for(self._idle, PRECISION)

    def at_exit(self) -> None:
        """Cancel what is left when Ctrl-C interrupts the wait for the last callbacks."""
        self.interrupt()
        last = time.monotonic() + _LAST_SECOND
        for values in self._given_up:
            with suppress(Empty):
                values.get(last - time.monotonic())

    def _run(self) -> None:
        thread = threading.current_thread()
        while thread in self._threads:
            if _interrupted():
                self.interrupt()
            for pool in self._all():
                pool.check_deadlines()
            if self.idle_changes.wait_for(self._idle, PRECISION) or _interrupted():
                self._threads.discard(thread)
                if not (self._idle() or _interrupted()):  # a call came before it could see that
                    self._threads.add(thread)

    def _join(self, thread: threading.Thread) -> None:
        if self._idle():
            thread.join(_LAST_SECOND)
        else:
            self._thread = thread

    def _idle(self) -> bool:
        return all(pool.idle for pool in self._all())

    def _all(self) -> tuple[Pool, ...]:
        while True:
            with suppress(RuntimeError):  # a pool is made at this moment
                return tuple(self._pools)


def is_late() -> bool:
    """Say whether the program's last functions run, after which no thread is waited for."""
    return threading.current_thread() is threading.main_thread() and _main_has_ended()


def _interrupted() -> bool:
    """Say whether Ctrl-C has ended the main thread; at a prompt it ends but a line."""
    return (
        _main_has_ended()
        and getattr(sys, "last_type", None) is KeyboardInterrupt
        and not hasattr(sys, "ps1")
    )


def _main_has_ended() -> bool:
    main = threading.main_thread()
    # Up to Python 3.12 a signal handler that raises in is_alive() of the thread that it interrupts
    # lets that one count as ended.
    ended = getattr(main, "_is_stopped", None)
    return not main.is_alive() if ended is None else bool(ended)


monitor = Monitor()
atexit.register(monitor.at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=monitor.begin)

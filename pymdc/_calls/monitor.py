"""The monitor of all calls in the process: deadlines, Ctrl-C, and the end of the process."""

from __future__ import annotations

import atexit
import os
import signal
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

PRECISION = 0.25  # seconds between two checks of the deadlines
INTERRUPTED = "the program was interrupted"
_CALLBACK_GRACE = 5.0  # seconds after Ctrl-C, for the callbacks of cancelled calls
_THREAD_GRACE = 1.0  # seconds for interrupted blocking calls and the monitor thread to end


class MonitoredPool(Protocol):
    """What the monitor needs of a client's worker pool."""

    @property
    def idle(self) -> bool:
        """Whether every callback has returned."""

    def check_deadlines(self) -> None:
        """End the calls whose deadline has passed."""

    def cancel(self, why: str) -> None:
        """Cancel every call."""


class Monitor:
    """Keeps a thread running while callbacks are outstanding, so that the process does not end.

    ``interrupted`` is true after Ctrl-C has ended the program: every later call is cancelled.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all calls and threads: in a forked child they belong to the parent."""
        self.interrupted = False
        self.idle_changes = Changes()  # a pool has become idle
        self._thread: threading.Thread | None = None  # the latest
        self._pools: weakref.WeakSet[MonitoredPool] = weakref.WeakSet()
        self._threads: set[threading.Thread] = set()
        self._given_up: list[Queue[Any]] = []  # for the values of interrupted blocking calls
        self._to_wake: int | None = None  # the main thread, once it has ended

    def add(self, pool: MonitoredPool) -> None:
        """Monitor the calls of *pool*."""
        self._pools.add(pool)

    def hold(self) -> None:
        """Keep the process running until no callback is outstanding."""
        if not (self._threads or self.interrupted or is_shutting_down()):
            self._start()

    def check_deadlines(self) -> None:
        """End the calls of every pool whose deadline has passed."""
        for pool in self._copy_pools():
            pool.check_deadlines()

    def join(self) -> None:
        """Wait until the thread has ended, if no callback is outstanding."""
        thread, self._thread = self._thread, None
        if thread is not None:
            run_on_thread(partial(self._join, thread))

    def give_up(self, values: Queue[Any]) -> None:
        """Remember an interrupted blocking call; its worker will put the value in *values*."""
        self._given_up = [*(other for other in self._given_up if not other), values]

    def interrupt(self, deadline: float | None = None) -> None:
        """Cancel every call, until all callbacks have returned or the *deadline* has passed."""
        deadline = deadline or time.monotonic() + _CALLBACK_GRACE
        while not self._idle() and time.monotonic() < deadline:
            self.interrupted = True
            for pool in self._copy_pools():
                pool.cancel(INTERRUPTED)
            self.idle_changes.wait_for(self._idle, PRECISION)

    def prepare_wake(self) -> None:
        """Handle SIGURG, which hardly any program uses, to wake the main thread, which calls this.

        Leaves the signal alone if the program handles it, or is told of signals by a descriptor.
        """
        if not hasattr(signal, "SIGURG"):  # Windows
            return
        with suppress(ValueError):  # in a sub-interpreter
            handler = signal.getsignal(signal.SIGURG)
            if handler in (signal.SIG_DFL, _do_nothing) and not _has_wakeup_descriptor():
                signal.signal(signal.SIGURG, _do_nothing)
                self._to_wake = threading.get_ident()

    def at_exit(self) -> None:
        """Cancel the calls that are left, if Ctrl-C ended the wait for the last callbacks."""
        try:
            self.interrupt()
            deadline = time.monotonic() + _THREAD_GRACE
            for values in self._given_up:
                with suppress(Empty):
                    values.get(deadline - time.monotonic())
        finally:
            self._to_wake = None
            self._threads.clear()  # Python 3.15 waits for them again after the exit functions

    def _run(self) -> None:
        thread = threading.current_thread()
        while thread in self._threads:
            if _interrupted():
                self.interrupt()
            self.check_deadlines()
            if self.idle_changes.wait_for(self._idle, PRECISION) or _interrupted():
                self._threads.discard(thread)
                # A new call may have found this thread in the set and started no other one.
                if not (self._idle() or _interrupted() or self.interrupted):
                    self._threads.add(thread)
            elif (main := self._to_wake) is not None:
                # A signal that came just before the main thread began to wait for the last threads
                # has not interrupted that wait; this one does, and then both are handled.
                signal.pthread_kill(main, signal.SIGURG)

    def _start(self) -> None:
        """Run on a new thread, if one can be started."""
        thread = threading.Thread(target=self._run, name="pymdc-monitor", daemon=False)
        previous, started = self._thread, False
        try:
            self._threads.add(thread)
            self._thread = thread
            started = start_thread(thread)
        finally:
            if not started:
                self._threads.discard(thread)
                self._thread = previous

    def _join(self, thread: threading.Thread) -> None:
        if self._idle():
            with suppress(RuntimeError):  # a thread that is still starting: it ends by itself
                thread.join(_THREAD_GRACE)
        else:
            self._thread = thread

    def _idle(self) -> bool:
        return all(pool.idle for pool in self._copy_pools())

    def _copy_pools(self) -> tuple[MonitoredPool, ...]:
        while True:
            with suppress(RuntimeError):  # another thread has just added a pool
                return tuple(self._pools)


def is_shutting_down() -> bool:
    """Say whether Python is running its exit functions, after which it waits for no thread."""
    return threading.current_thread() is threading.main_thread() and _main_has_ended()


def _interrupted() -> bool:
    """Say whether Ctrl-C has ended the main thread; at a prompt it only ends the current line."""
    return (
        _main_has_ended()
        and getattr(sys, "last_type", None) is KeyboardInterrupt
        and not hasattr(sys, "ps1")
    )


def _main_has_ended() -> bool:
    main = threading.main_thread()
    # Up to Python 3.12, is_alive() wrongly marks the main thread as ended if a signal handler
    # raises inside it. The attribute is not affected.
    ended = getattr(main, "_is_stopped", None)
    return not main.is_alive() if ended is None else bool(ended)


def _has_wakeup_descriptor() -> bool:
    descriptor = signal.set_wakeup_fd(-1)
    try:
        signal.set_wakeup_fd(descriptor)
    except (ValueError, OSError):  # closed, and so of no use
        return False
    return descriptor != -1


def _do_nothing(_signal: int, _frame: object) -> None:
    pass


monitor = Monitor()
atexit.register(monitor.at_exit)
with suppress(AttributeError, RuntimeError):  # private; and refused once the main thread has ended
    threading._register_atexit(monitor.prepare_wake)  # type: ignore[attr-defined]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=monitor.reset)

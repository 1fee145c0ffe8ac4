"""The handle of a call whose answer goes to a callback."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from pymdc._arguments import Callback
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import capture
from pymdc._calls.waiting import Changes
from pymdc.exceptions import Cancelled

Work = Callable[[CancelScope], Any]

_idents = itertools.count(1)
_log = logging.getLogger("pymdc")


class Pool(Protocol):
    """What a call needs of the worker pool."""

    def claim(self, call: Call) -> object | None:
        """Return a claim if this thread shall perform *call*, None if another thread claimed it."""

    def capture(self, work: Work, scope: CancelScope) -> Any:
        """Do *work* in *scope* and return its value."""

    def release(self, claim: object | None) -> None:
        """End *claim* after the callback has returned."""

    def expedite(self, call: Call) -> None:
        """Start a queued *call* at once if a callback is waiting for it."""

    def perform_cancelled(self, call: Call) -> None:
        """Perform a cancelled *call* at once if it is queued, so that its callback runs."""


class _Pending(NamedTuple):
    """What a call holds until its callback runs."""

    work: Work
    callback: Callback
    scope: CancelScope
    pool: Pool


class Call(concurrent.futures.Future[Any]):
    """A call whose answer goes to a callback.

    A call is done when its callback has returned; it then keeps its value and nothing else.
    ``result()`` returns the value that the callback got; an exception too is returned, not raised.
    A callback may wait for another call with ``join()`` or ``result()``, which start a queued call
    at once; ``concurrent.futures.wait()`` does not.

    0.0.1 returned a ``threading.Thread``, so a call also has ``name``, ``ident``, ``daemon`` and
    the methods of a thread. ``daemon`` cannot be set.
    """

    __module__ = "pymdc"  # where it is public

    def __init__(self, work: Work, callback: Callback, scope: CancelScope, pool: Pool) -> None:
        super().__init__()
        self._pending: _Pending | None = _Pending(work, callback, scope, pool)
        self._thread: int | None = None
        self._changes = Changes()
        # Added first, because the done callbacks that scripts add may take long.
        self.add_done_callback(self._changes.notify)
        self._ident = next(_idents)
        self.name = f"Call-{self._ident}"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the callback has returned, at most *timeout* seconds."""
        self._wait(timeout)

    def done(self) -> bool:
        """Say whether the callback has returned."""
        # Without the future's lock: a signal handler that raises could leave it locked, and the
        # worker would hang. Of the methods that a script calls, only add_done_callback takes it.
        return self._state == "FINISHED"

    def running(self) -> bool:
        """Say whether a worker has begun the call and the callback has not returned."""
        return self._state == "RUNNING"

    def cancelled(self) -> bool:
        """Return False: a cancelled call is done as well, and its value is `Cancelled`."""
        return False

    def is_alive(self) -> bool:
        """Say whether the callback has not returned yet."""
        return not self.done()

    def result(self, timeout: float | None = None) -> Any:
        """Return the value that the callback got; wait at most *timeout* seconds for it.

        Raises concurrent.futures.TimeoutError if the callback has not returned by then.
        """
        if not self._wait(timeout):
            raise concurrent.futures.TimeoutError
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as `result` does; return None, because `result` returns exceptions."""
        if not self._wait(timeout):
            raise concurrent.futures.TimeoutError
        return None

    def cancel(self) -> bool:
        """Cancel a call that has not finished; its callback gets `Cancelled`.

        A queued call is never sent. A call that is being sent loses its connection.
        """
        pending = self._pending
        if pending is None or not pending.scope.cancel():
            return False
        pending.pool.perform_cancelled(self)
        return True

    @property
    def ident(self) -> int:
        """A number that no other call of this process has."""
        return self._ident

    @property
    def daemon(self) -> bool:
        """False: the process waits for the callback; setting it raises RuntimeError."""
        return False

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        raise RuntimeError("cannot set daemon status of active thread")

    def start(self) -> None:
        """Raise RuntimeError, as a thread that is already started does."""
        raise RuntimeError("threads can only be started once")

    def run(self) -> None:
        """Raise RuntimeError, as `start` does."""
        raise RuntimeError("threads can only be started once")

    def isAlive(self) -> bool:  # noqa: N802  # this and the next four are names of 2016
        """Return ``is_alive()``."""
        return self.is_alive()

    def getName(self) -> str:  # noqa: N802
        """Return ``name``."""
        return self.name

    def setName(self, name: str) -> None:  # noqa: N802
        """Set ``name``."""
        self.name = name

    def isDaemon(self) -> bool:  # noqa: N802
        """Return ``daemon``."""
        return self.daemon

    def setDaemon(self, daemonic: bool) -> None:  # noqa: N802
        """Set ``daemon``, which raises RuntimeError."""
        self.daemon = daemonic

    def __repr__(self) -> str:
        pending = self._pending
        if pending is not None:
            return f"<Call {self.name}, {pending.scope.operation}>"
        return f"<Call {self.name}, {'done' if self.done() else 'its callback runs'}>"

    def _wait(self, timeout: float | None) -> bool:
        if not self.done():
            self._prepare_to_wait()
        return self._changes.wait_for(self.done, timeout)

    def _prepare_to_wait(self) -> None:
        if self._thread == threading.get_ident():
            raise RuntimeError("a callback cannot wait for its own call")
        if sys.is_finalizing():
            self.abandon("Python ended before it was done")
        elif (pending := self._pending) is not None:
            pending.pool.expedite(self)

    def abandon(self, why: str) -> None:
        """Finish without running the callback; the value is `Cancelled` with the text *why*."""
        done, value = self._state == "FINISHED", self._result
        super().__init__()  # a new lock: a thread that no longer exists may hold the old one
        self._finish(value if done else Cancelled(why))

    def perform(self) -> None:
        """Do the work and pass its value to the callback, unless the call is already claimed."""
        pending = self._pending
        if pending is None or (claim := pending.pool.claim(self)) is None:
            return
        self.set_running_or_notify_cancel()
        pool, callback = pending.pool, pending.callback
        value = pool.capture(pending.work, pending.scope)
        self._pending = pending = None
        self._thread = threading.get_ident()
        try:
            callback(value)
        except BaseException as error:  # noqa: BLE001  # a callback that raises must not end the worker
            capture(partial(_log_failure, callback, error))
        del callback
        # If the callback forked, this may be the child, where the call is done already.
        failure = None if self.done() else capture(lambda: self._finish(value))
        pool.release(claim)
        # concurrent.futures logs an Exception of a done callback itself, but not a BaseException.
        if failure is not None:
            capture(lambda: _log.error("a done callback raised %r", failure))

    def _finish(self, value: Any) -> None:
        self._pending = None
        try:
            self.set_result(value)
        finally:
            self._changes.notify()
            self._done_callbacks.clear()  # type: ignore[attr-defined]  # not in typeshed


def _log_failure(callback: Callback, error: BaseException) -> None:
    name = getattr(callback, "__qualname__", type(callback).__qualname__)
    # Without the frame of `Call.perform`: the value in it may hold a token.
    frames = error.__traceback__ and error.__traceback__.tb_next
    _log.error("the callback %s raised", name, exc_info=(type(error), error, frames))

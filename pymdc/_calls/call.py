"""The handle of a call whose answer goes to a callback."""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pymdc._arguments import Callback
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import capture
from pymdc._calls.waiting import Changes
from pymdc.exceptions import Cancelled

Work = Callable[[CancelScope], Any]

_numbers = itertools.count(1)
_log = logging.getLogger("pymdc")


class Pool(Protocol):
    """What a call needs of the workers that it waits for."""

    def claim(self, call: Call) -> object | None:
        """Return a claim if the caller is to perform *call*, or None if another thread is."""

    def capture(self, work: Work, scope: CancelScope) -> Any:
        """Do *work* in *scope*, and return its value."""

    def release(self, claim: object | None) -> None:
        """End a *claim*: the callback has returned."""

    def expedite(self, call: Call) -> None:
        """Perform *call* at once if it is queued and the thread that asks is a worker."""

    def perform_cancelled(self, call: Call) -> None:
        """Perform *call*, which was cancelled, at once if it is queued."""


@dataclass(frozen=True)
class _Pending:
    """What a call holds until its callback runs."""

    work: Work
    callback: Callback
    scope: CancelScope
    pool: Pool


class Call(concurrent.futures.Future[Any]):
    """A call whose answer goes to a callback.

    It is done when its callback has returned, and then holds its value alone; ``result()`` is the
    value that the callback got, an exception too. A callback may wait for another call by
    ``join()`` and ``result()``, which pass the queue; ``concurrent.futures.wait()`` does not.

    It also has what the `threading.Thread` had that 0.0.1 returned: ``name``, ``ident``,
    ``daemon``, which cannot be set since it runs, and their old methods.
    """

    __module__ = "pymdc"  # where it is public

    def __init__(self, work: Work, callback: Callback, scope: CancelScope, pool: Pool) -> None:
        super().__init__()
        self._pending: _Pending | None = _Pending(work, callback, scope, pool)
        self._thread: int | None = None
        self._changes = Changes()
        # The first of the functions that are called when it is done, each of which may take long.
        self.add_done_callback(self._changes.tell)
        self._ident = next(_numbers)
        self.name = f"Call-{self._ident}"

    def join(self, timeout: float | None = None) -> None:
        """Wait until the callback has returned, for *timeout* seconds at the most."""
        self._wait(timeout)

    def done(self) -> bool:
        """Say whether the callback has returned."""
        # Without the future's lock, which a signal handler that raises would leave held, so that
        # the worker could not go on; nor does anything else here take it that a script calls.
        return self._state == "FINISHED"

    def running(self) -> bool:
        """Say whether a worker has begun it, and the callback has not returned."""
        return self._state == "RUNNING"

    def cancelled(self) -> bool:
        """Return False: a call that was cancelled is done, and its value is `Cancelled`."""
        return False

    def is_alive(self) -> bool:
        """Say whether the callback has still to run or to return."""
        return not self.done()

    def result(self, timeout: float | None = None) -> Any:
        """Return the value that the callback got, waiting *timeout* seconds at the most."""
        if not self._wait(timeout):
            raise concurrent.futures.TimeoutError
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return None once the callback has returned: an exception too is a `result`."""
        if not self._wait(timeout):
            raise concurrent.futures.TimeoutError
        return None

    def cancel(self) -> bool:
        """Cancel the call, unless it has its value; the callback then gets `Cancelled`.

        A call that no worker has begun is never sent; one that is on its way loses its connection.
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
        """False: the process stays until the callback has returned; to set it is a RuntimeError."""
        return False

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        raise RuntimeError("cannot set daemon status of active thread")

    def start(self) -> None:
        """Raise RuntimeError, as a thread that was started does."""
        raise RuntimeError("threads can only be started once")

    def run(self) -> None:
        """Raise RuntimeError, as `start` does."""
        raise RuntimeError("threads can only be started once")

    def isAlive(self) -> bool:  # noqa: N802  # this and the next ones are names of 2016
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
        """Set ``daemon``, which is a RuntimeError."""
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
        """Be done without the callback, which another process runs, or nobody; say *why*."""
        done, value = self._state == "FINISHED", self._result
        super().__init__()  # what waits in the old one is not there, and may hold its lock
        self._finish(value if done else Cancelled(why))

    def perform(self) -> None:
        """Do the work and hand its value to the callback, unless another thread has begun to."""
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
        except BaseException as error:  # noqa: BLE001  # what the user's function raises must harm nothing else
            # Without this frame, whose value may hold a token.
            theirs = error.__traceback__ and error.__traceback__.tb_next
            _log.error(
                "the callback %s raised", _name(callback), exc_info=(type(error), error, theirs)
            )
        del callback
        # Where the callback forked, this may be the child, in which the call is done.
        failure = None if self.done() else capture(lambda: self._finish(value))
        pool.release(claim)
        if failure is not None:  # of what add_done_callback was given: Exceptions are logged there
            capture(lambda: _log.error("after a callback came %r", failure))

    def _finish(self, value: Any) -> None:
        self._pending = None
        try:
            self.set_result(value)
        finally:
            self._changes.tell()
            self._done_callbacks.clear()  # type: ignore[attr-defined]  # not in typeshed


def _name(function: object) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))

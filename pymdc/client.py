"""One bridge: its settings, its connections and its workers."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from pymdc._arguments import (
    Callback,
    Seconds,
    Text,
    check_callback,
    check_close_timeout,
    check_count,
    check_path,
    check_seconds,
    check_switch,
    check_timeouts,
    text,
)
from pymdc._calls.background import BackgroundTask
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import Job
from pymdc._calls.pool import WorkerPool
from pymdc._calls.raising import Failure
from pymdc._http.auth import Auth
from pymdc._http.request import Request
from pymdc._http.retry import send
from pymdc._http.transport import Transport
from pymdc.exceptions import Closed, NoEndpoint, error_of

WORKERS = 32
TIMEOUT = (10.0, 60.0)
TOTAL = 120.0
STALL = 60.0
CHANNELS = 4

# Up to this number of idle connections is kept, or up to *workers* if that is larger: any number
# of threads may make calls.
_IDLE_CONNECTIONS = 64

_INTERRUPT_TIMEOUT = 2.0  # seconds for the callbacks of calls when Ctrl-C ends a ``with`` block

# A dict or list from the bridge's JSON, '' or text if the bridge sent no JSON, or an exception.
Answer = Any


class Client:
    """One bridge and the connections to it, for any number of threads.

    *endpoint* is ``http(s)://host[:port]``; by default, the value of the variable PYMDC_ENDPOINT.
    If there is none, `NoEndpoint` is raised, which is a ValueError.
    At most *workers* calls with a callback run at once.
    *timeout* is a pair of seconds, to connect and to wait for bytes, or one number for both.
    *total* is the limit in seconds for a call that is no transfer, with all its attempts.
    *stall* is the limit in seconds for a transfer, from one block to the next.
    A download fetches at most *channels* shards at once.
    *ca_certs* is a file of additional certificates to trust.
    If *raises*, a blocking call raises an exception instead of returning it, and raises
    `BridgeError` for a refusal; a callback gets its value as before. The attribute ``raises`` may
    be assigned.
    """

    def __init__(
        self,
        endpoint: Text | None = None,
        *,
        workers: int = WORKERS,
        timeout: Seconds = TIMEOUT,
        total: float = TOTAL,
        stall: float = STALL,
        channels: int = CHANNELS,
        ca_certs: str | None = None,
        raises: bool = False,
    ) -> None:
        if endpoint is None:
            endpoint = os.environ.get("PYMDC_ENDPOINT") or None
        if endpoint is None:
            raise NoEndpoint
        self._total, self._stall = check_seconds(total, "total"), check_seconds(stall, "stall")
        self._size = check_count(workers, "workers")
        self.raises = check_switch(raises, "raises")
        self.channels = check_count(channels, "channels")
        self._transport = Transport(
            text(endpoint, "the endpoint"),
            max(workers, _IDLE_CONNECTIONS),
            check_timeouts(timeout),
            check_path(ca_certs, "ca_certs"),
        )
        self._closed = False
        self._pool = WorkerPool(self._size)
        _clients.add(self)

    @property
    def endpoint(self) -> str:
        """The address of the bridge, without a final slash."""
        return self._transport.endpoint

    @property
    def outstanding(self) -> bool:
        """Whether a call is under way, or a callback has not returned."""
        return self._pool.outstanding

    @property
    def transport(self) -> Transport:
        """The connections to the bridge, with the timeouts and certificates."""
        return self._transport

    def set_timeout(self, seconds: float) -> None:
        """Set both timeouts to *seconds*; raise ``total`` and ``stall`` to it if they are lower."""
        seconds = check_seconds(seconds, "timeout")
        self._transport.set_timeout((seconds, seconds))
        self._total, self._stall = max(self._total, seconds), max(self._stall, seconds)

    def call(self, request: Request, auth: Auth, callback: Callback | None) -> Any:
        """Make one request: return its value, or a `Call` that hands it to *callback*."""
        return self.run(partial(send, self._transport, request, auth), callback)

    def run(
        self,
        work: Callable[[CancelScope], Any],
        callback: Callback | None,
        *,
        transfer: bool = False,
    ) -> Any:
        """Do *work* on a worker: return its value, or a `Call` that hands it to *callback*.

        Every method of the API calls `run`. If the client raises, a blocking call returns a
        `Failure` in place of an error, which the method's decorator raises.
        """
        scope = CancelScope(self._stall, renews=True) if transfer else CancelScope(self._total)
        if sys.is_finalizing():  # no module can be imported now, and no other thread runs
            scope.fail(Closed(f"nothing is sent to {self.endpoint} any more: Python is ending"))
        elif self._closed:
            scope.fail(Closed(f"the client of {self.endpoint} is closed"))
        callback = check_callback(callback)
        if callback is None:
            value = self._pool.run(work, scope)
            error = error_of(value) if self.raises else None
            return value if error is None else Failure(error)
        return self._pool.submit(work, callback, scope)

    def send(self, request: Request, auth: Auth, scope: CancelScope) -> Answer:
        """Sign and send *request* on this thread, with retries; return the answer or raise."""
        return send(self._transport, request, auth, scope)

    def background_task(self) -> BackgroundTask:
        """Return a task that does one thing at a time on another worker."""
        return BackgroundTask(self._pool.start)

    def spawn(self, job: Job, deliver: Callback) -> None:
        """Do *job* on another worker, and hand its value or exception to *deliver*.

        Where no thread can be started, *job* is done on this thread before `spawn` returns.
        """
        self._pool.start(job, deliver)

    def close(self, timeout: float | None = None, cancel: bool = False) -> None:
        """Wait until all calls are done and their callbacks have returned; close the connections.

        After *timeout* seconds, or at once with *cancel*, the remaining calls are cancelled; then
        `close` waits for their callbacks, again at most *timeout* seconds.
        In a callback of this client, `close` returns at once; the client is closed after the
        callback has returned.
        The value of a later call is `Closed`.
        """
        timeout = check_close_timeout(timeout)
        if sys.is_finalizing():  # no other thread runs any more
            self._closed = True
            return
        if self._pool.current:
            self._closed = True
            close = partial(self.close, timeout, cancel)
            # While Python ends no thread can be started, and Python closes everything itself.
            with suppress(RuntimeError):
                threading.Thread(target=close, name="pymdc-close").start()
            return
        if cancel or not self._pool.close(timeout):
            self._closed = True
            self._pool.cancel("the client was closed")
            self._pool.close(timeout)
        self._closed = True
        self._transport.close()

    def renew(self) -> None:
        """In a forked child, forget the calls and connections, which are the parent's."""
        self._pool.abandon()
        self._pool = WorkerPool(self._size)
        self._transport.renew()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self.close(_INTERRUPT_TIMEOUT if interrupted else None, cancel=interrupted)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self} cannot be pickled, since its connections and threads are this process's:"
            " make a client in the other process, or set PYMDC_ENDPOINT for both"
        )

    def __repr__(self) -> str:
        return f"<Client {self.endpoint}>"


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _in_child() -> None:
    """Give every client of a forked child its own connections, workers and locks."""
    for client in tuple(_clients):
        client.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)

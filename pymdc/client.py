"""One bridge: its settings, its connections, and the journey of a call."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

from pymdc._arguments import Callback, Text, check_callback, text
from pymdc._calls.background import Aside
from pymdc._calls.cancel_scope import Scope
from pymdc._calls.capture import without_frames
from pymdc._calls.pool import WorkerPool
from pymdc._crypto.file_hash import Block
from pymdc._http.auth import Auth
from pymdc._http.request import Request
from pymdc._http.retry import backoff_delays, send
from pymdc._http.transport import Transport
from pymdc._transfers.channel import Channel
from pymdc._transfers.download import Pointer
from pymdc._transfers.pull import side_by_side
from pymdc.exceptions import CertificateError, Closed, ConnectError, NoEndpoint

WORKERS = 32
TIMEOUT = (10.0, 60.0)
TOTAL = 120.0
STALL = 60.0
CHANNELS = 4

# Blocking calls come from any number of threads; this many connections are kept for all.
_CONNECTIONS = 64

_LONGEST = 1e9  # seconds; threading's own bound is not far above it
_MOST = f"at most {_LONGEST:g}"
_LAST_SECONDS = 2.0  # for callbacks to hear that they are cancelled, when Ctrl-C ends a block

# The bridge's JSON as a dict or list, '' or text where it sent none, or an exception.
Answer = Any

Seconds = float | tuple[float, float]

_log = logging.getLogger("pymdc")


class Client:
    """One bridge and the connections to it, for any number of threads.

    *endpoint* is ``http(s)://host[:port]``; without it, that of the variable PYMDC_ENDPOINT.
    Without either `NoEndpoint` is raised, which is a ValueError.
    *workers* bounds how many calls with a callback run at once.
    *timeout* is a pair of seconds, for connecting and for each wait for bytes, or one for both.
    *total* bounds a call that is no transfer, all its sendings taken together, and *stall* the
    time in a transfer from one block to the next, both in seconds.
    *channels* bounds how many shards of a download are pulled side by side.
    *ca_certs* is a file of further certificates to trust.
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
    ) -> None:
        if endpoint is None:
            endpoint = os.environ.get("PYMDC_ENDPOINT") or None
        if endpoint is None:
            raise NoEndpoint
        self._total, self._stall = _limit(total, "total"), _limit(stall, "stall")
        self._size, self._channels = _count(workers, "workers"), _count(channels, "channels")
        self._transport = Transport(
            text(endpoint, "the endpoint"),
            max(workers, _CONNECTIONS),
            _pair(timeout),
            _file(ca_certs, "ca_certs"),
        )
        self._closed = False
        self._begin()
        _clients.add(self)

    @property
    def endpoint(self) -> str:
        """The address of the bridge, without a final slash."""
        return self._transport.endpoint

    @property
    def outstanding(self) -> bool:
        """Whether calls are on their way, or callbacks have still to run or to return."""
        return self._pool.outstanding

    def set_timeout(self, seconds: float) -> None:
        """Let connecting, and each wait for bytes, take *seconds*, and a call no less in all."""
        seconds = _limit(seconds, "timeout")
        self._transport.set_timeout((seconds, seconds))
        self._total, self._stall = max(self._total, seconds), max(self._stall, seconds)

    def call(self, request: Request, auth: Auth, callback: Callback | None) -> Any:
        """Make one request: wait for its value, or hand the value to *callback*."""
        return self.run(partial(send, self._transport, request, auth), callback)

    def run(
        self, work: Callable[[Scope], Any], callback: Callback | None, *, transfer: bool = False
    ) -> Any:
        """Do *work* on a worker: wait for its outcome, or hand that to *callback*."""
        scope = Scope(self._stall, renews=True) if transfer else Scope(self._total)
        if sys.is_finalizing():  # from here on modules can't be imported, nor threads run
            scope.end(Closed(f"nothing is sent to {self.endpoint} any more: Python is ending"))
        elif self._closed:
            scope.end(Closed(f"the client of {self.endpoint} is closed"))
        callback = check_callback(callback)
        if callback is None:
            return self._pool.run(work, scope)
        return self._pool.submit(work, callback, scope)

    def send(self, request: Request, auth: Auth, scope: Scope) -> Answer:
        """Sign and send *request* on this thread, again where that is right; return or raise."""
        return send(self._transport, request, auth, scope)

    def pull(
        self, pointers: Iterable[tuple[int, Pointer]], scope: Scope, in_order: bool
    ) -> Generator[tuple[int, Block], None, None]:
        """Give the blocks of the shards behind *pointers*, as `side_by_side` does, or raise."""
        connect = partial(self._channel, scope)
        return side_by_side(pointers, connect, 1 if in_order else self._channels)

    def aside(self) -> Aside:
        """Return what does one thing at a time on another worker, for a call that goes on."""
        return Aside(self._pool.start)

    def _channel(self, scope: Scope, pointer: Pointer) -> Channel:
        """Connect to a channel, again where nothing was sent yet."""
        message = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
        transport = self._transport
        for wait in backoff_delays():
            try:
                return Channel(
                    pointer["channel"], message, transport.timeout, lambda: transport.tls, scope
                )
            except ConnectError as error:
                scope.check()
                if wait is None or isinstance(error, CertificateError):
                    raise
                _log.warning("%s; trying it again in %.3g s", without_frames(error), wait)
            scope.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def close(self, timeout: float | None = None, cancel: bool = False) -> None:
        """Wait until every call is done and its callback has run, then close the connections.

        After *timeout* seconds, or with *cancel* at once, the calls that are left are cancelled,
        and their callbacks waited for, as long again at the most.
        A callback of this client does not wait: from there it closes once that has returned.
        A call made afterwards has `Closed` as its value.
        """
        timeout = _patience(timeout)
        if sys.is_finalizing():  # other threads stand still for ever
            self._closed = True
            return
        if self._pool.current:
            self._closed = True
            close = partial(self.close, timeout, cancel)
            with suppress(RuntimeError):  # none can be had while Python ends, which closes all
                threading.Thread(target=close, name="pymdc-close").start()
            return
        if cancel or not self._pool.close(timeout):
            self._closed = True
            self._pool.cancel_for_good("the client was closed")
            self._pool.close(timeout)
        self._closed = True
        self._transport.close()

    def _begin(self) -> None:
        self._pool = WorkerPool(self._size)

    def renew(self) -> None:
        """Leave the parent its calls and connections: what a fork does to the child's client."""
        self._pool.abandon()
        self._begin()
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
        self.close(_LAST_SECONDS if interrupted else None, cancel=interrupted)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self} cannot be pickled, since its connections and threads are this process's:"
            " make a client in the other one, or name the bridge by PYMDC_ENDPOINT for both"
        )

    def __repr__(self) -> str:
        return f"<Client {self.endpoint}>"


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _in_child() -> None:
    """Give every client of a forked child connections, workers and locks of its own."""
    for client in tuple(_clients):
        client.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _count(number: Any, what: str) -> int:
    if type(number) is not int or number < 1:
        raise ValueError(f"{what} is {number!r}; expected a whole number above zero")
    return number


def _file(path: Any, what: str) -> Any:
    if path is not None and not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"{what} is {type(path).__name__}; expected the path of a file")
    return path


def _limit(seconds: Any, what: str) -> float:
    if not isinstance(seconds, int | float) or not 0 < seconds <= _LONGEST:
        raise ValueError(f"{what} is {seconds!r}; expected seconds, above zero and {_MOST}")
    return float(seconds)


def _patience(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if not isinstance(timeout, int | float):
        raise TypeError(f"the timeout of close() is {timeout!r}; expected seconds, or None")
    seconds = float(min(timeout, _LONGEST))
    if math.isnan(seconds):
        raise ValueError("the timeout of close() is nan; expected seconds, or None")
    return seconds


def _pair(timeout: Any) -> tuple[float, float]:
    pair = timeout if isinstance(timeout, tuple | list) else (timeout, timeout)
    if len(pair) == 1:
        pair = (pair[0], pair[0])
    numbers = all(isinstance(part, int | float) and 0 < part <= _LONGEST for part in pair)
    if len(pair) != 2 or not numbers:
        raise ValueError(
            f"timeout is {timeout!r}; expected seconds, or (connect, read) seconds, {_MOST}"
        )
    return float(pair[0]), float(pair[1])

"""One bridge: its settings, its connections, and the journey of a call."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from pymdc import _channel
from pymdc._auth import Auth
from pymdc._request import Request
from pymdc._transport import Transport
from pymdc._workers import Callback, Work, Workers

ENDPOINT = "https://api.metadisk.org"
WORKERS = 32
TIMEOUT = (10.0, 60.0)

# Blocking calls come from any number of threads; this many connections are kept for all.
_CONNECTIONS = 64

# The bridge's JSON as a dict or list, '' or text where it sent none, or an exception.
Answer = Any

Seconds = float | tuple[float, float]


class Client:
    """One bridge and the connections to it, for any number of threads.

    *endpoint* is ``http(s)://host[:port]``; without it, that of the variable PYMDC_ENDPOINT, or
    https://api.metadisk.org.
    *workers* bounds how many calls with a callback run at once.
    *timeout* is a pair of seconds, for connecting and for each wait for bytes, or one for both.
    """

    def __init__(
        self, endpoint: str | None = None, *, workers: int = WORKERS, timeout: Seconds = TIMEOUT
    ) -> None:
        if endpoint is None:
            endpoint = os.environ.get("PYMDC_ENDPOINT") or ENDPOINT
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise ValueError(f"workers is {workers!r}; expected a whole number above zero")
        self._transport = Transport(endpoint, max(workers, _CONNECTIONS), _pair(timeout))
        self._workers = Workers(workers)

    @property
    def endpoint(self) -> str:
        """The address of the bridge, without a final slash."""
        return self._transport.endpoint

    def call(self, request: Request, auth: Auth, callback: Callback | None) -> Any:
        """Make one request: wait for its value, or hand the value to *callback*."""
        return self.run(lambda: self.send(request, auth), callback)

    def run(self, work: Work, callback: Callback | None) -> Any:
        """Do *work* on a worker: wait for its outcome, or hand that to *callback*."""
        if callback is None:
            return self._workers.run(work)
        if not callable(callback):
            raise TypeError(f"the callback is {type(callback).__name__}; expected a function")
        return self._workers.submit(work, callback)

    def send(self, request: Request, auth: Auth) -> Answer:
        """Sign and send *request* on this thread and return the answer, or raise."""
        return self._transport.send(auth.sign(request)).decode()

    def pull(self, pointer: Mapping[str, str]) -> Iterator[bytes]:
        """Give the blocks of the shard behind *pointer*, from its channel, or raise."""
        message = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
        transport = self._transport
        return _channel.pull(pointer["channel"], message, transport.timeout, lambda: transport.tls)

    def close(self) -> None:
        """Wait until every callback has run, then close the connections.

        In a callback it does not wait. A call made afterwards has `Closed` as its value.
        """
        self._workers.close()
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client {self.endpoint}>"


_default: Client | None = None
_making = threading.Lock()


def default() -> Client:
    """Return the client that serves where none is given, made from the environment on first use.

    PYMDC_ENDPOINT, PYMDC_WORKERS, and PYMDC_TIMEOUT: seconds, or two numbers with a comma.
    """
    global _default
    with _making:
        if _default is None:
            _default = Client(
                workers=_read("PYMDC_WORKERS", int, WORKERS),
                timeout=_read("PYMDC_TIMEOUT", _seconds, TIMEOUT),
            )
        return _default


def _read(variable: str, parse: Callable[[str], Any], fallback: Any) -> Any:
    value = os.environ.get(variable)
    try:
        return parse(value) if value else fallback
    except ValueError:
        raise ValueError(f"the variable {variable} is {value!r}; expected a number") from None


def _seconds(value: str) -> tuple[float, ...]:
    return tuple(float(part) for part in value.split(","))


def _pair(timeout: Any) -> tuple[float, float]:
    pair = timeout if isinstance(timeout, tuple | list) else (timeout, timeout)
    if len(pair) == 1:
        pair = (pair[0], pair[0])
    numbers = all(isinstance(part, int | float) and 0 < part < float("inf") for part in pair)
    if len(pair) != 2 or not numbers:
        raise ValueError(f"timeout is {timeout!r}; expected seconds, or (connect, read) seconds")
    return float(pair[0]), float(pair[1])

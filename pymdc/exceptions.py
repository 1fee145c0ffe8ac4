"""The exceptions that a call may return instead of an answer.

::

    PymdcError
    +-- NetworkError        (urllib.error.URLError, so OSError)
    |   +-- ConnectError        no connection: refused, no such host, proxy; nothing was sent
    |   |   +-- CertificateError    the certificate of the other side is not trusted
    |   |   +-- NoEndpoint          (ValueError) no bridge is named
    |   +-- Timeout             (TimeoutError) a time limit was exceeded
    |   |   +-- ConnectTimeout      (ConnectError) no connection in time; nothing was sent
    |   +-- ConnectionLost      the connection ended before the answer was complete
    |   +-- GarbledAnswer       the answer is not HTTP, or contradicts its headers
    +-- HTTPError           (urllib.error.HTTPError, so URLError and OSError)
    |                           a redirect, or a refusal that is not the bridge's JSON
    +-- ChannelError        (OSError) the channel of a shard sent an error instead of the shard
    +-- IntegrityError      (OSError) the data has a wrong hash, size or form
    +-- BridgeError         what `unwrap` raises for the bridge's {"error": ...}
    +-- Cancelled           the call was cancelled
    +-- Closed              the client was closed, or Python was ending, before the call

A call does not raise these exceptions: they are its value, with or without a callback.
If you prefer ``try``, `unwrap` raises them, and the blocking calls of a ``Client(raises=True)`` do.
"""

from __future__ import annotations

import io
import urllib.error
from collections.abc import Mapping
from email.message import Message
from typing import Any

__all__ = [
    "BridgeError",
    "Cancelled",
    "CertificateError",
    "ChannelError",
    "Closed",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionLost",
    "GarbledAnswer",
    "HTTPError",
    "IntegrityError",
    "NetworkError",
    "NoEndpoint",
    "PymdcError",
    "Timeout",
    "unwrap",
]

_NO_ENDPOINT = (
    "no bridge is named, and the Metadisk service of 2016 is gone; set the environment variable"
    " PYMDC_ENDPOINT to the address of a bridge, such as http://127.0.0.1:6382, or give"
    " pymdc.Client(endpoint)"
)


class PymdcError(Exception):
    """The base class of the exceptions of pymdc."""


class NetworkError(PymdcError, urllib.error.URLError):
    """No usable answer was received."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.reason)


class ConnectError(NetworkError):
    """No connection could be made, so nothing was sent."""


class CertificateError(ConnectError):
    """The certificate is not trusted: it is unknown, expired, or for another host."""


class NoEndpoint(ConnectError, ValueError):
    """No bridge is named, and the service of 2016 is gone, so nothing was sent."""

    def __init__(self, message: str = _NO_ENDPOINT) -> None:
        super().__init__(message)


class Timeout(NetworkError, TimeoutError):
    """The time limit for connecting, for the next bytes, or for the whole call was exceeded."""


class ConnectTimeout(ConnectError, Timeout):
    """The time limit for connecting was exceeded, so nothing was sent."""


class ConnectionLost(NetworkError):
    """The connection ended before the answer was complete."""


class GarbledAnswer(NetworkError):
    """The answer does not follow the protocol."""


class HTTPError(PymdcError, urllib.error.HTTPError):
    """A redirect, or a status of 400 and above whose body is not a JSON object.

    Use it like any ``urllib.error.HTTPError``: ``code``, ``headers``, ``read()``.
    """

    def __init__(
        self, url: str, code: int, msg: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        fields = Message()
        for name, value in headers.items():
            fields[name] = value
        self._body = body
        urllib.error.HTTPError.__init__(self, url, code, msg, fields, io.BytesIO())
        super().close()  # since Python 3.14, an HTTPError that is not closed warns
        self.fp = self.file = io.BytesIO(body)

    def close(self) -> None:
        """Close the body; this is optional, because the body holds no connection."""
        self.fp.close()

    def __str__(self) -> str:
        return f"{self.url} answered {self.code}: {self.msg}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.code, self.msg, dict(self.headers), self._body)


class ChannelError(PymdcError, OSError):
    """A channel sent an error instead of the shard; it also sent *code* and *message*."""

    def __init__(self, channel: str, code: int, message: str) -> None:
        super().__init__(channel, code, message)
        self.channel, self.code, self.message = channel, code, message

    def __str__(self) -> str:
        return f"the channel {self.channel} answered {self.code}: {self.message}"


class IntegrityError(PymdcError, OSError):
    """The data is not what was expected: it has a wrong hash, size or form."""


class Cancelled(PymdcError):
    """The call was cancelled before it had finished."""


class Closed(PymdcError):
    """The client was closed, or Python was ending, before the call was made."""


class BridgeError(PymdcError):
    """The bridge refused the request; *message* is its text, and *answer* the whole answer."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(answer)
        self.answer = answer
        self.message = str(answer["error"])

    def __str__(self) -> str:
        return self.message


def unwrap(result: Any) -> Any:
    """Return the value of a call, or raise it: an exception, or `BridgeError` for a refusal."""
    error = error_of(result)
    if error is None:
        return result
    try:
        raise error
    finally:
        del error, result  # the traceback refers to this frame: they would form a cycle


def error_of(result: Any) -> BaseException | None:
    """Return what `unwrap` raises for *result*, or None if it is an answer."""
    if isinstance(result, BaseException):
        return result
    return BridgeError(result) if refused(result) else None


def refused(answer: Any) -> bool:
    """Say whether *answer* is the bridge's ``{"error": ...}``."""
    return isinstance(answer, Mapping) and "error" in answer

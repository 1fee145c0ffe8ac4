"""What a call can come back with instead of an answer.

::

    PymdcError
    +-- NetworkError        (urllib.error.URLError, so OSError)
    |   +-- ConnectError        no connection: refused, no such host, proxy; nothing was sent
    |   |   +-- CertificateError    the other side's certificate is not to be trusted
    |   |   +-- NoEndpoint          (ValueError) no bridge is named
    |   +-- Timeout             (TimeoutError) nothing came in time
    |       +-- ConnectTimeout      (ConnectError) not even a connection
    |   +-- ConnectionLost      the connection ended before the answer did
    |   +-- GarbledAnswer       what came back is not HTTP, or not what its headers say
    +-- HTTPError           (urllib.error.HTTPError, so URLError and OSError)
    |                           a redirect, or a refusal that is not the bridge's JSON
    +-- ChannelError        (OSError) a shard's channel gave an error instead of the shard
    +-- IntegrityError      (OSError) bytes whose hash or number is not the one promised
    +-- BridgeError         what `unwrap` raises for the bridge's {"error": ...}
    +-- Cancelled           the call was taken back
    +-- Closed              the client was closed, or Python was ending, before the call

A call never raises these: they are its value, with a callback and without.
For those who prefer ``try``, `unwrap` raises them.
"""

from __future__ import annotations

import io
import urllib.error
from collections.abc import Mapping
from email.message import Message
from typing import Any

_NO_ENDPOINT = (
    "no bridge is named, and the Metadisk service of 2016 is gone; set the environment variable"
    " PYMDC_ENDPOINT to the address of a bridge, such as http://127.0.0.1:6382, or give"
    " pymdc.Client(endpoint)"
)


class PymdcError(Exception):
    """Every exception that is made here."""


class NetworkError(PymdcError, urllib.error.URLError):
    """No usable answer came from the other side."""

    def __init__(self, message: str) -> None:
        super().__init__(message)

    def __str__(self) -> str:
        return str(self.reason)


class ConnectError(NetworkError):
    """No connection could be made, so nothing was sent."""


class CertificateError(ConnectError):
    """The certificate is unknown, expired, or another host's."""


class NoEndpoint(ConnectError, ValueError):
    """No bridge is named, and the service that 0.0.1 was made for is gone: nothing was sent."""

    def __init__(self, message: str = _NO_ENDPOINT) -> None:
        super().__init__(message)


class Timeout(NetworkError, TimeoutError):
    """The time for connecting, for the next byte, or for the whole call was over."""


class ConnectTimeout(ConnectError, Timeout):
    """The time for connecting was over, so nothing was sent."""


class ConnectionLost(NetworkError):
    """The connection ended before the whole answer was there."""


class GarbledAnswer(NetworkError):
    """What came back cannot be read as the protocol says."""


class HTTPError(PymdcError, urllib.error.HTTPError):
    """A redirect, or a status of 400 and above whose body is not a JSON object.

    It is read like any `urllib.error.HTTPError`: ``code``, ``headers``, ``read()``.
    """

    def __init__(
        self, url: str, code: int, msg: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        fields = Message()
        for name, value in headers.items():
            fields[name] = value
        self._body = body
        urllib.error.HTTPError.__init__(self, url, code, msg, fields, io.BytesIO())
        super().close()  # from Python 3.14 it warns when it is dropped unclosed
        self.fp = self.file = io.BytesIO(body)

    def close(self) -> None:
        """Close the body, which needs no closing: it is no connection's."""
        self.fp.close()

    def __str__(self) -> str:
        return f"{self.url} answered {self.code}: {self.msg}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.code, self.msg, dict(self.headers), self._body)


class ChannelError(PymdcError, OSError):
    """A channel answered with an error; *code* and *message* are the other side's."""

    def __init__(self, channel: str, code: int, message: str) -> None:
        super().__init__(channel, code, message)
        self.channel, self.code, self.message = channel, code, message

    def __str__(self) -> str:
        return f"the channel {self.channel} answered {self.code}: {self.message}"


class IntegrityError(PymdcError, OSError):
    """Bytes were not those that were promised: a wrong hash, or too few of them."""


class Cancelled(PymdcError):
    """The call was taken back before it was done."""


class Closed(PymdcError):
    """The client had been closed, or Python was ending, before the call."""


class BridgeError(PymdcError):
    """The bridge refused; *message* is its own, and *answer* all that it said."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(answer)
        self.answer = answer
        self.message = str(answer["error"])

    def __str__(self) -> str:
        return self.message


def unwrap(result: Any) -> Any:
    """Return the value of a call, or raise it: an exception, or `BridgeError` for a refusal."""
    if isinstance(result, BaseException):
        raise result
    if refused(result):
        raise BridgeError(result)
    return result


def refused(answer: Any) -> bool:
    """Say whether *answer* is the bridge's ``{"error": ...}``."""
    return isinstance(answer, Mapping) and "error" in answer

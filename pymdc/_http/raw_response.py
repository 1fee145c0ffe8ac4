"""An answer, which may begin while its request is still being sent."""

from __future__ import annotations

import http.client
import io
import re
import socket
from functools import partial
from http import HTTPStatus
from typing import IO, Any

from urllib3 import HTTPHeaderDict, exceptions

_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_LONGEST_LINE = 2**16  # bytes of a header
_MOST_LINES = 100  # of headers
_LONGEST = 2**14  # bytes of a first line, and of an interim answer, that are waited for


class Switched(http.client.HTTPException):
    """The other side speaks another protocol from here on, for which nobody asked."""


class EarlyBytes:
    """The bytes of an answer that are received while its request is still being sent.

    ``began`` is true once the first line of the final answer is known, interim answers (1xx) being
    dropped; ``accepts`` is true if its status is 2xx, so that the rest of the request is sent.
    """

    _INTERIM_LINE = rb"HTTP/1\.\d +1(?!01)\d\d\b[^\n]*\n"
    _BLANK = rb"\r?\n"
    _INTERIM = re.compile(_INTERIM_LINE + rb"(?:(?!%b)[^\n]*\n)*" % _BLANK + _BLANK)
    _UNKNOWN = re.compile(_INTERIM_LINE + rb"|[^\n]*\Z")
    _SUCCESS = re.compile(rb"HTTP/1\.\d +2\d\d\b")

    def __init__(self) -> None:
        self.data = b""
        self.began = self.accepts = False

    def take(self, data: bytes) -> None:
        """Add *data*, the next bytes that were received."""
        self.data += data
        while interim := self._INTERIM.match(self.data):
            self.data = self.data[interim.end() :]
        self.began = len(self.data) > _LONGEST or not self._UNKNOWN.match(self.data)
        self.accepts = self.began and bool(self._SUCCESS.match(self.data))


class RawResponse(http.client.HTTPResponse):
    """An answer whose first bytes, *early*, are already received.

    ``framed`` says whether its headers tell where its body ends. Unless the request was sent
    *whole*, the connection is closed after the answer.
    """

    fields: HTTPHeaderDict
    framed: bool

    def __init__(
        self, sock: socket.socket, method: str, early: bytes = b"", whole: bool = True
    ) -> None:
        super().__init__(sock, method=method)
        self._bodiless, self._whole = method == "HEAD", whole
        if early:
            self.fp = io.BufferedReader(_Resumed(early, self.fp.detach()))

    def begin(self) -> None:
        """Read the head, as http.client does, but without the email package, which is slow.

        Interim answers are passed over: taken for the answer itself, one would leave that to the
        connection's next request.
        """
        status = 0
        while status < HTTPStatus.OK:
            version, status, self.reason = self._read_status()  # type: ignore[attr-defined]
            if status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise Switched
            fields = _read_fields(self.fp)
        if not version.startswith("HTTP/1."):
            raise http.client.UnknownProtocol(version)
        self.code = self.status = status
        self.version = 10 if version == "HTTP/1.0" else 11
        self.fields = self.headers = self.msg = fields  # type: ignore[assignment]
        self.chunked = self.fields.get("Transfer-Encoding", "").lower() == "chunked"
        self.chunk_left = None
        length = None if self.chunked else _length(self.fields)
        self.framed = self.chunked or length is not None
        self.length = 0 if self._bodiless or status in _BODILESS else length
        self.will_close = self._check_close() or not (self.chunked or self.length is not None)

    def _check_close(self) -> bool:
        return not self._whole or super()._check_close()  # type: ignore[misc]  # not in typeshed


def _read_fields(stream: IO[bytes]) -> HTTPHeaderDict:
    """Return the headers; a line that is none is passed over."""
    pairs: list[tuple[str, str]] = []
    for count, line in enumerate(iter(partial(stream.readline, _LONGEST_LINE + 1), b"")):
        if line in (b"\r\n", b"\n"):
            break
        if len(line) > _LONGEST_LINE or count == _MOST_LINES:
            raise http.client.HTTPException("the head is too long")
        text = line.decode("latin-1")
        name, colon, value = text.partition(":")
        if text.startswith((" ", "\t")):
            if pairs:  # it goes on with the line before
                pairs[-1] = pairs[-1][0], f"{pairs[-1][1]} {text.strip()}"
        elif colon:
            pairs.append((name, value.strip()))
    return HTTPHeaderDict(pairs)


def _length(fields: HTTPHeaderDict) -> int | None:
    """Return the Content-Length; equal ones count as one (RFC 9110, 8.6)."""
    lengths = [length.strip() for length in fields.get("Content-Length", "").split(",")]
    numbers = {int(length) if length.isdecimal() else None for length in lengths}
    if len(lengths) > 1 and (len(numbers) > 1 or None in numbers):
        raise exceptions.InvalidHeader("several different Content-Lengths")
    return numbers.pop()


class _Resumed(io.RawIOBase):
    """A stream of *data*, followed by *rest*."""

    def __init__(self, data: bytes, rest: io.RawIOBase) -> None:
        self._data, self._rest = data, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if not self._data:
            return self._rest.readinto(buffer)
        count = min(len(buffer), len(self._data))
        buffer[:count], self._data = self._data[:count], self._data[count:]
        return count

    def close(self) -> None:
        self._rest.close()
        super().close()

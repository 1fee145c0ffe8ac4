"""A response as it is received, possibly while its request is still being sent."""

from __future__ import annotations

import http.client
import io
import itertools
import re
import socket
from http import HTTPStatus
from typing import IO, Any

from urllib3 import HTTPHeaderDict, exceptions

_WITHOUT_BODY = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_MAX_LINE = 2**16  # bytes of a header line
_MAX_LINES = 100  # header lines
_MAX_UNPARSED = 2**14  # bytes; a longer early response counts as started


class SwitchedProtocols(http.client.HTTPException):
    """The server answered 101 Switching Protocols, which no request of pymdc asks for."""


class IncompleteHead(http.client.HTTPException):
    """The connection ended in the middle of the headers."""


class EarlyResponse:
    """The bytes of a response that are received while its request is still being sent.

    ``started`` is true once the status line of the final response is known; interim responses (1xx)
    are dropped. ``success`` is true if that status is 2xx; the rest of the request is then sent.
    """

    _INTERIM_LINE = rb"HTTP/1\.\d +1(?!01)\d\d\b[^\n]*\n"
    _BLANK = rb"\r?\n"
    _INTERIM = re.compile(_INTERIM_LINE + rb"(?:(?!%b)[^\n]*\n)*" % _BLANK + _BLANK)
    _UNKNOWN = re.compile(_INTERIM_LINE + rb"|[^\n]*\Z")
    _SUCCESS = re.compile(rb"HTTP/1\.\d +2\d\d\b")

    def __init__(self) -> None:
        self.data = b""
        self.started = self.success = False

    def add(self, data: bytes) -> None:
        """Add the next bytes that were received."""
        self.data += data
        while interim := self._INTERIM.match(self.data):
            self.data = self.data[interim.end() :]
        self.started = len(self.data) > _MAX_UNPARSED or not self._UNKNOWN.match(self.data)
        self.success = self.started and bool(self._SUCCESS.match(self.data))


class RawResponse(http.client.HTTPResponse):
    """A response of which the bytes *received* have already been read from the socket.

    ``framed`` says whether the headers define where the body ends. The connection is closed after
    the response unless the request was *sent_whole*.
    """

    fields: HTTPHeaderDict
    framed: bool

    def __init__(
        self, sock: socket.socket, method: str, received: bytes = b"", sent_whole: bool = True
    ) -> None:
        super().__init__(sock, method=method)
        self._head_only, self._sent_whole = method == "HEAD", sent_whole
        if received:
            self.fp = io.BufferedReader(_Chained(received, self.fp.detach()))

    def begin(self) -> None:
        """Read the head, as http.client does, but without the email package, which is slow.

        Interim responses are skipped. If one were taken for the final response, the next request on
        the connection would get the final response of this request.
        """
        status = 0
        while status < HTTPStatus.OK:
            version, status, self.reason = self._read_status()  # type: ignore[attr-defined]
            if status == HTTPStatus.SWITCHING_PROTOCOLS:
                raise SwitchedProtocols
            fields = _read_fields(self.fp)
        if not version.startswith("HTTP/1."):
            raise http.client.UnknownProtocol(version)
        self.code = self.status = status
        self.version = 10 if version == "HTTP/1.0" else 11
        self.fields = self.headers = self.msg = fields  # type: ignore[assignment]
        chunked = _is_chunked(fields)
        length = None if chunked else _length(fields)
        self.framed = chunked or length is not None
        without_body = self._head_only or status in _WITHOUT_BODY
        self.chunked = chunked and not without_body
        self.chunk_left = None
        self.length = 0 if without_body else length
        self.will_close = self._check_close() or not (self.chunked or self.length is not None)

    def _check_close(self) -> bool:
        closes = super()._check_close()  # type: ignore[misc]  # not in typeshed
        return closes or not self._sent_whole


def _read_fields(stream: IO[bytes]) -> HTTPHeaderDict:
    """Return the headers; a line without a colon is skipped."""
    pairs: list[tuple[str, str]] = []
    for count in itertools.count():
        line = stream.readline(_MAX_LINE + 1)
        if line in (b"\r\n", b"\n"):
            return HTTPHeaderDict(pairs)
        if len(line) > _MAX_LINE or count == _MAX_LINES:
            raise http.client.HTTPException("the head is too long")
        if not line.endswith(b"\n"):
            raise IncompleteHead
        text = line.decode("latin-1")
        name, colon, value = text.partition(":")
        if text.startswith((" ", "\t")):
            if pairs:  # this line continues the previous one
                pairs[-1] = pairs[-1][0], f"{pairs[-1][1]} {text.strip()}"
        elif colon and name.endswith((" ", "\t")):
            raise exceptions.InvalidHeader("a header's name ends with a space")
        elif colon:
            pairs.append((name, value.strip()))
    raise AssertionError  # the loop has no other end


def _is_chunked(fields: HTTPHeaderDict) -> bool:
    encoding = fields.get("Transfer-Encoding", "").lower()
    if encoding not in ("", "chunked"):
        raise exceptions.InvalidHeader("the Transfer-Encoding is unknown")
    return encoding == "chunked"


def _length(fields: HTTPHeaderDict) -> int | None:
    """Return the Content-Length; several equal values count as one (RFC 9110, 8.6)."""
    lengths = [length.strip() for length in fields.get("Content-Length", "").split(",")]
    numbers = {int(length) if length.isdecimal() else None for length in lengths}
    if len(lengths) > 1 and (len(numbers) > 1 or None in numbers):
        raise exceptions.InvalidHeader("Content-Length has different values")
    return numbers.pop()


class _Chained(io.RawIOBase):
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

"""An answer, which may begin while its request is still being sent."""

from __future__ import annotations

import http.client
import io
import re
from http import HTTPStatus
from typing import Any

from urllib3 import exceptions

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

    Unless the request was sent *whole*, the connection is closed after the answer.
    """

    def __init__(self, *args: Any, early: bytes = b"", whole: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._whole = whole
        if early:
            self.fp = io.BufferedReader(_Resumed(early, self.fp.detach()))

    def begin(self) -> None:
        """Read the headers; equal Content-Lengths count as one (RFC 9110, 8.6)."""
        super().begin()
        lines = self.headers.get_all("Content-Length", [])
        lengths = [length.strip() for line in lines for length in line.split(",")]
        if len(lengths) < 2 or self.chunked:
            return
        if not all(map(str.isdecimal, lengths)) or len(set(map(int, lengths))) > 1:
            raise exceptions.InvalidHeader("several different Content-Lengths")
        del self.headers["Content-Length"]
        self.headers["Content-Length"] = lengths[0]
        if self.length is None:
            self.length = int(lengths[0])
            self.will_close = self._check_close()

    def _read_status(self) -> tuple[str, int, str]:
        """Pass over every interim answer as http.client does over 100 alone.

        Taken for the answer itself, one would leave that to the connection's next request.
        """
        version, status, reason = super()._read_status()  # type: ignore[misc]  # not in typeshed
        if status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise Switched
        return version, HTTPStatus.CONTINUE if status < HTTPStatus.OK else status, reason

    def _check_close(self) -> bool:
        return not self._whole or super()._check_close()  # type: ignore[misc]  # not in typeshed


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

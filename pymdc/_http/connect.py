"""Connecting a socket that a cancel scope can shut down, and CONNECT through a proxy."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.descriptors import when_there_is_one as retry_open

_MAX_TUNNEL_RESPONSE = 64 * 1024  # bytes

Address = tuple[Any, ...]  # an item of what `socket.getaddrinfo` returns


class Deadline:
    """A deadline *seconds* from now."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        """Return the seconds until the deadline; raise TimeoutError if it has passed."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("timed out")
        return seconds


def connect_tcp(
    addresses: Sequence[Address], deadline: Deadline, scope: CancelScope
) -> socket.socket:
    """Connect to one of *addresses*; each gets an equal share of the remaining time.

    The timeout of the socket is the time that remains after connecting.
    """
    failure = OSError("the host has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = retry_open(partial(socket.socket, family, kind, protocol), scope.sleep)
        try:
            scope.attach(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(deadline.remaining() / (len(addresses) - number))
            sock.connect(address)
            sock.settimeout(deadline.remaining())
            return sock
        except OSError as error:
            failure = error
            sock.close()
        scope.check()
    raise failure


class TunnelResponse(http.client.HTTPResponse):
    """A proxy's response to CONNECT, received before *deadline*.

    No exception quotes the response, because it may repeat the credentials that were sent.
    """

    def __init__(self, sock: socket.socket, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_LimitedStream(sock, deadline))

    def _read_status(self) -> tuple[str, int, str]:
        try:
            version, status, _ = super()._read_status()  # type: ignore[misc]  # not in typeshed
        except http.client.HTTPException:
            raise OSError("the proxy's answer is not HTTP") from None
        if not 200 <= status < 300:
            raise OSError(refusal(status))
        return version, HTTPStatus.OK, ""  # http.client accepts only 200


class _LimitedStream(io.RawIOBase):
    """The bytes that *sock* receives before *deadline*, up to the maximum of a response."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline, self._left = sock, deadline, _MAX_TUNNEL_RESPONSE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.remaining())
        count = self._sock.recv_into(buffer)
        self._left -= count
        if not count or self._left < 0:
            raise OSError("the proxy's answer was incomplete or too long")
        return count


def refusal(status: int) -> str:
    """Return a message that a proxy refused, without its own text, which may hold credentials."""
    return f"the proxy refused: {status} {http.client.responses.get(status, '')}".rstrip()

"""A socket that a scope can end, connected to a host, and a tunnel through a proxy over it."""

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
from pymdc._calls.descriptors import when_there_is_one

_LONGEST_ANSWER = 64 * 1024  # bytes, of a proxy that is asked for a tunnel

Address = tuple[Any, ...]  # as `socket.getaddrinfo` gives it


class Deadline:
    """A moment *seconds* from now."""

    def __init__(self, seconds: float) -> None:
        self._moment = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left; TimeoutError when there are none."""
        left = self._moment - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def connect_tcp(
    addresses: Sequence[Address], deadline: Deadline, scope: CancelScope
) -> socket.socket:
    """Connect to one of *addresses*; each gets an equal share of the time that is left.

    The socket's timeout is what is left of the time then.
    """
    failure = OSError("the host has no address")
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        make = partial(socket.socket, family, kind, protocol)
        sock = when_there_is_one(make, scope.sleep)
        try:
            scope.attach(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(deadline.left() / (len(addresses) - place))
            sock.connect(address)
            sock.settimeout(deadline.left())
            return sock
        except OSError as error:
            failure = error
            sock.close()
        scope.check()
    raise failure


class TunnelResponse(http.client.HTTPResponse):
    """A proxy's answer to CONNECT, received until *deadline*.

    Nothing of it is in an exception, since it may repeat what was sent.
    """

    def __init__(self, sock: socket.socket, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Bounded(sock, deadline))

    def _read_status(self) -> tuple[str, int, str]:
        try:
            version, status, _ = super()._read_status()  # type: ignore[misc]  # not in typeshed
        except http.client.HTTPException:
            raise OSError("the proxy's answer is not HTTP") from None
        if not 200 <= status < 300:
            raise OSError(refusal(status))
        return version, HTTPStatus.OK, ""  # the one success that http.client knows


class _Bounded(io.RawIOBase):
    """What *sock* receives until *deadline*, and no more than an answer may have."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self._deadline, self._left = sock, deadline, _LONGEST_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left())
        count = self._sock.recv_into(buffer)
        self._left -= count
        if not count or self._left < 0:
            raise OSError("the proxy gave no whole answer")
        return count


def refusal(status: int) -> str:
    """Say that a proxy refused; in its own words may be what it was sent."""
    return f"the proxy refused: {status} {http.client.responses.get(status, '')}".rstrip()

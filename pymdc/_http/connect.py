"""Sockets that a scope can end: directly to a host, or through a proxy, with TLS and without."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from urllib3.util import ssl_wrap_socket

from pymdc._calls.cancel_scope import Scope
from pymdc._calls.descriptors import when_there_is_one
from pymdc._http.proxy import Proxy, refusal

_LONGEST_ANSWER = 64 * 1024  # bytes, of a proxy that is asked for a tunnel


@dataclass(frozen=True)
class Tunnel:
    """The way through *proxy*; *tls* is for one that is itself spoken to over TLS."""

    proxy: Proxy
    tls: Callable[[], ssl.SSLContext]


def dial(
    host: str, port: int, timeout: float, scope: Scope, tunnel: Tunnel | None = None
) -> socket.socket:
    """Connect to *host* within *timeout* seconds once its name is looked up; raise OSError.

    The socket's timeout is what is left of them.
    """
    if tunnel is None:
        return _connected(_addresses(host, port), Deadline(timeout), scope)
    proxy, target = tunnel.proxy, _target(host, port)
    addresses, deadline = _addresses(proxy.host, proxy.port), Deadline(timeout)
    sock = _connected(addresses, deadline, scope)
    try:
        if proxy.secure:
            sock = secured(sock, tunnel.tls(), proxy.host)
        _ask_for_tunnel(sock, target, proxy, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def secured(sock: socket.socket, tls: ssl.SSLContext, host: str) -> socket.socket:
    """Return *sock* with TLS, once it is certain that it leads to *host*; else close it."""
    try:
        wrapped = ssl_wrap_socket(
            sock,
            ssl_context=tls,
            server_hostname=host.rstrip("."),
            tls_in_tls=isinstance(sock, ssl.SSLSocket),
        )
    except BaseException:
        sock.close()
        raise
    return cast(socket.socket, wrapped)


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


_Address = tuple[Any, ...]


def _addresses(host: str, port: int) -> list[_Address]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise _no_host(error) from error


def _no_host(error: UnicodeError) -> socket.gaierror:
    return socket.gaierror(socket.EAI_NONAME, str(error))


def _connected(addresses: list[_Address], deadline: Deadline, scope: Scope) -> socket.socket:
    """Connect to one of *addresses*; each gets an equal share of what the others left."""
    failure = OSError("the host has no address")
    for place, (family, kind, protocol, _, address) in enumerate(addresses):
        make = partial(socket.socket, family, kind, protocol)
        sock = when_there_is_one(make, scope.sleep)
        try:
            scope.watch(sock)
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


def _target(host: str, port: int) -> str:
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise _no_host(error) from error
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _ask_for_tunnel(sock: socket.socket, target: str, proxy: Proxy, deadline: Deadline) -> None:
    headers = {"Host": target, **proxy.headers}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    answer = b""
    while not answer.endswith((b"\n\r\n", b"\n\n")):
        sock.settimeout(deadline.left())
        byte = sock.recv(1)  # what follows is the other side's
        if not byte or len(answer) == _LONGEST_ANSWER:
            raise OSError("the proxy gave no whole answer")
        answer += byte
    status = re.match(rb"HTTP/\d\.\d (\d{3})\b", answer)
    if status is None:  # nor is it shown, since it may repeat what was sent
        raise OSError("the proxy's answer is not HTTP")
    if not status[1].startswith(b"2"):
        raise OSError(refusal(int(status[1])))

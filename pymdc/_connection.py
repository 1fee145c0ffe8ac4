"""Connections that a scope can end: dialled here, for HTTP and for channels."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from urllib3 import connection, exceptions

from pymdc._scope import Scope


def dial(host: str, port: int, timeout: float, scope: Scope) -> socket.socket:
    """Connect to *host*, address by address, each within *timeout* seconds; raise OSError."""
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = socket.socket(family, kind, protocol)
        try:
            scope.watch(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(timeout)
            sock.connect(address)
            return sock
        except OSError as error:
            failure = error
            sock.close()
        scope.check()
    raise failure


class _Here(threading.local):
    scope: Scope | None = None


_here = _Here()


@contextmanager
def within(scope: Scope) -> Iterator[None]:
    """Let *scope* end what this thread sends in the block."""
    _here.scope = scope
    try:
        yield
    finally:
        _here.scope = None


class _Scoped(connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        assert _here.scope is not None
        try:
            return dial(self._dns_host, self.port, float(self.timeout or 0), _here.scope)
        except socket.gaierror as error:
            raise exceptions.NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise exceptions.ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise exceptions.NewConnectionError(self, str(error)) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None and _here.scope is not None:
            _here.scope.watch(self.sock)
        super().request(*args, **kwargs)


class _HTTPSConnection(_Scoped, connection.HTTPSConnection):
    pass


class HTTPPool(urllib3.HTTPConnectionPool):
    """Connections to one host."""

    ConnectionCls = _Scoped


class HTTPSPool(urllib3.HTTPSConnectionPool):
    """Secure connections to one host."""

    ConnectionCls = _HTTPSConnection

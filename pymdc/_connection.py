"""Connections that a scope can end: dialled here, for HTTP and for channels."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import urllib3
from urllib3 import connection, exceptions
from urllib3.util import ssl_wrap_socket

from pymdc._proxy import Proxy
from pymdc._scope import Scope

_LONGEST_ANSWER = 64 * 1024  # bytes, of a proxy that is asked for a tunnel


@dataclass(frozen=True)
class Tunnel:
    """The way through *proxy*; *tls* is for one that is itself spoken to over TLS."""

    proxy: Proxy
    tls: Callable[[], ssl.SSLContext]


def dial(
    host: str, port: int, timeout: float, scope: Scope, tunnel: Tunnel | None = None
) -> socket.socket:
    """Connect to *host*, each step within *timeout* seconds; raise OSError."""
    if tunnel is None:
        return _dial(host, port, timeout, scope)
    proxy = tunnel.proxy
    sock = _dial(proxy.host, proxy.port, timeout, scope)
    try:
        if proxy.secure:
            sock = secured(sock, tunnel.tls(), proxy.host)
        _ask_for_tunnel(sock, host, port, proxy)
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


def distrust(error: ssl.SSLCertVerificationError) -> str:
    """Say why a certificate was refused, and what to check."""
    check = _CHECKS.get(error.verify_code, "for a CA of one's own there is Client(ca_certs=...)")
    return f"the certificate is not to be trusted; {check}"


_CHECKS = {  # by OpenSSL's number
    9: "check the clock of this machine",
    10: "it is the other side's to renew, unless the clock of this machine is wrong",
    62: "check the name of the host",
    64: "check the name of the host",
}


def _dial(host: str, port: int, timeout: float, scope: Scope) -> socket.socket:
    failure = OSError(f"{host} has no address")
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, str(error)) from error
    for family, kind, protocol, _, address in addresses:
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


def _ask_for_tunnel(sock: socket.socket, host: str, port: int, proxy: Proxy) -> None:
    name = host.encode("idna").decode("ascii")
    target = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    headers = {"Host": target, **proxy.headers}
    lines = [f"CONNECT {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)  # what follows is the other side's
        if not byte or len(answer) == _LONGEST_ANSWER:
            raise OSError("the proxy gave no whole answer")
        answer += byte
    if not re.match(rb"HTTP/\d\.\d 2\d\d\b", answer):
        told = answer.partition(b"\r\n")[0].decode("latin-1")
        raise OSError(f"the proxy refused: {told}")


class _Here(threading.local):
    scope: Scope | None = None
    wait: float | None = None
    connected = False


_here = _Here()


@contextmanager
def within(scope: Scope, wait: float) -> Iterator[None]:
    """Let *scope* end what this thread sends in the block, and no send take *wait* seconds."""
    _here.scope, _here.wait, _here.connected = scope, wait, False
    try:
        yield
    except exceptions.SSLError as error:
        if not _here.connected:
            raise
        raise exceptions.ProtocolError(str(error)) from error
    finally:
        _here.scope = None


class _Scoped(connection.HTTPConnection):
    def __init__(self, *args: Any, through: Tunnel | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._through = through

    def _new_conn(self) -> socket.socket:
        assert _here.scope is not None
        timeout = float(self.timeout or 0)
        try:
            return dial(self._dns_host, self.port, timeout, _here.scope, self._through)
        except socket.gaierror as error:
            raise exceptions.NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise exceptions.ConnectTimeoutError(self, str(error)) from error
        except ssl.SSLError:
            raise
        except OSError as error:
            raise exceptions.NewConnectionError(self, str(error)) from error

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        elif _here.scope is not None:
            _here.scope.watch(self.sock)
        _here.connected = True
        self.timeout = _here.wait  # for sending; until now it was the one for connecting
        super().request(*args, **kwargs)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        try:
            return super().getresponse()
        except (ValueError, OverflowError, MemoryError) as error:
            # http.client believes what the other side says of its lengths.
            raise exceptions.ResponseError(str(error)) from error


class _HTTPSConnection(_Scoped, connection.HTTPSConnection):
    def connect(self) -> None:
        assert self.ssl_context is not None
        sock = self._new_conn()
        try:
            self.sock = secured(sock, self.ssl_context, self.host)
        except TimeoutError as error:
            raise exceptions.ConnectTimeoutError(self, str(error)) from error
        self.is_verified = True


class HTTPPool(urllib3.HTTPConnectionPool):
    """Connections to one host."""

    ConnectionCls = _Scoped


class HTTPSPool(urllib3.HTTPSConnectionPool):
    """Secure connections to one host."""

    ConnectionCls = _HTTPSConnection

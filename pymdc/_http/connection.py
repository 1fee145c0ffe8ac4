"""A connection of urllib3, on a socket that a cancel scope can shut down."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, cast

from urllib3 import connection, exceptions
from urllib3.util import ssl_wrap_socket, wait_for_read
from urllib3.util.wait import wait_for_socket

from pymdc._calls.cancel_scope import CancelScope
from pymdc._http.connect import Deadline, TunnelResponse, connect_tcp
from pymdc._http.proxy import Proxy
from pymdc._http.raw_response import EarlyResponse, RawResponse

_RECEIVE_SIZE = 2**14
_CLOSED_BY_PEER = (errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE)  # the last one on macOS

Body = bytes | Iterable[bytes | memoryview] | None


class Connection(connection.HTTPConnection):
    """A connection of urllib3 on a socket that a cancel scope can shut down.

    *tunnel* is the host and port to reach, and the proxy to connect to.
    """

    _max_send = 2**30  # bytes passed to the socket at once
    _scope: CancelScope
    _read_timeout: float
    _deadline: Deadline  # for connecting

    def __init__(
        self, *args: Any, tunnel: tuple[str, int, Proxy] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tunnel_to = tunnel

    def open(self, scope: CancelScope, timeout: tuple[float, float]) -> None:
        """Connect, unless already connected; *scope* can shut down the socket from now on.

        *timeout* is a pair of seconds: for connecting, and for each wait for bytes.
        Raises only those exceptions of urllib3 that mean that nothing was sent.
        """
        self._scope, self._read_timeout = scope, timeout[1]
        try:
            with self._mapped():
                if self.sock is None:
                    self.timeout = timeout[0]
                    self._set_tunnel()
                    self.connect()
                else:
                    scope.attach(self.sock)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except (socket.gaierror, UnicodeError) as error:
            reason = socket.gaierror(socket.EAI_NONAME, str(error))
            raise exceptions.NameResolutionError(self.host, self, reason) from error
        except TimeoutError as error:
            raise exceptions.ConnectTimeoutError(self, str(error)) from error
        except ssl.SSLError as error:
            raise exceptions.SSLError(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise exceptions.NewConnectionError(self, str(error)) from error

    def _set_tunnel(self) -> None:
        if self._tunnel_to is not None:
            host, port, proxy = self._tunnel_to
            name, scheme = host.encode("idna").decode("ascii"), "https" if proxy.secure else "http"
            self.set_tunnel(name, port, dict(proxy.headers), scheme)

    def _new_conn(self) -> socket.socket:
        host = self._dns_host
        # Not left to getaddrinfo(), which imports the codec "idna" even for ASCII: a child forked
        # while another thread imports it would wait for ever.
        encoded = host.encode("ascii" if host.isascii() else "idna")
        addresses = socket.getaddrinfo(encoded, self.port, type=socket.SOCK_STREAM)
        self._deadline = Deadline(float(self.timeout or 0))
        return connect_tcp(addresses, self._deadline, self._scope)

    def _tunnel(self) -> None:
        response = partial(TunnelResponse, deadline=self._deadline)
        self.response_class = response  # type: ignore[assignment]  # http.client only calls it
        super()._tunnel()
        self.sock.settimeout(self._deadline.remaining())

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> tuple[RawResponse, bytes]:
        """Send a request; return the head and the whole body of its response.

        If the *body* is an iterable, the *headers* must contain its length.
        """
        early_response, parts = EarlyResponse(), _parts(method, target, headers, body)
        # Sending does not block, so that an early response is noticed. TLS within TLS blocks,
        # because the class of urllib3 for it loses bytes on a non-blocking socket.
        self.sock.settimeout(0 if isinstance(self.sock, socket.socket) else self._read_timeout)
        sent_whole = self._send_parts(parts, early_response)
        self.sock.settimeout(self._read_timeout)
        try:
            received = early_response.data
            with RawResponse(self.sock, method, received, sent_whole) as response:
                response.begin()
                content = response.read()
        except TimeoutError as error:
            text = str(error)
            raise exceptions.ReadTimeoutError(self, "", text) from error  # type: ignore[arg-type]
        except (ValueError, OverflowError, MemoryError) as error:
            # http.client does not check the lengths that the server sends.
            raise exceptions.ResponseError(str(error)) from error
        if response.will_close:
            self.close()
        return response, content

    def _send_parts(
        self, parts: Iterable[bytes | memoryview], early_response: EarlyResponse
    ) -> bool:
        """Send *parts*; return False if the server answered or closed before the last one."""
        try:
            for number, part in enumerate(parts):
                if number and not early_response.success and wait_for_read(self.sock, 0):
                    self._receive_early(early_response)
                self._send(part, early_response)
        except TimeoutError:
            if not (early_response.started or wait_for_read(self.sock, 0)):
                raise
            return False
        except OSError as error:
            if error.errno not in _CLOSED_BY_PEER:
                raise
            return False
        return True

    def _send(self, data: bytes | memoryview, early_response: EarlyResponse) -> None:
        """Send *data*, with a heartbeat whenever the socket accepts bytes.

        Raises BrokenPipeError if the server closes the connection or starts a final response that
        is no success.
        """
        left = memoryview(data).cast("B")
        while left:
            if self.sock.gettimeout():  # sending would block, and miss an early response
                self._wait_writable(early_response)
            try:
                left = left[self.sock.send(left[: self._max_send]) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait_writable(early_response)
            except ssl.SSLWantReadError:  # the server renegotiates TLS
                wait_for_read(self.sock, self._read_timeout)
            else:
                self._scope.heartbeat()

    def _wait_writable(self, early_response: EarlyResponse) -> None:
        """Wait until the socket accepts bytes, and receive an early response meanwhile."""
        wait = partial(wait_for_socket, self.sock, write=True, timeout=self._read_timeout)
        while wait(read=not early_response.success):
            if early_response.success or not wait_for_read(self.sock, 0):
                return
            self._receive_early(early_response)
        raise TimeoutError("timed out")

    def _receive_early(self, early_response: EarlyResponse) -> None:
        """Receive the bytes that have arrived, possibly none if they were only a TLS message."""
        timeout = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            while not early_response.started:
                data = self.sock.recv(_RECEIVE_SIZE)
                if not data:
                    raise BrokenPipeError(errno.EPIPE, "the server closed the connection")
                early_response.add(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        finally:
            self.sock.settimeout(timeout)
        if not early_response.success:
            raise BrokenPipeError(errno.EPIPE, "the server has answered")


def _parts(
    method: str, target: str, headers: Mapping[str, str], body: Body
) -> Iterable[bytes | memoryview]:
    """Return the parts to send: head and body as one part, or the head and the body's parts."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    if head.count(b"\n") != len(lines) + 1:
        raise ValueError("a header or the path contains a line break")
    if isinstance(body, bytes):
        return [head + body]
    return chain([head], body or ())


class _TLSConnection(Connection, connection.HTTPSConnection):
    # A TLS socket accepts all of the bytes or none: larger parts would delay heartbeats.
    _max_send = 2**14


class _PlainTunnelOverTLS(Connection):
    """A tunnel to a host without TLS, through a proxy with TLS, which urllib3 does not support."""

    def _new_conn(self) -> socket.socket:
        assert self.proxy_config is not None
        tls, sock = self.proxy_config.ssl_context, super()._new_conn()
        return cast(
            socket.socket, ssl_wrap_socket(sock, ssl_context=tls, server_hostname=self.host)
        )


def connection_to(
    host: str,
    port: int,
    tls: Callable[[], ssl.SSLContext],
    *,
    secure: bool,
    proxy: Proxy | None = None,
) -> Connection:
    """Return an unopened connection to *host*; *tls* is called if the host or proxy uses TLS."""
    kind = _TLSConnection if secure else Connection
    options: dict[str, Any] = {"ssl_context": tls()} if secure else {}
    if proxy is None:
        return kind(host, port, **options)
    if proxy.secure:
        kind = _TLSConnection if secure else _PlainTunnelOverTLS
        options["proxy_config"] = connection.ProxyConfig(tls(), False, None, None)
    return kind(proxy.host, proxy.port, tunnel=(host, port, proxy), **options)

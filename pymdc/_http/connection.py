"""urllib3's connections, made such that a scope can end what they do."""

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
from pymdc._http.raw_response import EarlyBytes, RawResponse

_RECEIVE = 2**14  # bytes
_ENDED = (errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE)  # the last one on macOS

Body = bytes | Iterable[bytes | memoryview] | None


class Connection(connection.HTTPConnection):
    """A connection of urllib3's on a socket that is ours.

    With a *tunnel*, a host, its port and the proxy on the way, its own host is the proxy.
    """

    _at_once = 2**30  # bytes, of which a socket takes what it can
    _scope: CancelScope
    _wait: float  # seconds
    _deadline: Deadline  # of connecting

    def __init__(
        self, *args: Any, tunnel: tuple[str, int, Proxy] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tunnel_to = tunnel

    def open(self, scope: CancelScope, timeout: tuple[float, float]) -> None:
        """Let *scope* end what follows; connect, unless that was done before.

        *timeout* is a pair of seconds: for connecting, and for each wait for bytes.
        Raises urllib3's exceptions for when nothing was sent.
        """
        self._scope, self._wait = scope, timeout[1]
        try:
            with self._connecting():
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
    def _connecting(self) -> Iterator[None]:
        try:
            yield
        except (socket.gaierror, UnicodeError) as error:
            no_host = socket.gaierror(socket.EAI_NONAME, str(error))
            raise exceptions.NameResolutionError(self.host, self, no_host) from error
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
        addresses = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        self._deadline = Deadline(float(self.timeout or 0))
        return connect_tcp(addresses, self._deadline, self._scope)

    def _tunnel(self) -> None:
        answer = partial(TunnelResponse, deadline=self._deadline)
        self.response_class = answer  # type: ignore[assignment]  # it is only called
        super()._tunnel()
        self.sock.settimeout(self._deadline.left())

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> tuple[RawResponse, bytes]:
        """Send a request; return the head and the body of its answer, which is whole.

        Where the *body* is in several parts, the *headers* tell its length.
        """
        early, parts = EarlyBytes(), _parts(method, target, headers, body)
        # Sending does not block, so that it can wait for an answer as well; urllib3's TLS within
        # TLS would lose bytes without blocking.
        self.sock.settimeout(0 if isinstance(self.sock, socket.socket) else self._wait)
        whole = self._send_parts(parts, early)
        self.sock.settimeout(self._wait)
        try:
            with RawResponse(self.sock, method, early.data, whole) as response:
                response.begin()
                content = response.read()
        except TimeoutError as error:
            text = str(error)
            raise exceptions.ReadTimeoutError(self, "", text) from error  # type: ignore[arg-type]
        except (ValueError, OverflowError, MemoryError) as error:
            # http.client believes what the other side says of its lengths.
            raise exceptions.ResponseError(str(error)) from error
        if response.will_close:
            self.close()
        return response, content

    def _send_parts(self, parts: Iterable[bytes | memoryview], early: EarlyBytes) -> bool:
        """Send *parts*; say whether all of them, for there may be an answer if not."""
        try:
            for number, part in enumerate(parts):
                if number and not early.accepts and wait_for_read(self.sock, 0):
                    self._listen(early)
                self._send(part, early)
        except TimeoutError:
            if not (early.began or wait_for_read(self.sock, 0)):
                raise
            return False
        except OSError as error:
            if error.errno not in _ENDED:
                raise
            return False
        return True

    def _send(self, data: bytes | memoryview, early: EarlyBytes) -> None:
        """Send *data*, each part of which that gets away is a sign of progress.

        If a final answer begins that is no success, or the other side closes, raise
        BrokenPipeError.
        """
        left = memoryview(data).cast("B")
        while left:
            if self.sock.gettimeout():  # it would block, and not hear an answer
                self._await_room(early)
            try:
                left = left[self.sock.send(left[: self._at_once]) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._await_room(early)
            except ssl.SSLWantReadError:  # the other side negotiates anew
                wait_for_read(self.sock, self._wait)
            else:
                self._scope.heartbeat()

    def _await_room(self, early: EarlyBytes) -> None:
        """Wait until the socket takes bytes, receiving what is there of an answer meanwhile."""
        while wait_for_socket(self.sock, read=not early.accepts, write=True, timeout=self._wait):
            if early.accepts or not wait_for_read(self.sock, 0):
                return
            self._listen(early)
        raise TimeoutError("timed out")

    def _listen(self, early: EarlyBytes) -> None:
        """Receive what is there of an answer; nothing, where it was a message of TLS alone."""
        blocking = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            while not early.began:
                data = self.sock.recv(_RECEIVE)
                if not data:
                    raise BrokenPipeError(errno.EPIPE, "the other side ended the connection")
                early.take(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        finally:
            self.sock.settimeout(blocking)
        if not early.accepts:
            raise BrokenPipeError(errno.EPIPE, "there is an answer")


def _parts(
    method: str, target: str, headers: Mapping[str, str], body: Body
) -> Iterable[bytes | memoryview]:
    """Return a request as it is sent; a body of one part comes with the head."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""]).encode("ascii")
    if head.count(b"\n") != len(lines) + 1:
        raise ValueError("a header or the path has more than one line")
    if isinstance(body, bytes):
        return [head + body]
    return chain([head], body or ())


class _TLSConnection(Connection, connection.HTTPSConnection):
    _at_once = 2**14  # bytes, for TLS takes all of what it is given


class _TunnelOverTLS(Connection):
    """A tunnel, through a proxy that speaks TLS, to what speaks none; urllib3 has no such."""

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
    """Return a connection to *host*, not yet open; *tls* is asked where there is TLS on the way."""
    kind = _TLSConnection if secure else Connection
    options: dict[str, Any] = {"ssl_context": tls()} if secure else {}
    if proxy is None:
        return kind(host, port, **options)
    if proxy.secure:
        kind = _TLSConnection if secure else _TunnelOverTLS
        options["proxy_config"] = connection.ProxyConfig(tls(), False, None, None)
    return kind(proxy.host, proxy.port, tunnel=(host, port, proxy), **options)

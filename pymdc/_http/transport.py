"""The connections to one bridge, which send a request and receive its response."""

from __future__ import annotations

import re
import ssl
import weakref
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from pymdc._calls.cancel_scope import CancelScope
from pymdc._http.connect import refusal
from pymdc._http.connection import Body, Connection, connection_to
from pymdc._http.errors import ROWS, map_exceptions
from pymdc._http.proxy import PORTS, proxy_for, through
from pymdc._http.request import Request
from pymdc._http.response import Response, check_response
from pymdc.exceptions import Closed, ConnectError

_PROXY_AUTHENTICATION_REQUIRED = 407
_HEADERS = {"User-Agent": "metadisk-client-python", "Accept-Encoding": "identity"}


class Transport:
    """Persistent connections to *endpoint*, shared by all threads.

    At most *connections* idle connections are kept.
    *timeout* is a pair of seconds: for connecting, and for each wait for bytes.
    *ca_certs* is a file of more certificates to trust.
    """

    def __init__(
        self,
        endpoint: str,
        connections: int,
        timeout: tuple[float, float],
        ca_certs: str | None = None,
    ) -> None:
        self.endpoint = _check_endpoint(endpoint)
        self.timeout = timeout
        self._connections = connections
        self._ca_certs = ca_certs
        self._tls: ssl.SSLContext | None = None
        if ca_certs is not None or self.endpoint.startswith("https:"):
            _ = self.tls  # so that a wrong *ca_certs* raises now
        self._proxy = proxy = proxy_for(self.endpoint)
        self._via = through(proxy)
        # A proxy gets the whole URL of a request over HTTP, and opens a tunnel for HTTPS.
        self._http_proxy = proxy if self.endpoint.startswith("http:") else None
        self._headers = {"Host": _host(self.endpoint), **_HEADERS}
        if self._http_proxy:
            self._headers.update(self._http_proxy.headers)
        # Without a lock: a signal handler that raises could leave it locked, and so could a fork.
        self._idle: deque[Connection] = deque()
        self._closed = False
        weakref.finalize(self, _close_all, self._idle)

    def renew(self) -> None:
        """In a forked child, forget the connections, which belong to the parent."""
        _close_all(self._idle)

    def set_timeout(self, timeout: tuple[float, float]) -> None:
        """Set the timeouts of later requests."""
        self.timeout = timeout

    @property
    def tls(self) -> ssl.SSLContext:
        """The TLS settings: certificates of the system and of *ca_certs*, host names checked."""
        # Without a lock: if another thread held it during a fork, the child would wait for ever.
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls

    def _make_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._ca_certs is not None:
            try:
                context.load_verify_locations(self._ca_certs)
            except OSError as error:
                raise ValueError(
                    f"ca_certs is {self._ca_certs!r}; expected a file of PEM certificates ({error})"
                ) from error
        return context

    def send(self, request: Request, scope: CancelScope) -> Response:
        """Send *request* once and return the response, whatever its status."""
        url = self.endpoint + request.safe_path
        operation = scope.operation = f"{request.method} {url}{self._via}"
        if self._closed:
            raise Closed(f"{operation}: the client is closed")
        timeout = connect, read = self.timeout
        target, headers, body = self._encode(request, scope)
        connection = self._acquire()
        try:
            with map_exceptions(ROWS, operation, connect=connect, read=read):
                connection.open(scope, timeout)
                response, content = connection.exchange(request.method, target, headers, body)
        except BaseException:
            connection.close()
            raise
        finally:  # before `_release`, after which another call may use the connection
            scope.detach()
        self._release(connection)
        if self._http_proxy and response.status == _PROXY_AUTHENTICATION_REQUIRED:
            raise ConnectError(f"{operation}: {refusal(response.status)}")
        check_response(response, content, operation)
        return Response(url, response.status, response.fields, content, self._via)

    def _encode(self, request: Request, scope: CancelScope) -> tuple[str, Mapping[str, str], Body]:
        """Return the target, the headers and the body of *request* as they are sent."""
        target = self.endpoint + request.target if self._http_proxy else request.target
        names = {name.lower() for name in request.headers}
        kept = {name: self._headers[name] for name in self._headers if name.lower() not in names}
        body = request.body
        if request.stream is not None:
            body = scope.heartbeats(request.stream)
        return target, {**kept, **request.headers}, body

    def _acquire(self) -> Connection:
        """Return an idle connection that is still open, or else a new one."""
        while (connection := _pop(self._idle)) is not None:
            if connection.is_connected:
                return connection
            connection.close()
        parts = urlsplit(self._http_proxy.url if self._http_proxy else self.endpoint)
        return connection_to(
            parts.hostname or "",
            parts.port or PORTS[parts.scheme],
            lambda: self.tls,
            secure=parts.scheme == "https",
            proxy=None if self._http_proxy else self._proxy,
        )

    def _release(self, connection: Connection) -> None:
        if connection.is_closed:
            return
        if len(self._idle) < self._connections:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            _close_all(self._idle)

    def close(self) -> None:
        """Close the connections; a later `send` raises `Closed`."""
        self._closed = True
        _close_all(self._idle)


def _pop(connections: deque[Connection]) -> Connection | None:
    try:
        return connections.pop()
    except IndexError:
        return None


def _close_all(connections: deque[Connection]) -> None:
    while (connection := _pop(connections)) is not None:
        connection.close()


def _host(endpoint: str) -> str:
    host = endpoint.partition("//")[2]
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _check_endpoint(endpoint: str) -> str:
    """Return *endpoint* without a final slash; ValueError if it is not http(s)://host[:port]."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        extra = "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment
        if usable and not extra:
            return f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        pass  # the text of this exception might show a password
    shown = re.sub("(?s).*@", "...@", endpoint)
    raise ValueError(f"the endpoint is {shown!r}; expected http(s)://host or http(s)://host:port")

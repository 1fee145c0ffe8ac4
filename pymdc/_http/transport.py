"""One bridge's connections: a request goes out, and an answer comes back."""

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
from pymdc._http.response import Response, check_whole
from pymdc.exceptions import Closed, ConnectError

_PROXY_AUTHENTICATION_REQUIRED = 407
_HEADERS = {"User-Agent": "metadisk-client-python", "Accept-Encoding": "identity"}


class Transport:
    """The connections to *endpoint*, kept alive and shared by all threads.

    At most *connections* are kept that no call uses.
    *timeout* is a pair of seconds: for connecting, and for each wait for bytes.
    *ca_certs* is a file of further certificates to trust.
    """

    def __init__(
        self,
        endpoint: str,
        connections: int,
        timeout: tuple[float, float],
        ca_certs: str | None = None,
    ) -> None:
        self.endpoint = _checked(endpoint)
        self.timeout = timeout
        self._connections = connections
        self._ca_certs = ca_certs
        self._tls: ssl.SSLContext | None = None
        if ca_certs is not None or self.endpoint.startswith("https:"):
            _ = self.tls  # so that a wrong file is told at once
        self._proxy = proxy = proxy_for(self.endpoint)
        self._way = through(proxy)
        # A proxy for plain HTTP is told the whole URL; the way through to HTTPS is a tunnel.
        self._forwarder = proxy if self.endpoint.startswith("http:") else None
        self._headers = {"Host": _host(self.endpoint), **_HEADERS}
        if self._forwarder:
            self._headers.update(self._forwarder.headers)
        # Without a lock, which a handler that raises, or a thread that a forked child does not
        # have, might leave held.
        self._idle: deque[Connection] = deque()
        self._closed = False
        weakref.finalize(self, _close, self._idle)

    def renew(self) -> None:
        """Begin without connections, as at first: in a forked child those are the parent's."""
        _close(self._idle)
        self._closed = False

    def set_timeout(self, timeout: tuple[float, float]) -> None:
        """Let what is sent from now on take these seconds."""
        self.timeout = timeout

    @property
    def tls(self) -> ssl.SSLContext:
        """The certificates of the system and of *ca_certs*, host names checked."""
        # No lock: a forked child would wait for it, if another thread is here at that moment.
        if self._tls is None:
            self._tls = self._trusting()
        return self._tls

    def _trusting(self) -> ssl.SSLContext:
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
        """Send *request* once and return the whole answer, whatever its status."""
        url = self.endpoint + request.safe_path
        operation = scope.operation = f"{request.method} {url}{self._way}"
        if self._closed:
            raise Closed(f"{operation}: the client is closed")
        timeout = connect, read = self.timeout
        target, headers, body = self._on_the_wire(request, scope)
        connection = self._take()
        try:
            with map_exceptions(ROWS, operation, connect=connect, read=read):
                connection.open(scope, timeout)
                response, content = connection.exchange(request.method, target, headers, body)
        except BaseException:
            connection.close()
            raise
        finally:  # from here on the connection may be another call's
            scope.detach()
        self._keep(connection)
        if self._forwarder and response.status == _PROXY_AUTHENTICATION_REQUIRED:
            raise ConnectError(f"{operation}: {refusal(response.status)}")
        check_whole(response, content, operation)
        return Response(url, response.status, response.fields, content, self._way)

    def _on_the_wire(
        self, request: Request, scope: CancelScope
    ) -> tuple[str, Mapping[str, str], Body]:
        """Return the target, the headers and the body of *request* as they are sent."""
        target = self.endpoint + request.target if self._forwarder else request.target
        given = {name.lower() for name in request.headers}
        own = {name: self._headers[name] for name in self._headers if name.lower() not in given}
        body = request.body
        if request.stream is not None:
            body = scope.heartbeats(request.stream)
        return target, {**own, **request.headers}, body

    def _take(self) -> Connection:
        """Return a connection that was kept and is not dropped, or else a new one."""
        while (connection := _pop(self._idle)) is not None:
            if connection.is_connected:
                return connection
            connection.close()
        parts = urlsplit(self._forwarder.url if self._forwarder else self.endpoint)
        return connection_to(
            parts.hostname or "",
            parts.port or PORTS[parts.scheme],
            lambda: self.tls,
            secure=parts.scheme == "https",
            proxy=None if self._forwarder else self._proxy,
        )

    def _keep(self, connection: Connection) -> None:
        if connection.is_closed:
            return
        if len(self._idle) < self._connections:
            self._idle.append(connection)
        else:
            connection.close()
        if self._closed:
            _close(self._idle)

    def close(self) -> None:
        """Close the connections; what is sent afterwards is `Closed`."""
        self._closed = True
        _close(self._idle)


def _pop(connections: deque[Connection]) -> Connection | None:
    try:
        return connections.pop()
    except IndexError:
        return None


def _close(connections: deque[Connection]) -> None:
    while (connection := _pop(connections)) is not None:
        connection.close()


def _host(endpoint: str) -> str:
    host = endpoint.partition("//")[2]
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _checked(endpoint: str) -> str:
    """Return *endpoint* without a final slash; ValueError unless it is http(s)://host[:port]."""
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        more = "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment
        if usable and not more:
            return f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        pass  # its text might hold a password
    shown = re.sub("(?s).*@", "...@", endpoint)
    raise ValueError(f"the endpoint is {shown!r}; expected http(s)://host or http(s)://host:port")

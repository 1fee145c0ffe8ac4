"""One bridge's connections: a request goes out, and an answer comes back."""

from __future__ import annotations

import logging
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import ClosedPoolError

from pymdc._calls.cancel_scope import Scope
from pymdc._http.connect import Tunnel
from pymdc._http.connection import HTTPPool, HTTPSPool, logs_for_us, within
from pymdc._http.errors import ROWS, map_exceptions
from pymdc._http.proxy import proxy_for, refusal, through
from pymdc._http.request import Request, redact
from pymdc._http.response import Response, whole_body
from pymdc.exceptions import Closed, ConnectError

_PROXY_AUTHENTICATION_REQUIRED = 407
_HEADERS = {"User-Agent": "metadisk-client-python"}


class Transport:
    """The connections to *endpoint*, kept alive and shared by all threads.

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
        if ca_certs is not None:
            _ = self.tls  # so that a wrong file is told at once
        self._proxy = proxy = proxy_for(self.endpoint)
        self._way = through(proxy)
        # A proxy for plain HTTP is told the whole URL; the way through to HTTPS is a tunnel.
        self._forwarder = proxy if self.endpoint.startswith("http:") else None
        self._begin()

    def _begin(self) -> None:
        self._pool = self._connect()
        assert self._pool.pool is not None
        self._kept = self._pool.pool  # at hand when the pool is closed, too

    def renew(self) -> None:
        """Begin without connections, as at first: in a forked child those are the parent's."""
        for connection in filter(None, self._kept.queue):
            connection.close()
        self._begin()

    def set_timeout(self, timeout: tuple[float, float]) -> None:
        """Let what is sent from now on take these seconds."""
        self.timeout = timeout
        self._pool.timeout = urllib3.Timeout(*timeout)

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

    def _connect(self) -> urllib3.HTTPConnectionPool:
        proxy = self._proxy
        parts = urlsplit(self._forwarder.url if self._forwarder else self.endpoint)
        options: dict[str, Any] = {
            "maxsize": self._connections,
            "timeout": urllib3.Timeout(connect=self.timeout[0], read=self.timeout[1]),
            "retries": False,
        }
        if proxy and not self._forwarder:
            options["through"] = Tunnel(proxy, lambda: self.tls)
        if parts.scheme == "https":
            return HTTPSPool(parts.hostname or "", parts.port, ssl_context=self.tls, **options)
        return HTTPPool(parts.hostname or "", parts.port, **options)

    def send(self, request: Request, scope: Scope) -> Response:
        """Send *request* once and return the whole answer, whatever its status."""
        url, target = self.endpoint + request.safe_path, request.target
        operation = scope.doing = f"{request.method} {url}{self._way}"
        headers = {**_HEADERS, **request.headers}
        if self._forwarder:
            target = self.endpoint + target
            headers.update(self._forwarder.headers)
        body: Any = request.body
        if request.stream is not None:
            body = scope.progress(request.stream)
        connect, read = self.timeout
        with map_exceptions(ROWS, operation, connect=connect, read=read):
            try:
                with within(scope, read):
                    response = self._pool.urlopen(
                        request.method,
                        target,
                        body=body,
                        headers=headers,
                        redirect=False,
                        assert_same_host=False,
                        decode_content=False,  # of what is cut short urllib3 makes an answer
                    )
            except ClosedPoolError:
                raise Closed(f"{operation}: the client is closed") from None
            finally:
                scope.release()
        if self._forwarder and response.status == _PROXY_AUTHENTICATION_REQUIRED:
            raise ConnectError(f"{operation}: {refusal(response.status)}")
        plain = whole_body(response, operation)
        return Response(url, response.status, response.headers, plain, self._way)

    def close(self) -> None:
        """Close the connections; what is sent afterwards is `Closed`."""
        self._pool.close()


def _mask(record: logging.LogRecord) -> bool:
    """Mask activation tokens in what urllib3 logs of ours, and what it says about bad headers."""
    if not logs_for_us():
        return True
    record.exc_info = None
    if isinstance(record.args, tuple):
        record.args = tuple(_safe(arg) for arg in record.args)
    return True


def _safe(arg: object) -> object:
    if isinstance(arg, Exception):
        return type(arg).__name__
    return redact(arg) if isinstance(arg, str) else arg


for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_mask)


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

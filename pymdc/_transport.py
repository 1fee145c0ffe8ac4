"""One bridge's connections: a request goes out, an answer comes back, failures are translated."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions as theirs

from pymdc._connection import HTTPPool, HTTPSPool, within
from pymdc._proxy import Proxy, proxy_for
from pymdc._request import Request
from pymdc._scope import Scope
from pymdc.exceptions import (
    CertificateError,
    Closed,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GarbledAnswer,
    HTTPError,
    NetworkError,
    Timeout,
)

_NO_CONTENT = 204
_HEADERS = {"User-Agent": "metadisk-client-python", "Accept-Encoding": "gzip, deflate"}

# What urllib3 and the standard library raise, what it becomes, and what it means.
# The first line that fits decides, so a class stands before those that it is derived from.
TRANSLATIONS: tuple[tuple[type[Exception], type[NetworkError], str], ...] = (
    (theirs.NameResolutionError, ConnectError, "the host was not found"),
    (theirs.NewConnectionError, ConnectError, "no connection could be made"),
    (theirs.ConnectTimeoutError, ConnectTimeout, "no connection within {connect:g} s"),
    (theirs.ReadTimeoutError, Timeout, "no answer within {read:g} s"),
    (theirs.TimeoutError, Timeout, "no answer in time"),
    (theirs.TimeoutStateError, Timeout, "no answer in time"),
    (ssl.SSLCertVerificationError, CertificateError, "the certificate is not to be trusted"),
    (theirs.SSLError, ConnectError, "no secure connection could be made"),
    (theirs.ProxyError, ConnectError, "the proxy could not be used"),
    (theirs.ProxySchemeUnsupported, ConnectError, "the proxy could not be used"),
    (theirs.LocationValueError, ConnectError, "the URL could not be used"),
    (theirs.PoolError, ConnectError, "no connection could be had"),
    (theirs.UnrewindableBodyError, ConnectionLost, "the body could not be sent again"),
    (theirs.ResponseNotChunked, GarbledAnswer, "the answer is not what its headers say"),
    (theirs.IncompleteRead, ConnectionLost, "the connection ended in the middle of the answer"),
    (theirs.InvalidChunkLength, ConnectionLost, "the connection ended in the middle of the answer"),
    (theirs.DecodeError, GarbledAnswer, "the answer could not be decompressed"),
    (theirs.ResponseError, GarbledAnswer, "the answer could not be read"),
    (theirs.HeaderParsingError, GarbledAnswer, "the answer's headers could not be read"),
    (theirs.InvalidHeader, GarbledAnswer, "the answer's headers could not be read"),
    (theirs.BodyNotHttplibCompatible, GarbledAnswer, "the answer could not be read"),
    (http.client.RemoteDisconnected, ConnectionLost, "the connection ended before the answer"),
    (
        http.client.IncompleteRead,
        ConnectionLost,
        "the connection ended in the middle of the answer",
    ),
    (http.client.HTTPException, GarbledAnswer, "the answer is not HTTP"),
    (TimeoutError, Timeout, "nothing could be sent for {connect:g} s"),
    (OSError, ConnectionLost, "the connection broke"),
    (theirs.ProtocolError, ConnectionLost, "the connection broke"),
)


@dataclass(frozen=True)
class Response:
    """What came back: a status, headers, and the body."""

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def decode(self) -> Any:
        """Return the JSON, '' for an empty body, or the text; raise `HTTPError` for a refusal.

        A refusal of the bridge is JSON and so a value; a redirect and any other is the error.
        """
        if 300 <= self.status < 400:
            raise self._error("a redirect, which is not followed; check the endpoint")
        if not self.body and self.status < 400:
            return ""
        try:
            return json.loads(self.body)
        except ValueError:
            if self.status < 400:
                return self.body.decode("utf-8", "replace")
        raise self._error("not the bridge's JSON; is something else listening at the endpoint?")

    def _error(self, msg: str) -> HTTPError:
        return HTTPError(self.url, self.status, msg, self.headers, self.body)


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
        self._ca_certs = ca_certs
        proxy = proxy_for(self.endpoint)
        secure = self.endpoint.startswith("https:")
        options: dict[str, Any] = {
            "maxsize": connections,
            "timeout": urllib3.Timeout(connect=timeout[0], read=timeout[1]),
            "retries": False,
        }
        if secure:
            options["ssl_context"] = self.tls
        # A proxy for plain HTTP is told the whole URL; the way through to HTTPS is a tunnel.
        self._prefix = self.endpoint if proxy and not secure else ""
        self._pool = _pool(self.endpoint, proxy, options)

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The certificates of the system and of *ca_certs*, host names checked."""
        context = ssl.create_default_context()
        if self._ca_certs is not None:
            context.load_verify_locations(self._ca_certs)
        return context

    def send(self, request: Request, scope: Scope) -> Response:
        """Send *request* once and return the whole answer, whatever its status."""
        tried = scope.doing = f"{request.method} {self.endpoint}{request.shown}"
        body = request.body
        if request.stream is not None:
            body = scope.progress(request.stream)
        try:
            with within(scope):
                response = self._pool.urlopen(
                    request.method,
                    self._prefix + request.target,
                    body=body,
                    headers={**_HEADERS, **request.headers},
                    redirect=False,
                )
        except theirs.ClosedPoolError:
            raise Closed(f"{tried}: the client is closed") from None
        except theirs.HTTPError as error:
            raise translated(error, tried, self.timeout) from error
        finally:
            scope.release()
        if not response.data and response.status != _NO_CONTENT and not _framed(response.headers):
            raise ConnectionLost(f"{tried}: the connection ended in the middle of the headers")
        url = self.endpoint + request.shown
        return Response(url, response.status, response.headers, response.data)

    def close(self) -> None:
        """Close the connections; what is sent afterwards is `Closed`."""
        self._pool.close()


def _framed(headers: Mapping[str, str]) -> bool:
    # A cut in the headers looks like their end; without these an empty body may be such a cut.
    return "Content-Length" in headers or "Transfer-Encoding" in headers


def _pool(
    endpoint: str, proxy: Proxy | None, options: dict[str, Any]
) -> urllib3.HTTPConnectionPool:
    pools: dict[str, Any] = {"http": HTTPPool, "https": HTTPSPool}
    if proxy is None:
        parts = urlsplit(endpoint)
        direct: urllib3.HTTPConnectionPool = pools[parts.scheme](
            parts.hostname, parts.port, **options
        )
        return direct
    manager = urllib3.ProxyManager(proxy.url, proxy_headers=proxy.headers, **options)
    manager.pool_classes_by_scheme = pools
    pool: urllib3.HTTPConnectionPool = manager.connection_from_url(endpoint)
    return pool


def translated(error: Exception, tried: str, timeout: tuple[float, float]) -> NetworkError:
    """Return our exception for one of urllib3's; *tried* says what was on its way."""
    told = _told(error)
    for kind, ours, meaning in TRANSLATIONS:
        if isinstance(told, kind):
            meaning = meaning.format(connect=timeout[0], read=timeout[1])
            return ours(f"{tried}: {meaning} ({_reason(told)})")
    return NetworkError(f"{tried}: {_reason(told)}")


def _told(error: Exception) -> Exception:
    """Return the exception that urllib3 wrapped, where that tells more than its own."""
    inner = error.args[-1] if error.args else None
    if isinstance(error, theirs.ProtocolError) and isinstance(inner, Exception):
        return inner
    if isinstance(error, theirs.SSLError) and isinstance(inner, ssl.SSLCertVerificationError):
        return inner
    return error


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _checked(endpoint: str) -> str:
    """Return *endpoint* without a final slash; ValueError unless it is http(s)://host[:port]."""
    parts = urlsplit(endpoint)
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        shown = endpoint.rpartition("@")[2]
        raise ValueError(
            f"the endpoint is {shown!r}; expected http(s)://host or http(s)://host:port"
        )
    return f"{parts.scheme}://{parts.netloc}"

"""One bridge's connections: a request goes out, an answer comes back, failures are translated."""

from __future__ import annotations

import http.client
import json
import logging
import re
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from queue import LifoQueue
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3 import exceptions as theirs

from pymdc._connection import HTTPPool, HTTPSPool, Tunnel, distrust, within
from pymdc._proxy import proxy_for, through
from pymdc._request import Request, masked
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
_NOT_MODIFIED = 304
_PROXY_AUTHENTICATION_REQUIRED = 407
_HEADERS = {"User-Agent": "metadisk-client-python"}
_LONGEST_ENCODING = 12  # characters; what is longer may be something that was sent

_NOBODY = "no connection could be made; does anything listen there?"
_STRANGE = "not the bridge's JSON; is something else listening at the endpoint?"
_BUSY = dict.fromkeys((429, 503), "not the bridge's JSON; it, or what stands before it, is busy")
_PERHAPS = "; it may have been done all the same"

# What urllib3 and the standard library raise, what it becomes, and what it means.
# The first line that fits decides, so a class stands before those that it is derived from.
TRANSLATIONS: tuple[tuple[type[Exception], type[NetworkError], str], ...] = (
    (theirs.NameResolutionError, ConnectError, "the host was not found; check its name"),
    (theirs.NewConnectionError, ConnectError, _NOBODY),
    (theirs.ConnectTimeoutError, ConnectTimeout, "no connection within {connect:g} s; is it up?"),
    (theirs.ReadTimeoutError, Timeout, "no answer within {read:g} s" + _PERHAPS),
    (theirs.TimeoutError, Timeout, "no answer in time"),
    (theirs.TimeoutStateError, Timeout, "no answer in time"),
    (ssl.SSLCertVerificationError, CertificateError, "the certificate is not to be trusted"),
    (theirs.SSLError, ConnectError, "no secure connection could be made; is it HTTPS there?"),
    (theirs.ProxyError, ConnectError, "the proxy could not be used; check its address"),
    (theirs.ProxySchemeUnsupported, ConnectError, "the proxy could not be used; check its address"),
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
    (
        http.client.RemoteDisconnected,
        ConnectionLost,
        "the connection ended before the answer" + _PERHAPS,
    ),
    (
        http.client.IncompleteRead,
        ConnectionLost,
        "the connection ended in the middle of the answer",
    ),
    (http.client.HTTPException, GarbledAnswer, "the answer is not HTTP; is something else there?"),
    (TimeoutError, Timeout, "nothing could be sent for {read:g} s"),
    (OSError, ConnectionLost, "the connection broke" + _PERHAPS),
    (theirs.ProtocolError, ConnectionLost, "the connection broke" + _PERHAPS),
)


@dataclass(frozen=True)
class Response:
    """What came back: a status, headers, and the body."""

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    way: str = ""

    def decode(self) -> Any:
        """Return the JSON, '' for an empty body, or the text; raise `HTTPError` for a refusal.

        A refusal of the bridge is a JSON object and so a value; a redirect and any other refusal
        is the error.
        """
        if 300 <= self.status < 400:
            raise self._error("a redirect, which is not followed; check the endpoint")
        try:
            answer = json.loads(self.body or b'""')
        except (ValueError, RecursionError):
            answer = self.body.decode("utf-8", "replace")
        if self.status >= 400 and not isinstance(answer, dict):
            raise self._error(_BUSY.get(self.status, _STRANGE))
        return answer

    def _error(self, msg: str) -> HTTPError:
        came = f" (it came{self.way})" if self.way else ""
        return HTTPError(self.url, self.status, msg + came, self.headers, self.body)


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
        connections = filter(None, self._kept.queue)
        # A thread that is not there may hold its lock, which the end of the process waits for.
        LifoQueue.__init__(self._kept)
        for connection in connections:
            connection.close()
        self._begin()

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
        url, target = self.endpoint + request.shown, request.target
        tried = scope.doing = f"{request.method} {url}{self._way}"
        headers = {**_HEADERS, **request.headers}
        if self._forwarder:
            target = self.endpoint + target
            headers.update(self._forwarder.headers)
        body: Any = request.body
        if request.stream is not None:
            body = scope.progress(request.stream)
        try:
            with within(scope, self.timeout[1]):
                response = self._pool.urlopen(
                    request.method,
                    target,
                    body=body,
                    headers=headers,
                    redirect=False,
                    assert_same_host=False,
                    decode_content=False,  # of what is cut short urllib3 makes an answer
                )
        except theirs.ClosedPoolError:
            raise Closed(f"{tried}: the client is closed") from None
        except theirs.HTTPError as error:
            # What the other side sent is among the causes, and may be what it was sent.
            raise translated(error, tried, self.timeout) from None
        finally:
            scope.release()
        if not response.data and _cut(response.status, response.headers):
            raise ConnectionLost(f"{tried}: the connection ended in the middle of the headers")
        if self._forwarder and response.status == _PROXY_AUTHENTICATION_REQUIRED:
            told = f"{response.status} {masked(response.reason or '')}"
            raise ConnectError(f"{tried}: the proxy refused: {told}")
        bodiless = request.method == "HEAD" or response.status in (_NO_CONTENT, _NOT_MODIFIED)
        plain = response.data if bodiless else _plain(response, tried)
        return Response(url, response.status, response.headers, plain, self._way)

    def close(self) -> None:
        """Close the connections; what is sent afterwards is `Closed`."""
        self._pool.close()


def _mask(record: logging.LogRecord) -> bool:
    """Mask activation tokens in what urllib3 logs, and whatever it says about bad headers."""
    record.exc_info = None
    if isinstance(record.args, tuple):
        record.args = tuple(_safe(arg) for arg in record.args)
    return True


def _safe(arg: object) -> object:
    if isinstance(arg, Exception):
        return type(arg).__name__
    return masked(arg) if isinstance(arg, str) else arg


for _name in ("urllib3.connection", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(_mask)


def _cut(status: int, headers: Mapping[str, str]) -> bool:
    """Say whether *headers* without a body may have been cut short, which looks like their end.

    What is no success is an exception anyhow, and its own tells more.
    """
    coding = headers.get("Transfer-Encoding", "").lower()
    framed = headers.get("Content-Length", "").isdecimal() or coding.endswith("chunked")
    return status < 300 and status != _NO_CONTENT and not framed


def _plain(response: urllib3.BaseHTTPResponse, tried: str) -> bytes:
    """Return the body as it was before somebody on the way compressed it, which is not asked for.

    Raises `GarbledAnswer` unless exactly one whole body comes out.
    """
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return response.data
    if encoding not in ("gzip", "deflate"):
        named = repr(encoding) if len(encoding) <= _LONGEST_ENCODING else "with a long name"
        told = f"answered {response.status} in the encoding {named}, which is not read here"
        raise GarbledAnswer(f"{tried} {told}")
    unpacking = zlib.decompressobj(32 + zlib.MAX_WBITS)  # the one or the other, by its beginning
    try:
        plain = unpacking.decompress(response.data)
        if not unpacking.eof or unpacking.unused_data:
            raise zlib.error("it is cut short, or goes on after its end")
    except zlib.error as error:
        raise GarbledAnswer(f"{tried}: the answer could not be decompressed ({error})") from None
    return plain


def translated(error: Exception, tried: str, timeout: tuple[float, float]) -> NetworkError:
    """Return our exception for one of urllib3's; *tried* says what was on its way."""
    told = _told(error)
    for kind, ours, meaning in TRANSLATIONS:
        if isinstance(told, kind):
            meaning = meaning.format(connect=timeout[0], read=timeout[1])
            if isinstance(told, ssl.SSLCertVerificationError):
                meaning = distrust(told)
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
    return masked(str(error)) or type(error).__name__


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

"""Maps the exceptions of urllib3 and the standard library to those of pymdc."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from urllib3 import exceptions as urllib3_exceptions

from pymdc._http.raw_response import IncompleteHead, SwitchedProtocols
from pymdc._http.request import redact
from pymdc.exceptions import (
    CertificateError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GarbledAnswer,
    NetworkError,
    PymdcError,
    Timeout,
)

# An exception class, the class of pymdc that replaces it, and the message. ``{reason}`` is the text
# of the exception or of its cause; a message omits it if it may repeat what was sent.
Row = tuple[type[Exception], type[NetworkError], str]

_NO_HOST = "the host was not found; check its name ({reason})"
_NO_CONNECTION = "no connection could be made; does anything listen there? ({reason})"
_CONNECT_TIMEOUT = "no connection within {connect:g} s; is the host up? ({reason})"
_NO_CERTIFICATE = "the certificate is not trusted; {check} ({reason})"
_NO_TLS = "no secure connection could be made; does the server use TLS? ({reason})"
_NO_PROXY = "the proxy could not be used; check its address ({reason})"
_NO_ANSWER = "no answer in time ({reason})"
_UNCERTAIN = "; the request may still have been executed ({reason})"
_READ_TIMEOUT = "no answer within {read:g} s" + _UNCERTAIN
_ENDED = "the connection ended before the answer" + _UNCERTAIN
_BROKEN = "the connection broke" + _UNCERTAIN
_CUT_OFF = "the connection ended in the middle of the answer ({reason})"
_NOT_REPEATABLE = "the body could not be sent again ({reason})"
_NOT_HTTP = "the answer is not HTTP; is something else listening there?"
_UNREADABLE = "the answer could not be read"
_BAD_HEADERS = "the answer's headers could not be read"

# The first matching row applies, so a class must come before its base classes.
CONNECTING: tuple[Row, ...] = (
    (urllib3_exceptions.NameResolutionError, ConnectError, _NO_HOST),
    (urllib3_exceptions.NewConnectionError, ConnectError, _NO_CONNECTION),
    (urllib3_exceptions.ConnectTimeoutError, ConnectTimeout, _CONNECT_TIMEOUT),
    (ssl.SSLCertVerificationError, CertificateError, _NO_CERTIFICATE),
    (urllib3_exceptions.SSLError, ConnectError, _NO_TLS),
)

TRANSLATIONS: tuple[Row, ...] = (
    *CONNECTING,
    (urllib3_exceptions.ReadTimeoutError, Timeout, _READ_TIMEOUT),
    (urllib3_exceptions.TimeoutError, Timeout, _NO_ANSWER),
    (urllib3_exceptions.TimeoutStateError, Timeout, _NO_ANSWER),
    (urllib3_exceptions.ProxyError, ConnectError, _NO_PROXY),
    (urllib3_exceptions.ProxySchemeUnsupported, ConnectError, _NO_PROXY),
    (urllib3_exceptions.LocationValueError, ConnectError, "the URL could not be used ({reason})"),
    (urllib3_exceptions.PoolError, ConnectError, "no connection was available ({reason})"),
    (urllib3_exceptions.UnrewindableBodyError, ConnectionLost, _NOT_REPEATABLE),
    (urllib3_exceptions.ResponseNotChunked, GarbledAnswer, "the answer does not match its headers"),
    (urllib3_exceptions.IncompleteRead, ConnectionLost, _CUT_OFF),
    (urllib3_exceptions.InvalidChunkLength, GarbledAnswer, "the answer is cut off or garbled"),
    (urllib3_exceptions.DecodeError, GarbledAnswer, "the answer could not be decompressed"),
    (urllib3_exceptions.ResponseError, GarbledAnswer, _UNREADABLE),
    (urllib3_exceptions.HeaderParsingError, GarbledAnswer, _BAD_HEADERS),
    (urllib3_exceptions.InvalidHeader, GarbledAnswer, _BAD_HEADERS),
    (urllib3_exceptions.BodyNotHttplibCompatible, GarbledAnswer, _UNREADABLE),
    (http.client.RemoteDisconnected, ConnectionLost, _ENDED),
    (http.client.IncompleteRead, ConnectionLost, _CUT_OFF),
    (IncompleteHead, ConnectionLost, "the connection ended in the middle of the headers"),
    (SwitchedProtocols, GarbledAnswer, "the server switched to another protocol unasked"),
    (http.client.HTTPException, GarbledAnswer, _NOT_HTTP),
    (TimeoutError, Timeout, "nothing could be sent for {read:g} s ({reason})"),
    (OSError, ConnectionLost, _BROKEN),
    (urllib3_exceptions.ProtocolError, ConnectionLost, _BROKEN),
)

# For exceptions that later releases of urllib3 may add.
_OTHER: Row = (urllib3_exceptions.HTTPError, NetworkError, "{reason}")
ROWS = (*TRANSLATIONS, _OTHER)

_CHECKS = {  # by OpenSSL's error number
    9: "check the clock of this machine",
    10: "the server must renew the certificate, unless the clock of this machine is wrong",
    62: "check the name of the host",
    64: "check the name of the host",
}
_OTHER_CHECK = "to trust your own CA, use Client(ca_certs=...)"


@contextmanager
def map_exceptions(
    rows: tuple[Row, ...], operation: str, *, connect: float, read: float
) -> Iterator[None]:
    """Replace an exception that the block raises as *rows* say, if they have a row for its class.

    The message begins with the *operation*; *connect* and *read* are the timeouts in seconds.
    The cause is suppressed, because it may quote a response that repeats secrets.
    """
    try:
        yield
    except PymdcError:
        raise
    except tuple(kind for kind, _, _ in rows) as error:
        inner = _unwrapped(error)
        replacement, message = next(row[1:] for row in rows if isinstance(inner, row[0]))
        reason, check = _reason(inner), _check(inner)
        message = message.format(connect=connect, read=read, reason=reason, check=check)
        raise replacement(f"{operation}: {message}") from None


def _unwrapped(error: Exception) -> Exception:
    """Return the certificate error that urllib3 wrapped, if any, else *error*."""
    if isinstance(error, urllib3_exceptions.SSLError) and error.args:
        inner = error.args[-1]
        if isinstance(inner, ssl.SSLCertVerificationError):
            return inner
    return error


def _reason(error: BaseException) -> str:
    while isinstance(error, urllib3_exceptions.HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    return redact(str(error)) or type(error).__name__


def _check(error: Exception) -> str:
    return _CHECKS.get(getattr(error, "verify_code", 0), _OTHER_CHECK)

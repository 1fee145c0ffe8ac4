"""What urllib3 and the standard library raise when a request fails, and what it becomes."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from urllib3 import exceptions as theirs

from pymdc._http.raw_response import Switched
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

# A class, what becomes of it, and what it means. ``{reason}`` is the exception's own text, or
# its cause's: where that may repeat what was sent, the meaning does not have it.
Row = tuple[type[Exception], type[NetworkError], str]

_NO_CERTIFICATE = "the certificate is not to be trusted; {check} ({reason})"
_NO_PROXY = "the proxy could not be used; check its address ({reason})"
_LATE = "no answer in time ({reason})"
_CUT = "the connection ended in the middle of the answer ({reason})"
_BROKEN = "the connection broke; it may have been done all the same ({reason})"
_UNREADABLE = "the answer could not be read"
_BAD_HEADERS = "the answer's headers could not be read"

# The first row that fits decides, so a class stands before those that it is derived from.
CONNECTING: tuple[Row, ...] = (
    (theirs.NameResolutionError, ConnectError, "the host was not found; check its name ({reason})"),
    (
        theirs.NewConnectionError,
        ConnectError,
        "no connection could be made; does anything listen there? ({reason})",
    ),
    (
        theirs.ConnectTimeoutError,
        ConnectTimeout,
        "no connection within {connect:g} s; is it up? ({reason})",
    ),
    (ssl.SSLCertVerificationError, CertificateError, _NO_CERTIFICATE),
    (
        theirs.SSLError,
        ConnectError,
        "no secure connection could be made; is it HTTPS there? ({reason})",
    ),
)

TRANSLATIONS: tuple[Row, ...] = (
    *CONNECTING,
    (
        theirs.ReadTimeoutError,
        Timeout,
        "no answer within {read:g} s; it may have been done all the same ({reason})",
    ),
    (theirs.TimeoutError, Timeout, _LATE),
    (theirs.TimeoutStateError, Timeout, _LATE),
    (theirs.ProxyError, ConnectError, _NO_PROXY),
    (theirs.ProxySchemeUnsupported, ConnectError, _NO_PROXY),
    (theirs.LocationValueError, ConnectError, "the URL could not be used ({reason})"),
    (theirs.PoolError, ConnectError, "no connection could be had ({reason})"),
    (theirs.UnrewindableBodyError, ConnectionLost, "the body could not be sent again ({reason})"),
    (theirs.ResponseNotChunked, GarbledAnswer, "the answer is not what its headers say"),
    (theirs.IncompleteRead, ConnectionLost, _CUT),
    (theirs.InvalidChunkLength, GarbledAnswer, "the answer is cut short, or garbled"),
    (theirs.DecodeError, GarbledAnswer, "the answer could not be decompressed"),
    (theirs.ResponseError, GarbledAnswer, _UNREADABLE),
    (theirs.HeaderParsingError, GarbledAnswer, _BAD_HEADERS),
    (theirs.InvalidHeader, GarbledAnswer, _BAD_HEADERS),
    (theirs.BodyNotHttplibCompatible, GarbledAnswer, _UNREADABLE),
    (
        http.client.RemoteDisconnected,
        ConnectionLost,
        "the connection ended before the answer; it may have been done all the same ({reason})",
    ),
    (http.client.IncompleteRead, ConnectionLost, _CUT),
    (Switched, GarbledAnswer, "it answered in another protocol, for which nobody asked"),
    (http.client.HTTPException, GarbledAnswer, "the answer is not HTTP; is something else there?"),
    (TimeoutError, Timeout, "nothing could be sent for {read:g} s ({reason})"),
    (OSError, ConnectionLost, _BROKEN),
    (theirs.ProtocolError, ConnectionLost, _BROKEN),
)

# What comes of an exception of urllib3 that is newer than the rows.
_OTHER: Row = (theirs.HTTPError, NetworkError, "{reason}")
ROWS = (*TRANSLATIONS, _OTHER)

_CHECKS = {  # by OpenSSL's number
    9: "check the clock of this machine",
    10: "it is the other side's to renew, unless the clock of this machine is wrong",
    62: "check the name of the host",
    64: "check the name of the host",
}
_OTHER_CHECK = "for a CA of one's own there is Client(ca_certs=...)"


@contextmanager
def map_exceptions(
    rows: tuple[Row, ...], operation: str, *, connect: float, read: float
) -> Iterator[None]:
    """Raise what the block raises as the exception of ours that *rows* have for it, if they have.

    Its text begins with the *operation*; *connect* and *read* are the seconds of the timeouts.
    What the other side sent is among the causes, and may be what it was sent: they are not shown.
    """
    try:
        yield
    except PymdcError:
        raise
    except tuple(kind for kind, _, _ in rows) as error:
        told = _innermost(error)
        values = {"connect": connect, "read": read, "reason": _reason(told), "check": _check(told)}
        ours, meaning = next(row[1:] for row in rows if isinstance(told, row[0]))
        raise ours(f"{operation}: {meaning.format(**values)}") from None


def _innermost(error: Exception) -> Exception:
    """Return the exception that urllib3 wrapped, where that tells more than its own."""
    inner = error.args[-1] if error.args else None
    if isinstance(error, theirs.SSLError) and isinstance(inner, ssl.SSLCertVerificationError):
        return inner
    return error


def _reason(error: BaseException) -> str:
    while isinstance(error, theirs.HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    return redact(str(error)) or type(error).__name__


def _check(error: Exception) -> str:
    return _CHECKS.get(getattr(error, "verify_code", 0), _OTHER_CHECK)

"""What urllib3 and the standard library raise when a request fails, and what it becomes."""

from __future__ import annotations

import http.client
import ssl

from urllib3 import exceptions as theirs

from pymdc._http.connect import distrust
from pymdc._http.early_answer import Switched
from pymdc._http.request import redact
from pymdc.exceptions import (
    CertificateError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GarbledAnswer,
    NetworkError,
    Timeout,
)

_NOBODY = "no connection could be made; does anything listen there?"
_PERHAPS = "; it may have been done all the same"

# A class, what becomes of it, and what it means.
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
    (theirs.InvalidChunkLength, GarbledAnswer, "the answer is cut short, or garbled"),
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
    (Switched, GarbledAnswer, "it answered in another protocol, for which nobody asked"),
    (http.client.HTTPException, GarbledAnswer, "the answer is not HTTP; is something else there?"),
    (TimeoutError, Timeout, "nothing could be sent for {read:g} s"),
    (OSError, ConnectionLost, "the connection broke" + _PERHAPS),
    (theirs.ProtocolError, ConnectionLost, "the connection broke" + _PERHAPS),
)


def translated(error: Exception, tried: str, timeout: tuple[float, float]) -> NetworkError:
    """Return our exception for one of urllib3's; *tried* says what was on its way."""
    told = _told(error)
    for kind, ours, meaning in TRANSLATIONS:
        if isinstance(told, kind):
            meaning = meaning.format(connect=timeout[0], read=timeout[1])
            if isinstance(told, ssl.SSLCertVerificationError):
                meaning = distrust(told)
            # What is garbled may repeat what was sent.
            reason = "" if ours is GarbledAnswer else f" ({_reason(told)})"
            return ours(f"{tried}: {meaning}{reason}")
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
    return redact(str(error)) or type(error).__name__

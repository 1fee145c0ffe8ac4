"""A shard's data channel: a WebSocket that takes one message and sends the shard."""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from websockets import exceptions as theirs
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from pymdc._connection import Tunnel, dial, distrust, secured
from pymdc._proxy import Proxy, proxy_for, through
from pymdc._scope import Scope
from pymdc.exceptions import (
    CertificateError,
    ChannelError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GarbledAnswer,
    NetworkError,
    PymdcError,
    Timeout,
)

_RECEIVE = 256 * 1024
_LARGEST_FRAME = 16 * 1024 * 1024
_NORMAL = 1000

# At DEBUG a protocol writes its frames to the log, and the first one holds a token.
_silent = logging.Logger("pymdc.channel")
_silent.disabled = True

# Known to websockets from its release 17 on.
_TOO_MANY_FRAGMENTS = [getattr(theirs, name) for name in {"TooManyFragments"} & {*dir(theirs)}]

# What websockets raises, what it becomes, and what it means; the first line that fits decides.
TRANSLATIONS: tuple[tuple[type[Exception], type[NetworkError], str], ...] = (
    (theirs.InvalidURI, ConnectError, "it is not the URL of a channel"),
    (theirs.InvalidProxy, ConnectError, "the proxy could not be used; check its address"),
    (theirs.ProxyError, ConnectError, "the proxy could not be used; check its address"),
    (
        theirs.InvalidHandshake,
        ConnectError,
        "no WebSocket answered; is something else listening there?",
    ),
    (theirs.ConnectionClosed, ConnectionLost, "it closed before the shard was whole"),
    (theirs.ProtocolError, GarbledAnswer, "what came is not a WebSocket's"),
    (theirs.PayloadTooBig, GarbledAnswer, "a frame is too large"),
    *((kind, GarbledAnswer, "a message has too many frames") for kind in _TOO_MANY_FRAGMENTS),
    (theirs.InvalidState, ConnectionLost, "it closed before the shard was whole"),
    (theirs.ConcurrencyError, NetworkError, "it was used twice at once"),
)


def pull(
    url: str,
    message: Mapping[str, str],
    timeout: tuple[float, float],
    tls: Callable[[], ssl.SSLContext],
    scope: Scope,
) -> Iterator[bytes]:
    """Send *message* to the channel at *url* and give the blocks that come back.

    *timeout* is a pair of seconds: for connecting, and for each wait for bytes.
    Raises `ChannelError` for an error that the channel tells, else a `NetworkError`.
    """
    tried = scope.doing = f"the channel {url}"
    try:
        uri = parse_uri(url)
        proxy = _proxy_for(url)
        tried = scope.doing = tried + through(proxy)
        with _connect(uri, proxy, tried, timeout[0], tls, scope) as sock:
            sock.settimeout(timeout[1])
            protocol = ClientProtocol(uri, max_size=_LARGEST_FRAME, logger=_silent)
            yield from _blocks(sock, protocol, message, url)
    except theirs.WebSocketException as error:
        raise translated(error, tried) from error
    except PymdcError:
        raise
    except ValueError as error:
        raise ConnectError(f"{tried}: it is not the URL of a channel ({error})") from error
    except TimeoutError as error:
        raise Timeout(f"{tried}: nothing came for {timeout[1]:g} s") from error
    except OSError as error:
        raise ConnectionLost(f"{tried}: it broke ({error})") from error
    finally:
        scope.release()


def translated(error: Exception, tried: str) -> NetworkError:
    """Return our exception for one of websockets'; *tried* says what was on its way."""
    for kind, ours, meaning in TRANSLATIONS:
        if isinstance(error, kind):
            return ours(f"{tried}: {meaning} ({error})")
    return NetworkError(f"{tried}: {error}")


def _proxy_for(url: str) -> Proxy | None:
    try:
        return proxy_for(url)
    except ValueError as error:
        raise ConnectError(f"the channel {url}: {error}") from None


def _connect(
    uri: WebSocketURI,
    proxy: Proxy | None,
    tried: str,
    timeout: float,
    tls: Callable[[], ssl.SSLContext],
    scope: Scope,
) -> socket.socket:
    try:
        sock = dial(uri.host, uri.port, timeout, scope, Tunnel(proxy, tls) if proxy else None)
        return secured(sock, tls(), uri.host) if uri.secure else sock
    except TimeoutError as error:
        raise ConnectTimeout(f"{tried}: no connection within {timeout:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"{tried}: {distrust(error)} ({error})") from error
    except OSError as error:
        raise ConnectError(
            f"{tried}: no connection could be made; does anything listen there? ({error})"
        ) from error


def _blocks(
    sock: socket.socket, protocol: ClientProtocol, message: Mapping[str, str], url: str
) -> Iterator[bytes]:
    protocol.send_request(protocol.connect())
    while protocol.close_rcvd is None:
        _send(sock, protocol)
        _receive(sock, protocol)
        for event in protocol.events_received():
            if isinstance(event, Response) and protocol.handshake_exc is None:
                protocol.send_text(json.dumps(dict(message)).encode())
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                raise _told(url, event.data)
            elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                yield bytes(event.data)
        _raise_broken(protocol, url)
    with suppress(OSError):
        _send(sock, protocol)
    if protocol.close_rcvd.code != _NORMAL:
        raise ConnectionLost(f"the channel {url}: it closed with code {protocol.close_rcvd.code}")


def _send(sock: socket.socket, protocol: ClientProtocol) -> None:
    for data in protocol.data_to_send():
        if data:
            sock.sendall(data)


def _receive(sock: socket.socket, protocol: ClientProtocol) -> None:
    data = sock.recv(_RECEIVE)
    if data:
        protocol.receive_data(data)
    else:
        protocol.receive_eof()


def _raise_broken(protocol: ClientProtocol, url: str) -> None:
    broken = protocol.handshake_exc or protocol.parser_exc
    if isinstance(broken, EOFError):
        raise ConnectionLost(f"the channel {url}: it closed before the shard was whole")
    if broken is not None:
        raise broken


def _told(url: str, data: bytes | bytearray | memoryview) -> ChannelError:
    try:
        told = json.loads(bytes(data))
        return ChannelError(url, int(told["code"]), str(told["message"]))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return ChannelError(url, 0, "an error that is not JSON with a code and a message")

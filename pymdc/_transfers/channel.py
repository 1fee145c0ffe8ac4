"""A shard's data channel: a WebSocket that takes one message and sends the shard.

Another protocol of channels is another `open_shard`.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import TypedDict

from websockets import exceptions as theirs
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from pymdc._calls.cancel_scope import Scope
from pymdc._calls.capture import without_frames
from pymdc._crypto.file_hash import Block, file_hash
from pymdc._http.connect import Tunnel, dial, distrust, secured
from pymdc._http.proxy import Proxy, proxy_for, through
from pymdc._http.retry import pauses
from pymdc._http.transport import Transport
from pymdc.exceptions import (
    CertificateError,
    ChannelError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GarbledAnswer,
    IntegrityError,
    NetworkError,
    PymdcError,
    Timeout,
)

_RECEIVE = 256 * 1024
_LARGEST_FRAME = 16 * 1024 * 1024
_NORMAL = 1000
_DONE = 200  # the code by which farmers of core 0.6 say that the shard was sent
_EMPTY = file_hash(b"")
_PORTS = {False: 80, True: 443}

_log = logging.getLogger("pymdc")

# At DEBUG a protocol writes its frames to the log, and the first one holds a token.
_silent = logging.Logger("pymdc.channel")
_silent.disabled = True

# Known to websockets from its release 17 on.
_TOO_MANY_FRAGMENTS = [getattr(theirs, name) for name in {"TooManyFragments"} & {*dir(theirs)}]

_NO_URL = "it is not the URL of a channel"
_OLD = "farmers older than core 0.3 close like this; their protocol is not spoken here"

# What websockets raises, what it becomes, and what it means; the first line that fits decides.
TRANSLATIONS: tuple[tuple[type[Exception], type[NetworkError], str], ...] = (
    (theirs.InvalidURI, ConnectError, _NO_URL),
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


class Pointer(TypedDict, total=False):
    """Where one shard is; the bridge of 2016 sent no ``size``."""

    hash: str
    token: str
    channel: str
    size: int


def open_shard(
    pointer: Pointer, transport: Transport, scope: Scope
) -> Generator[Block, None, None]:
    """Give the bytes of the shard behind *pointer* as they come, from its first to its last.

    It connects with the timeouts and certificates of *transport*, and ends when *scope* does.
    Raises what `Channel` raises.
    """
    with closing(_open_channel(pointer, transport, scope)) as channel:
        while not channel.ended:
            yield from channel.read()


def _open_channel(pointer: Pointer, transport: Transport, scope: Scope) -> Channel:
    """Connect to the channel of *pointer*, again where nothing was sent yet."""
    message = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
    for wait in pauses():
        try:
            return Channel(
                pointer["channel"], message, transport.timeout, lambda: transport.tls, scope
            )
        except ConnectError as error:
            scope.check()
            if wait is None or isinstance(error, CertificateError):
                raise
            _log.warning("%s; trying it again in %.3g s", without_frames(error), wait)
        scope.sleep(wait)
    raise AssertionError("the last try returns or raises")


class Channel:
    """An open channel, which is asked for one shard.

    *url* is the channel's, *message* what it is sent, and *timeout* a pair of seconds: for
    connecting, and for each wait for bytes.
    Each method raises `ChannelError` for an error that the channel tells, `IntegrityError` where
    it ends well without a byte of a shard that has some, else a `NetworkError`.
    """

    def __init__(
        self,
        url: str,
        message: Mapping[str, str],
        timeout: tuple[float, float],
        tls: Callable[[], ssl.SSLContext],
        scope: Scope,
    ) -> None:
        self.ended = False
        self._message, self._wait, self._scope = message, timeout[1], scope
        self._brought = False
        self._text: bytearray | None = None  # of a message of text that has begun
        uri = parsed(url)
        self.url = _shown(uri)
        self._tried = scope.doing = f"the channel {self.url}"
        with self._translating():
            proxy = _proxy_for(url, self._tried)
            self._tried = scope.doing = self._tried + through(proxy)
            self._sock = _connect(uri, proxy, self._tried, timeout[0], tls, scope)
            self._protocol = ClientProtocol(uri, max_size=_LARGEST_FRAME, logger=_silent)
            self._protocol.send_request(self._protocol.connect())
            try:
                self._sock.settimeout(self._wait)
                self._send()
            except BaseException:
                self.close()
                raise

    def read(self) -> list[Block]:
        """Wait for bytes, and return the blocks of the shard in them, which may be none."""
        with self._translating():
            data = self._sock.recv(_RECEIVE)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            blocks = [
                block for event in self._protocol.events_received() for block in self._take(event)
            ]
            self._brought = self._brought or any(blocks)
            self._check()
        return blocks

    def close(self) -> None:
        """Close the connection."""
        self._scope.release(self._sock)
        self._sock.close()
        for broken in (self._protocol.handshake_exc, self._protocol.parser_exc):
            if broken is not None:
                broken.__traceback__ = None  # which holds the protocol, and who called it

    def _take(self, event: object) -> Iterator[Block]:
        if isinstance(event, Response) and self._protocol.handshake_exc is None:
            self._protocol.send_text(json.dumps(dict(self._message)).encode())
            self._send()
        elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            self._hear(bytearray(), event)
        elif isinstance(event, Frame) and event.opcode is Opcode.CONT and self._text is not None:
            self._hear(self._text, event)
        elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
            yield event.data

    def _hear(self, text: bytearray, frame: Frame) -> None:
        """Add *frame* to a message of text; raise the error that the whole of it tells."""
        text += frame.data
        self._text = None if frame.fin else text
        if frame.fin and (error := _told(self.url, text, self._message["token"])):
            raise error

    def _check(self) -> None:
        broken = self._protocol.handshake_exc or self._protocol.parser_exc
        if isinstance(broken, EOFError):
            raise ConnectionLost(f"{self._tried}: it closed before the shard was whole")
        if broken is not None:
            raise broken
        closed = self._protocol.close_rcvd
        with suppress(OSError):
            self._send()
        if closed is not None and closed.code != _NORMAL:
            raise ConnectionLost(f"{self._tried}: it closed with code {closed.code}")
        self.ended = closed is not None
        if self.ended and not self._brought and self._message["hash"] != _EMPTY:
            raise IntegrityError(f"{self._tried}: it closed without a byte of the shard; {_OLD}")

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except theirs.WebSocketException as error:
            raise translated(error, self._tried) from error
        except PymdcError:
            raise
        except TimeoutError as error:
            raise Timeout(f"{self._tried}: nothing came for {self._wait:g} s") from error
        except OSError as error:
            raise ConnectionLost(f"{self._tried}: it broke ({error})") from error


def translated(error: Exception, tried: str) -> NetworkError:
    """Return our exception for one of websockets'; *tried* says what was on its way."""
    for kind, ours, meaning in TRANSLATIONS:
        if isinstance(error, kind):
            return ours(f"{tried}: {meaning} ({error})")
    return NetworkError(f"{tried}: {error}")


def parsed(url: str) -> WebSocketURI:
    """Return the parts of a channel's *url*, or raise."""
    try:
        return parse_uri(url)
    except (theirs.InvalidURI, ValueError):  # whose texts show the whole of it
        raise ConnectError(f"a pointer's channel: {_NO_URL}; expected ws://host:port") from None


def _shown(uri: WebSocketURI) -> str:
    """Return as much of *uri* as may be shown: no credentials, path or query."""
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    port = "" if uri.port == _PORTS[uri.secure] else f":{uri.port}"
    return f"{'wss' if uri.secure else 'ws'}://{host}{port}"


def _proxy_for(url: str, tried: str) -> Proxy | None:
    try:
        return proxy_for(url)
    except ValueError as error:
        raise ConnectError(f"{tried}: {error}") from None


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


def _told(url: str, data: bytes | bytearray, token: str) -> ChannelError | None:
    """Return the error that *data* tells, without the *token*, which it may repeat."""
    try:
        told = json.loads(bytes(data))
        code = int(told["code"])
        if code == _DONE:
            return None
        message = str(told["message"])
        if token:
            message = message.replace(token, "...")
        return ChannelError(url, code, message)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return ChannelError(url, 0, "an error that is not JSON with a code and a message")

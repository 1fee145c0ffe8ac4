"""The data channel: a WebSocket, on which pymdc sends one message and receives one shard.

To support another protocol of channels, replace `open_shard` and `parse_channel_url`.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, suppress
from typing import TypedDict

from websockets import exceptions as ws_exceptions
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import WebSocketURI, parse_uri

from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.file_hash import Block, file_hash
from pymdc._http.connection import connection_to
from pymdc._http.errors import CONNECTING, Row, map_exceptions
from pymdc._http.proxy import Proxy, proxy_for, through
from pymdc._http.retry import connect
from pymdc._http.transport import Transport
from pymdc.exceptions import (
    ChannelError,
    ConnectError,
    ConnectionLost,
    GarbledAnswer,
    IntegrityError,
    NetworkError,
    Timeout,
)

_RECEIVE = 256 * 1024
_LARGEST_FRAME = 16 * 1024 * 1024
_NORMAL = 1000
_DONE = 200  # storage nodes (farmers) of core 0.6 send this code after the shard
_EMPTY = file_hash(b"")

# At DEBUG websockets logs the frames, and the first frame holds a token.
_no_log = logging.Logger("pymdc.channel")
_no_log.disabled = True

# websockets has this exception from release 17 on.
_TOO_MANY_FRAGMENTS = [
    getattr(ws_exceptions, name) for name in {"TooManyFragments"} & {*dir(ws_exceptions)}
]

_TIMED_OUT = "nothing came for {read:g} s"
_NOT_A_URL = "it is not the URL of a channel"
_OLD_FARMER = "farmers older than core 0.3 close like this; their protocol is not spoken here"

_CLOSED = "it closed before the shard was whole"
_NO_PROXY = "the proxy could not be used; check its address ({reason})"

# What connecting, websockets and the socket raise, as rows for `map_exceptions`.
TRANSLATIONS: tuple[Row, ...] = (
    *CONNECTING,
    (ws_exceptions.InvalidURI, ConnectError, _NOT_A_URL),
    (ws_exceptions.InvalidProxy, ConnectError, _NO_PROXY),
    (ws_exceptions.ProxyError, ConnectError, _NO_PROXY),
    (
        ws_exceptions.InvalidHandshake,
        ConnectError,
        "no WebSocket answered; is something else listening there? ({reason})",
    ),
    (ws_exceptions.ConnectionClosed, ConnectionLost, _CLOSED + " ({reason})"),
    (ws_exceptions.ProtocolError, GarbledAnswer, "what came is not a WebSocket's ({reason})"),
    (ws_exceptions.PayloadTooBig, GarbledAnswer, "a frame is too large ({reason})"),
    *(
        (kind, GarbledAnswer, "a message has too many frames ({reason})")
        for kind in _TOO_MANY_FRAGMENTS
    ),
    (ws_exceptions.InvalidState, ConnectionLost, _CLOSED + " ({reason})"),
    (ws_exceptions.ConcurrencyError, NetworkError, "it was used twice at once ({reason})"),
    (EOFError, ConnectionLost, _CLOSED),
    (TimeoutError, Timeout, _TIMED_OUT),
    (OSError, ConnectionLost, "it broke ({reason})"),
)
_OTHER: Row = (ws_exceptions.WebSocketException, NetworkError, "{reason}")
_ROWS = (*TRANSLATIONS, _OTHER)


class Pointer(TypedDict, total=False):
    """Where one shard is; the bridge of 2016 sent no ``size``."""

    hash: str
    token: str
    channel: str
    size: int


def open_shard(
    pointer: Pointer, transport: Transport, scope: CancelScope
) -> Generator[Block, None, None]:
    """Yield the bytes of the shard that *pointer* names, in order, as they arrive.

    The connection uses the timeouts and certificates of *transport*, and is shut down if *scope*
    is cancelled or times out.
    Raises the exceptions that `Channel` raises.
    """
    with closing(_open_channel(pointer, transport, scope)) as channel:
        while not channel.ended:
            yield from channel.read()


def _open_channel(pointer: Pointer, transport: Transport, scope: CancelScope) -> Channel:
    message = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
    url, timeout = pointer["channel"], transport.timeout
    return connect(lambda: Channel(url, message, timeout, lambda: transport.tls, scope), scope)


class Channel:
    """An open channel, from which one shard is requested.

    *url* is the address of the channel, *message* the request, and *timeout* a pair of seconds:
    for connecting, and for each wait for bytes.
    Each method raises `ChannelError` if the channel reports an error, `IntegrityError` if the
    channel closes normally without a byte of a shard that is not empty, else a `NetworkError`.
    """

    def __init__(
        self,
        url: str,
        message: Mapping[str, str],
        timeout: tuple[float, float],
        tls: Callable[[], ssl.SSLContext],
        scope: CancelScope,
    ) -> None:
        self.ended = False
        self._message, self._timeout, self._scope = message, timeout, scope
        self._any_bytes = False
        self._text: bytearray | None = None  # the text message so far, until its last frame
        uri = parse_channel_url(url)
        self.url = _safe_url(uri)
        self._operation = scope.operation = f"the channel {self.url}"
        proxy = _proxy_for(url, self._operation)
        self._operation = scope.operation = self._operation + through(proxy)
        with self._mapped():
            connection = connection_to(uri.host, uri.port, tls, secure=uri.secure, proxy=proxy)
            connection.open(scope, timeout)
            self._sock = connection.sock
            self._protocol = ClientProtocol(uri, max_size=_LARGEST_FRAME, logger=_no_log)
            self._protocol.send_request(self._protocol.connect())
            try:
                self._sock.settimeout(timeout[1])
                self._send()
            except BaseException:
                self.close()
                raise

    def read(self) -> list[Block]:
        """Wait for bytes; return the blocks of the shard in them, possibly none."""
        with self._mapped():
            data = self._sock.recv(_RECEIVE)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            blocks = [
                block for event in self._protocol.events_received() for block in self._handle(event)
            ]
            self._any_bytes = self._any_bytes or any(blocks)
            self._check()
        return blocks

    def close(self) -> None:
        """Close the connection."""
        self._scope.detach(self._sock)
        self._sock.close()
        for broken in (self._protocol.handshake_exc, self._protocol.parser_exc):
            if broken is not None:
                broken.__traceback__ = None  # its frames hold the protocol and its callers

    def _handle(self, event: object) -> Iterator[Block]:
        if isinstance(event, Response) and self._protocol.handshake_exc is None:
            self._protocol.send_text(json.dumps(dict(self._message)).encode())
            self._send()
        elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            self._add_text(bytearray(), event)
        elif isinstance(event, Frame) and event.opcode is Opcode.CONT and self._text is not None:
            self._add_text(self._text, event)
        elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
            yield event.data

    def _add_text(self, text: bytearray, frame: Frame) -> None:
        """Add *frame* to the message *text*; raise the error that a whole message reports."""
        text += frame.data
        self._text = None if frame.fin else text
        if frame.fin and (error := _error_in(self.url, text, self._message["token"])):
            raise error

    def _check(self) -> None:
        broken = self._protocol.handshake_exc or self._protocol.parser_exc
        if broken is not None:
            raise broken
        closed = self._protocol.close_rcvd
        with suppress(OSError):
            self._send()
        if closed is not None and closed.code != _NORMAL:
            raise ConnectionLost(f"{self._operation}: it closed with code {closed.code}")
        self.ended = closed is not None
        if self.ended and not self._any_bytes and self._message["hash"] != _EMPTY:
            raise IntegrityError(
                f"{self._operation}: it closed without a byte of the shard; {_OLD_FARMER}"
            )

    def _send(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)

    def _mapped(self) -> AbstractContextManager[None]:
        connect, read = self._timeout
        return map_exceptions(_ROWS, self._operation, connect=connect, read=read)


def parse_channel_url(url: str) -> WebSocketURI:
    """Return the parts of a channel's *url*; `ConnectError` if it is not the URL of a WebSocket."""
    try:
        return parse_uri(url)
    except (ws_exceptions.InvalidURI, ValueError):  # their texts show the whole URL
        raise ConnectError(f"a pointer's channel: {_NOT_A_URL}; expected ws://host:port") from None


def _safe_url(uri: WebSocketURI) -> str:
    """Return *uri* without credentials, path and query, which may be secret."""
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    scheme, usual = ("wss", 443) if uri.secure else ("ws", 80)
    return f"{scheme}://{host}" if uri.port == usual else f"{scheme}://{host}:{uri.port}"


def _proxy_for(url: str, operation: str) -> Proxy | None:
    try:
        return proxy_for(url)
    except ValueError as error:
        raise ConnectError(f"{operation}: {error}") from None


def _error_in(url: str, data: bytes | bytearray, token: str) -> ChannelError | None:
    """Return the error that *data* reports, if any; *token* is removed from its text."""
    try:
        answer = json.loads(bytes(data))
        code = int(answer["code"])
        if code == _DONE:
            return None
        message = str(answer["message"])
        if token:
            message = message.replace(token, "...")
        return ChannelError(url, code, message)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return ChannelError(url, 0, "an error that is not JSON with a code and a message")

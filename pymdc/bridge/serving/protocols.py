"""The protocols: uvicorn's HTTP and WebSockets, with limits on what a client can make them hold.

A connection of HTTP answers one request after the other. What a client sends meanwhile stays
unparsed, and then unread. A client stalls if it sends or reads nothing, or too slowly.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import selectors
from typing import Any, NoReturn, cast

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from pymdc.bridge.serving.app import App
from pymdc.bridge.serving.proxies import is_host
from pymdc.bridge.serving.tls import SecureTransport
from pymdc.bridge.settings import (
    CHANNEL_PATIENCE_FACTOR,
    CLOSE_SECONDS,
    FRAMES_IN_TURN,
    FREE_CHUNKS,
    IDLE_CHECKS,
    MAX_FRAMES,
    MAX_HEAD,
    MAX_HEADERS,
    MIN_CHUNK,
    NEW_SECONDS,
    PARSED_AT_ONCE,
    PARSED_IN_TURN,
    ROOM_SECONDS,
    ROOM_SHARE,
)

_log = logging.getLogger("pymdc.bridge.channel")
_log.setLevel(logging.WARNING)  # at INFO there are three lines for each shard
_http_log = logging.getLogger("pymdc.bridge.http")
_http_log.setLevel(logging.ERROR)  # uvicorn's warnings do not say from which address
# The limits of a buffer that is full as soon as it has something. Not 0: in asyncio's TLS, an empty
# buffer would be full too.
FULL_AT_ONCE = 1, 0


class Config(uvicorn.Config):
    """The settings of uvicorn, and those of the protocols."""

    app: App
    patience: float  # seconds that a client may stall
    min_received: int  # bytes between two checks of a client that does not stall
    max_connections: int
    stopping = False
    told_full = False  # whether the log says that there are too many connections


class _Flow(FlowControl):
    held = False  # whether something is received that may not be parsed yet

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class _BoundedHTTP(HttpToolsProtocol):
    """HTTP with limits on heads and chunks; a request is parsed when the one before is answered."""

    config: Config
    flow: _Flow
    _unparsed = memoryview(b"")  # received, but not parsed yet
    _continue: asyncio.Handle | None = None  # of parsing, after other connections
    _head_size = 0  # bytes since the last whole head or piece of a body
    _head_begun = 0.0  # when the first of them was parsed
    _body_left = 0  # bytes of a body whose length is known
    _chunks = _chunked = 0  # pieces of a body whose length is not known, and their bytes
    _received = 0  # bytes of the body since the last check of a stall
    _last_used = 0.0
    _is_channel = False
    _refusal = ""  # what is wrong with a head that could be parsed

    def data_received(self, data: bytes) -> None:
        self._last_used = self.loop.time()
        self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
        self._parse()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._between_requests() and self.cycle.more_body:
            self.transport.close()  # it is still sending what was refused
        self._parse()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == MAX_HEADERS:
            self._refuse("The head has too many fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_size = 0
        self._received = self.config.min_received  # the next check is too early to judge the body
        is_websocket = self._get_upgrade() == b"websocket"
        if is_websocket and self.parser.get_method() != b"GET":
            self._refuse("A WebSocket begins with GET")
        if is_websocket and not self._between_requests():
            self._refuse("A WebSocket begins after the last answer")
        hosts = self._values(b"host")
        if len(hosts) > 1 or any(host and not is_host(host.decode("latin-1")) for host in hosts):
            self._refuse("The header Host is wrong")
        self._body_left = sum(map(int, self._values(b"content-length")))
        self._chunks = self._chunked = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_size = 0
        self._received += len(body)
        if self._body_left:
            self._body_left -= len(body)
        else:
            self._count_chunk(len(body))
        super().on_body(body)

    def _count_chunk(self, size: int) -> None:
        self._chunks += 1
        self._chunked += size
        if self._chunks > FREE_CHUNKS and self._chunked < MIN_CHUNK * self._chunks:
            self._refuse("The body has too many small chunks")

    def on_message_complete(self) -> None:
        self._body_left = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        msg = self._refusal or msg
        super().send_400_response(msg)
        self.config.app.refuse_head(self.client[0] if self.client else "-", msg)

    def _unsupported_upgrade_warning(self) -> None:
        # The request is answered, but the parser reads no other one after it.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _parse(self) -> None:
        """Parse what was received, up to the end of a request that has to be answered first.

        The parser cannot stop within a piece, so pieces are small unless a body is as long. After a
        few small ones it is the turn of other connections.
        """
        end = len(self._unparsed) - PARSED_IN_TURN
        while self._unparsed and self._may_parse():
            if not self._body_left and len(self._unparsed) <= end:
                self._cancel_continue()
                self._continue = self.loop.call_soon(self._parse)
                break
            if not self._head_size:
                self._head_begun = self.loop.time()
            size = max(PARSED_AT_ONCE, self._body_left)
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            self._head_size += len(piece)
            super().data_received(piece)  # type: ignore[arg-type]  # the parser takes any buffer
            if self._head_size > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("Request head is too large")
        if self._is_channel:
            return
        was_held, self.flow.held = self.flow.held, bool(self._unparsed)
        if self.flow.held:
            self.flow.pause_reading()
        elif was_held and (self.cycle is None or len(self.cycle.body) <= HIGH_WATER_LIMIT):
            self.flow.resume_reading()

    def _may_parse(self) -> bool:
        if self.transport.is_closing() or self._is_channel:
            return False
        return not self.pipeline and (self._between_requests() or self.cycle.more_body)

    def _cancel_continue(self) -> None:
        if self._continue is not None:
            self._continue.cancel()

    def _refuse(self, message: str) -> NoReturn:
        """Let the parser give up, whereupon 400 is sent with *message*."""
        self._refusal = message
        raise ValueError(message)

    def _values(self, wanted: bytes) -> list[bytes]:
        return [value for name, value in self.headers if name == wanted]

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


class _Farewell(asyncio.Protocol):
    """Gives up on a client that does not answer the end of TLS, for which asyncio may wait long."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _awaits_since: float | None = None  # since which check only this answer is missing
    _farewell_timer: asyncio.TimerHandle | None = None
    _stop_timer: asyncio.TimerHandle | None = None  # closes it, unless its client begins by then

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)
        if isinstance(self.transport, SecureTransport):
            self.transport.free()

    def _cancel_timers(self) -> None:
        for timer in self._farewell_timer, self._stop_timer:
            if timer is not None:
                timer.cancel()

    def _check_farewell(self) -> None:
        """Abort the connection if it awaits the farewell, and did so at an earlier check."""
        now = self.loop.time()
        if not (self.transport.is_closing() and self._all_sent()):
            self._awaits_since = None
        elif self._awaits_since is None:
            self._awaits_since = now
        elif now > self._awaits_since + CLOSE_SECONDS / 2:  # asyncio had its turn to send
            self.transport.abort()

    def _check_farewell_every(self, seconds: float) -> None:
        """Check now and every so many *seconds*, until the connection has ended."""
        if self._farewell_timer is not None:
            self._farewell_timer.cancel()
        self._check_farewell()
        self._farewell_timer = self.loop.call_later(seconds, self._check_farewell_every, seconds)

    def _all_sent(self) -> bool:
        """Return whether the system would take more; if so, asyncio has nothing left to send.

        asyncio can't be asked: from Python 3.11 on, a transport for TLS counts only what it has
        not encrypted yet.
        """
        with selectors.DefaultSelector() as selector:
            try:
                selector.register(self.transport.get_extra_info("socket"), selectors.EVENT_WRITE)
            except (OSError, ValueError):  # it is closed already
                return True
            return bool(selector.select(0))


class HTTPProtocol(_Farewell, _BoundedHTTP):
    """HTTP that gives up on a client that stalls, and makes room for other connections."""

    _unsent = math.inf  # bytes at the last check, unless all were sent since then
    _idle_checks = 0  # checks in a row that found the client stalled
    _running: RequestResponseCycle | None = None
    _may_ask = True  # whether the client may be sending a request although the bridge stops

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _http_log
        self.access_log = False  # its lines show the query, which may contain a token

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._make_room()
        if transport.get_extra_info("sslcontext"):
            transport = cast("asyncio.Transport", SecureTransport(transport))
        super().connection_made(transport)
        self.flow = _Flow(transport)
        # Writing is then paused until everything is sent, and the check sees what is not.
        transport.set_write_buffer_limits(*FULL_AT_ONCE)
        self._last_used = self._head_begun = self.loop.time()
        self._schedule_check()
        if self.config.stopping:  # it was accepted too late for uvicorn to close it
            self.shutdown()
        elif len(self.connections) > self.config.max_connections:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_check.cancel()
        self._cancel_continue()
        self._unparsed = memoryview(b"")
        if self._running is not None:  # uvicorn tells only the last request
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._last_used = self.loop.time()
        # If so, and this stays open, the head of the answer was sent before, without "close".
        self._may_ask = self.config.app.stopping
        super().on_response_complete()
        if self.config.stopping and not self._is_channel:
            self.shutdown()

    def resume_writing(self) -> None:
        self._unsent = math.inf
        super().resume_writing()

    def handle_websocket_upgrade(self) -> None:
        if not self.transport.is_closing():
            self._next_check.cancel()
            self._cancel_timers()
            self._is_channel = True  # another protocol has the transport from now on
            super().handle_websocket_upgrade()

    def shutdown(self) -> None:
        """Close the connection, but not while a request is answered or may be on its way."""
        if self._stop_timer is not None:
            self._stop_timer.cancel()
        if self._between_requests():  # else this is called again after the answer
            wait = self._last_used + NEW_SECONDS - self.loop.time()
            if wait > 0 and (self._may_ask or self._head_size):
                self._stop_timer = self.loop.call_later(wait, self.shutdown)
            else:
                self.transport.close()
        self._check_farewell_every(CLOSE_SECONDS)

    def room_rank(self) -> tuple[int, float] | None:
        """Return which connection is closed first to make room for another; None if it is busy.

        First those that are idle, then those whose head is not complete, then those that send
        nothing of a body; each time the one that has been so for longest.
        """
        if not self._between_requests():
            waits = self._waits_for_client() and self.loop.time() > self._last_used + ROOM_SECONDS
            return (2, self._last_used) if waits else None
        is_new = self.cycle is None and self.loop.time() < self._last_used + ROOM_SECONDS
        return (1, self._head_begun) if self._head_size or is_new else (0, self._last_used)

    def _make_room(self) -> None:
        """Close the connections that are idle longest if there are too many."""
        if len(self.connections) < self.config.max_connections:
            return
        if not self.config.told_full:
            _log.warning("there are %d connections, as many as may be", len(self.connections))
            self.config.told_full = True
        ranked = [
            (rank, number, other)
            for number, other in enumerate(self.connections)
            if isinstance(other, HTTPProtocol | ChannelProtocol) and (rank := other.room_rank())
        ]
        for *_, other in heapq.nsmallest(len(self.connections) // ROOM_SHARE + 1, ranked):
            self.connections.discard(other)
            other.transport.abort()

    def _schedule_check(self) -> None:
        delay = self.config.patience / IDLE_CHECKS
        self._next_check = self.loop.call_later(delay, self._check_idle)

    def _check_idle(self) -> None:
        """Give up on a client that stalls; a timer for each piece received would cost more."""
        self._check_farewell()
        unsent = self.transport.get_write_buffer_size()
        reads_nothing = unsent > max(0, self._unsent - self.config.min_received)
        self._unsent = unsent or math.inf
        enough = self._received >= self.config.min_received
        sends_nothing = self._waits_for_client() and (self._between_requests() or not enough)
        self._idle_checks = self._idle_checks + 1 if reads_nothing or sends_nothing else 0
        self._received = 0
        late = self._head_size and self.loop.time() > self._head_begun + self.config.patience
        if self._idle_checks > IDLE_CHECKS and reads_nothing:
            self.transport.abort()
        elif self._between_requests() and (late or self._idle_checks > IDLE_CHECKS):
            self.transport.close()
        elif self._idle_checks > IDLE_CHECKS:
            self.cycle.message_event.set()  # gives an empty piece, which `Body` refuses
        self._schedule_check()

    def _waits_for_client(self) -> bool:
        """Return whether it is the client's turn to send, and the bridge is ready to read."""
        if self._between_requests():  # uvicorn itself closes a kept connection that is unused
            return self._head_size > 0 or self.timeout_keep_alive_task is None
        reading_paused = self.flow.read_paused or self.cycle.waiting_for_100_continue
        return self.cycle.more_body and not reading_paused


class ChannelProtocol(_Farewell, WebSocketsSansIOProtocol):
    """A WebSocket that gives up on a client that reads nothing more, or begins nothing.

    It reads nothing while the client does not read, so that answers to pings do not pile up.
    It takes one message, and a client that sends frames without end is disconnected.
    It logs errors, but no frames: the first one contains a token.
    """

    config: Config
    _has_message = False
    _frames = 0
    _unparsed = memoryview(b"")
    _abort_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = _log
        self.conn.debug = False
        self._begun = self.loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Writing is then paused until everything is sent, the last frame and the close included.
        self.transport.set_write_buffer_limits(*FULL_AT_ONCE)
        self._check_farewell_every(self.config.patience / IDLE_CHECKS)
        if self.config.stopping:  # until now it was a connection without a request
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_abort()
        self.connections.add(self)  # uvicorn removes it, but it may have made room already
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
        self._parse()

    def handle_events(self) -> None:
        self._frames += len(self.conn.events)
        super().handle_events()
        if self._frames > MAX_FRAMES:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()
        # Not `close`, which waits until everything is sent.
        patience = CHANNEL_PATIENCE_FACTOR * self.config.patience
        self._cancel_abort()
        self._abort_timer = self.loop.call_later(patience, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_abort()
        super().resume_writing()
        self._parse()

    def send_receive_event_to_app(self) -> None:
        """Give the first message to the channel; those after it have no meaning."""
        if self._has_message:
            self.frames = []
            return
        self._has_message = True
        super().send_receive_event_to_app()

    async def receive(self) -> Any:
        """Return the next message, and read on if the client reads."""
        message = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self.read_paused = False
            self._parse()
        return message

    def room_rank(self) -> tuple[int, float] | None:
        """Return which channel is closed first to make room for another; None if it is busy."""
        waits = not self._has_message and self.loop.time() > self._begun + ROOM_SECONDS
        return (2, self._begun) if waits else None

    def _parse(self) -> None:
        """Parse a small piece of what was received; the next one when others had their turn."""
        if self._unparsed and self.writable.is_set() and not self.transport.is_closing():
            piece, self._unparsed = self._unparsed[:FRAMES_IN_TURN], self._unparsed[FRAMES_IN_TURN:]
            super().data_received(piece)  # type: ignore[arg-type]  # it is copied
            if self._unparsed:
                self.loop.call_soon(self._parse)
        if self._unparsed:
            self.transport.pause_reading()
        elif self.writable.is_set() and not self.read_paused:
            self.transport.resume_reading()

    def shutdown(self) -> None:
        wait = self._begun + NEW_SECONDS - self.loop.time()
        is_stalled = self._has_message and not self.writable.is_set()  # the grace is over
        if wait > 0 and not (is_stalled or self.close_sent):  # its message may be on its way
            self._stop_timer = self.loop.call_later(wait, self._shut_down_unless_begun)
        else:
            self._shut_down()

    def _shut_down_unless_begun(self) -> None:
        if not self._has_message:
            self._shut_down()

    def _shut_down(self) -> None:
        if not self.transport.is_closing():  # else the client has closed it
            super().shutdown()
        if not self.writable.is_set():
            self.transport.abort()
        self._check_farewell_every(CLOSE_SECONDS)

    def _cancel_abort(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()


def _tell_fault_of_client(record: logging.LogRecord) -> bool:
    """Make one line at INFO of a text that is not UTF-8: the fault is the client's."""
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        record.exc_info, record.levelno, record.levelname = None, logging.INFO, "INFO"
    return True


_log.addFilter(_tell_fault_of_client)
# The line of the request says why its response was cut off.
_http_log.addFilter(lambda record: "without completing response" not in record.getMessage())

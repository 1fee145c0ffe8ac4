"""The server: uvicorn on a thread of its own, with limits on heads, messages and stalls."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from pymdc.bridge.serving.app import App
from pymdc.bridge.serving.tls import Certificate, SecureListener
from pymdc.bridge.settings import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    CHANNEL_PATIENCE_FACTOR,
    CLEANUP_SECONDS,
    CLOSE_SECONDS,
    DESCRIPTORS_KEPT,
    IDLE_CHECKS,
    KEEP_ALIVE_SECONDS,
    MAX_CHANNEL_MESSAGE,
    MAX_CONNECTIONS,
    MAX_HEAD,
    MAX_PROBE_CONNECTIONS,
    MIN_BODY_RATE,
)

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

_log = logging.getLogger("pymdc.bridge.channel")
_log.setLevel(logging.WARNING)  # at INFO there are three lines for each shard
_STOP_CHECK = 0.05  # seconds between two looks for requests that are not done
_http_log = logging.getLogger("pymdc.bridge.http")
_http_log.setLevel(logging.ERROR)  # uvicorn's warnings do not say from which address


class _Config(uvicorn.Config):
    """The settings of uvicorn, and those of its protocols below."""

    app: App
    patience: float  # seconds that a client may stall
    min_received: int  # bytes of a body between two checks of a client that does not stall
    max_connections: int
    stopping = False
    told_full = False  # whether the log says that there are too many connections


class _HTTPProtocol(HttpToolsProtocol):
    """HTTP with limits on stalls and on the size of a head, which the parser does not limit.

    A client stalls if it sends or reads too slowly, too. A head has to be complete within the
    patience.
    """

    config: _Config
    _unparsed = 0  # bytes received since the last whole head or piece of a body
    _head_begun = 0.0  # when the first of them was received
    _received = 0  # bytes of the body since the last check
    _idle_checks = 0  # checks in a row that found the client stalled
    _last_used = 0.0
    _abort_timer: asyncio.TimerHandle | None = None
    _closing = False  # whether the last check has found that it awaits the farewell

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _http_log

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._make_room()
        super().connection_made(transport)
        self._last_used = self.loop.time()
        self._schedule_check()
        if self.config.stopping:  # it was accepted too late for uvicorn to close it
            self.shutdown()
        elif len(self.connections) > self.config.max_connections:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._next_check.cancel()
        self._cancel_abort()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._next_check.cancel()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        now = self.loop.time()
        if not self._unparsed:
            self._head_begun = now
        self._last_used = now
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("Request head is too large")

    def on_headers_complete(self) -> None:
        self._unparsed = 0
        self._received = self.config.min_received  # the next check is too early to judge the body
        if self._get_upgrade() == b"websocket" and self.parser.get_method() != b"GET":
            self.send_400_response("A WebSocket begins with GET")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        self._received += len(body)
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._abort_timer = self.loop.call_later(self.config.patience, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_abort()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self.config.app.refuse_head(self.client[0] if self.client else "-", msg)

    def shutdown(self) -> None:
        super().shutdown()
        if self._awaits_farewell():
            self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def is_idle(self) -> bool:
        """Say whether the connection waits for a request."""
        return self._between_requests() and not self._unparsed

    def _make_room(self) -> None:
        """Close the connection that is idle longest if there are too many."""
        if len(self.connections) < self.config.max_connections:
            return
        if not self.config.told_full:
            _log.warning("there are %d connections, as many as may be", len(self.connections))
            self.config.told_full = True
        idle = [
            other
            for other in self.connections
            if isinstance(other, _HTTPProtocol) and other.is_idle()
        ]
        if idle:
            oldest = min(idle, key=lambda other: other._last_used)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        # The request is answered, but the parser reads no other one after it.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _schedule_check(self) -> None:
        delay = self.config.patience / IDLE_CHECKS
        self._next_check = self.loop.call_later(delay, self._check_idle)

    def _check_idle(self) -> None:
        """Give up on a client that stalls; a timer for each piece received would cost more."""
        if self._awaits_farewell():
            if self._closing:
                self.transport.abort()
            self._closing = True
        enough = self._received >= self.config.min_received
        stalls = self._waits_for_client() and (self._between_requests() or not enough)
        self._idle_checks = self._idle_checks + 1 if stalls else 0
        self._received = 0
        if self._between_requests():
            late = self._unparsed and self.loop.time() > self._head_begun + self.config.patience
            if late or self._idle_checks > IDLE_CHECKS:
                self.transport.close()
        elif self._idle_checks > IDLE_CHECKS:
            self.cycle.message_event.set()  # gives an empty piece, which `Body` refuses
        self._schedule_check()

    def _awaits_farewell(self) -> bool:
        """Return whether the connection is closed except for the last word of a TLS client."""
        secure = self.scheme == "https"
        return secure and self.transport.is_closing() and not self.flow.write_paused

    def _waits_for_client(self) -> bool:
        """Return whether it is the client's turn to send, and the bridge is ready to read."""
        if self._between_requests():  # uvicorn itself closes a kept connection that is unused
            return self._unparsed > 0 or self.timeout_keep_alive_task is None
        reading_paused = self.flow.read_paused or self.cycle.waiting_for_100_continue
        return self.cycle.more_body and not reading_paused

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _cancel_abort(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()


class _ChannelProtocol(WebSocketsSansIOProtocol):
    """A WebSocket that gives up on a client that reads nothing more, or begins nothing.

    It reads nothing while the client does not read, so that answers to pings do not pile up.
    It logs errors, but no frames: the first one contains a token.
    """

    config: _Config
    _abort_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = _log
        self.conn.debug = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Writing is then paused until everything is sent, the last frame and the close included.
        # Not 0: TLS of asyncio would take an empty buffer for a full one.
        self.transport.set_write_buffer_limits(1, 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_abort()
        super().connection_lost(exc)

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
        if not self.read_paused:
            self.transport.resume_reading()

    def shutdown(self) -> None:
        super().shutdown()
        if not self.writable.is_set():  # the grace is over
            self.transport.abort()

    def _cancel_abort(self) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave one line of a fault of the client, such as a text that is not UTF-8."""
    record.exc_info = None
    return True


_log.addFilter(_without_traceback)


def _config(app: App, patience: float, most: int, **settings: Any) -> _Config:
    """Return the settings for *app*, with at *most* so many connections."""
    config = _Config(
        app,
        loop="asyncio",
        http=_HTTPProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # uvicorn would trust everybody on this machine; see `Proxies`
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        backlog=ACCEPTED_AT_ONCE,
        **settings,
    )
    config.load()
    config.patience = patience
    config.min_received = round(MIN_BODY_RATE * patience / IDLE_CHECKS)
    config.max_connections = most
    return config


class Server(uvicorn.Server):
    """Serves *app* on a thread.

    *grace* is the time in seconds for requests in flight when the server stops; *patience* is
    the time in seconds that a client may stall.
    With a *certificate*, connections begin with a TLS handshake.
    *own_port* is another application and its listener, which is served until the very end.
    The thread is not a daemon: it serves until it is stopped, also after the main thread has
    ended.
    """

    config: _Config

    def __init__(
        self,
        app: App,
        grace: float,
        patience: float,
        certificate: Certificate | None = None,
        own_port: tuple[App, socket.socket] | None = None,
    ) -> None:
        channels: dict[str, Any] = {
            "ws": _ChannelProtocol,
            "ws_max_size": MAX_CHANNEL_MESSAGE,
            "ws_per_message_deflate": False,
            "ws_ping_interval": None,  # a client that reads other shards first does not answer
        }
        super().__init__(_config(app, patience, max_connections(), **channels))
        self._certificate = certificate
        self._secure_listener: SecureListener | None = None
        self._own_port = own_port
        self._own_state = ServerState()
        self._channels = app.channels
        self._grace = grace
        self._patience = patience
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @contextmanager
    def serving(self, listener: socket.socket) -> Iterator[None]:
        """Serve on *listener* while the block runs, and until requests in flight are answered."""
        thread = threading.Thread(target=self._run_on, args=[listener], name="pymdc-bridge")
        thread.start()
        self._ready.wait()
        try:
            if not self.started:
                raise RuntimeError("the bridge did not start") from self._failure
            yield
        finally:
            self.should_exit = True
            thread.join()

    def connections(self) -> int:
        """Return how many connections are open, without those in their handshake."""
        return len(self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and set the event that says so."""
        listeners = sockets or []
        await super().startup([] if self._certificate else listeners)
        for listener in listeners:
            if self._certificate:
                make = partial(_HTTPProtocol, self.config, self.server_state, {})
                self._secure_listener = SecureListener(listener, self._certificate, make)
            listener.listen(BACKLOG)  # asyncio has set it to what it accepts at once
        if self._own_port:
            app, listener = self._own_port
            config = _config(app, self._patience, MAX_PROBE_CONNECTIONS, ws="none")
            make = partial(_HTTPProtocol, config, self._own_state, {})
            self._own_server = await asyncio.get_running_loop().create_server(make, sock=listener)
        self._ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: finish what is in flight within the grace, end the rest, and clean up."""
        self.config.stopping = True
        deadline = time.monotonic() + self._grace
        if self._secure_listener:
            self._secure_listener.close()
        for server in self.servers:
            server.close()
        await self._channels.finish(self._grace)  # the next step would abort those that send
        state = self.server_state
        for connection in [*state.connections]:
            connection.shutdown()
        deadline = max(deadline, time.monotonic() + CLOSE_SECONDS / 2)
        while (state.connections or state.tasks) and time.monotonic() < deadline:
            await asyncio.sleep(_STOP_CHECK)
        if tasks := [*state.tasks]:
            _log.warning("%d requests took longer than the grace, and were ended", len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)
        self._end_connections()

    def _end_connections(self) -> None:
        """End those that are left: a client reads nothing, or a scraper asks for the metrics."""
        if self._own_port:
            self._own_server.close()
        for connection in (*self.server_state.connections, *self._own_state.connections):
            connection.transport.abort()

    def _run_on(self, listener: socket.socket) -> None:
        try:
            self.run(sockets=[listener])
        except BaseException as error:  # noqa: BLE001  # raised again in the starting thread
            self._failure = error
        finally:
            self._ready.set()


def max_connections() -> int:
    """Return how many connections the limit on open files leaves room for."""
    if resource is None:
        return MAX_CONNECTIONS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, limit - DESCRIPTORS_KEPT))

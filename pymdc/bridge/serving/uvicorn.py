"""uvicorn on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from pymdc.bridge.serving.app import App
from pymdc.bridge.settings import (
    CHANNEL_PATIENCE_FACTOR,
    IDLE_CHECKS,
    KEEP_ALIVE_SECONDS,
    MAX_CHANNEL_MESSAGE,
    MAX_HEAD,
)

_log = logging.getLogger("pymdc.bridge.channel")
_log.setLevel(logging.WARNING)  # at INFO there are three lines for each shard


class _Config(uvicorn.Config):
    """The settings of uvicorn, and for how many seconds a client may stand still."""

    patience: float


class _Requests(HttpToolsProtocol):
    """HTTP, of which nothing may go on or stand still for ever: the parser sets no limit."""

    config: _Config
    _unfinished = 0  # bytes since the last head, or piece of a body
    _stood = 0  # looks in a row at which something was waited for, and nothing had come

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._looking.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._looking.cancel()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        self._stood = 0
        self._unfinished += len(data)
        super().data_received(data)
        if self._unfinished > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("Request head is too large")

    def on_headers_complete(self) -> None:
        self._unfinished = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        super().on_body(body)

    def _look_later(self) -> None:
        self._looking = self.loop.call_later(self.config.patience / IDLE_CHECKS, self._look)

    def _look(self) -> None:
        """Give up a client that stands still; a timer for each piece would cost too much."""
        self._stood = self._stood + 1 if self._waits() else 0
        if self._stood > IDLE_CHECKS:
            if self._between_requests():
                self.transport.close()
            else:
                self.cycle.message_event.set()  # gives an empty piece, which `Body` refuses
        self._look_later()

    def _waits(self) -> bool:
        """Say whether the client has to send; not while it is the bridge that is busy."""
        if self._between_requests():  # uvicorn itself ends a connection that is used no more
            return self._unfinished > 0 or self.timeout_keep_alive_task is None
        held_up = self.flow.read_paused or self.cycle.waiting_for_100_continue
        return self.cycle.more_body and not held_up

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


class _Channel(WebSocketsSansIOProtocol):
    """A WebSocket that gives up a client who takes nothing more.

    It logs what goes wrong: no frames, of which the first holds a token.
    """

    config: _Config
    _giving_up: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = self.conn.logger = _log
        self.conn.debug = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # So writing is paused until all is taken, the last frame and the goodbye too.
        self.transport.set_write_buffer_limits(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Not closed, which waits until all is taken.
        patience = CHANNEL_PATIENCE_FACTOR * self.config.patience
        self._giving_up = self.loop.call_later(patience, self.transport.abort)

    def resume_writing(self) -> None:
        self._go_on()
        super().resume_writing()

    def shutdown(self) -> None:
        super().shutdown()
        if not self.writable.is_set():  # the bridge has waited for as long as it does
            self.transport.abort()

    def _go_on(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()


class Server(uvicorn.Server):
    """Serves *app* on a thread; *grace* is in seconds, for what is in flight when it stops.

    *patience* is in seconds, too, for a client that stands still.
    The thread is no daemon: a bridge serves until it is closed, also when the main thread
    has ended.
    """

    config: _Config

    def __init__(self, app: App, grace: float, patience: float) -> None:
        super().__init__(
            _Config(
                app,
                loop="asyncio",
                http=_Requests,
                ws=_Channel,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                ws_max_size=MAX_CHANNEL_MESSAGE,
                ws_per_message_deflate=False,
                ws_ping_interval=None,  # who takes other shards first has no time to answer
            )
        )
        self.config.patience = patience
        self._channels = app.channels
        self._grace = grace
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    @contextmanager
    def on(self, listener: socket.socket) -> Iterator[None]:
        """Serve on *listener* until the block ends and what is in flight has been answered."""
        thread = threading.Thread(target=self._serve_on, args=[listener], name="pymdc-bridge")
        thread.start()
        self._ready.wait()
        try:
            if not self.started:
                raise RuntimeError("the bridge did not start") from self._failure
            yield
        finally:
            self.should_exit = True
            thread.join()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; channels at work come first, because uvicorn would cut them off."""
        deadline = time.monotonic() + self._grace
        for server in self.servers:
            server.close()
        await self._channels.finish(self._grace)
        self.config.timeout_graceful_shutdown = max(1, round(deadline - time.monotonic()))
        await super().shutdown(sockets)
        if self.server_state.tasks:  # cancelled, and not to be cancelled twice: they tidy up
            await asyncio.wait(self.server_state.tasks, timeout=self._grace)

    def _serve_on(self, listener: socket.socket) -> None:
        try:
            self.run(sockets=[listener])
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that starts
            self._failure = error
        finally:
            self._ready.set()

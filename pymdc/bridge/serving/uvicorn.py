"""The server: uvicorn on a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from pymdc.bridge.serving.app import App
from pymdc.bridge.serving.protocols import ChannelProtocol, Config, HTTPProtocol
from pymdc.bridge.settings import (
    ACCEPTED_AT_ONCE,
    BACKLOG,
    DESCRIPTORS_KEPT,
    IDLE_CHECKS,
    KEEP_ALIVE_SECONDS,
    MAX_CHANNEL_MESSAGE,
    MAX_CONNECTIONS,
    MIN_BODY_RATE,
)

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]


class Server(uvicorn.Server):
    """Serves *app* on a thread.

    *grace* is the time in seconds for requests in flight when the server stops; *patience* is
    the time in seconds that a client may stall.
    The thread is not a daemon: it serves until it is stopped, also after the main thread has
    ended.
    """

    config: Config

    def __init__(self, app: App, grace: float, patience: float) -> None:
        super().__init__(
            Config(
                app,
                loop="asyncio",
                http=HTTPProtocol,
                ws=ChannelProtocol,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                backlog=ACCEPTED_AT_ONCE,
                ws_max_size=MAX_CHANNEL_MESSAGE,
                ws_per_message_deflate=False,
                ws_ping_interval=None,  # a client that reads other shards first does not answer
            )
        )
        self.config.patience = patience
        self.config.min_received = round(MIN_BODY_RATE * patience / IDLE_CHECKS)
        self.config.max_connections = max_connections()
        self._channels = app.channels
        self._grace = grace
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and set the event that says so."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(BACKLOG)  # asyncio has set it to what it accepts at once
        self._ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; wait for channels first, because uvicorn would abort them."""
        self.config.stopping = True
        deadline = time.monotonic() + self._grace
        for server in self.servers:
            server.close()
        await self._channels.finish(self._grace)
        self.config.timeout_graceful_shutdown = max(1, round(deadline - time.monotonic()))
        await super().shutdown(sockets)
        if self.server_state.tasks:  # they were cancelled, and have to clean up
            await asyncio.wait(self.server_state.tasks, timeout=self._grace)

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

"""The server: uvicorn on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from pymdc.bridge.serving.app import App
from pymdc.bridge.serving.listeners import ignore_new_connections
from pymdc.bridge.serving.protocols import ChannelProtocol, Config, HTTPProtocol
from pymdc.bridge.serving.tls import Certificate, SecureListener
from pymdc.bridge.settings import (
    ACCEPTED_AT_ONCE,
    ARRIVAL_SECONDS,
    BACKLOG,
    CLEANUP_SECONDS,
    CLOSE_SECONDS,
    DESCRIPTORS_KEPT,
    IDLE_CHECKS,
    KEEP_ALIVE_SECONDS,
    MAX_CHANNEL_MESSAGE,
    MAX_CONNECTIONS,
    MAX_PROBE_CONNECTIONS,
    MIN_BODY_RATE,
    SETTLE_SECONDS,
    TICK_SECONDS,
)

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

_log = logging.getLogger("pymdc.bridge")


def _config(app: App, patience: float, most: int, **settings: Any) -> Config:
    """Return the settings for *app*, with at *most* so many connections."""
    config = Config(
        app,
        loop="asyncio",
        http=HTTPProtocol,
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


class _Members(set[Any]):
    """Connections or tasks; *left* is set whenever one of them leaves."""

    def __init__(self, left: asyncio.Event) -> None:
        super().__init__()
        self._left = left

    def discard(self, member: Any) -> None:
        super().discard(member)
        self._left.set()

    def remove(self, member: Any) -> None:
        super().remove(member)
        self._left.set()


class Server(uvicorn.Server):
    """Serves *app* on a thread.

    *grace* is the time in seconds for requests in flight when the server stops; *patience* is
    the time in seconds that a client may stall.
    With a *certificate*, connections begin with a TLS handshake.
    *own_port* is another application and its listener, which is served until the very end.
    The thread is not a daemon: it serves until it is stopped, also after the main thread has
    ended.
    """

    config: Config

    def __init__(
        self,
        app: App,
        grace: float,
        patience: float,
        certificate: Certificate | None = None,
        own_port: tuple[App, socket.socket] | None = None,
    ) -> None:
        channels: dict[str, Any] = {
            "ws": ChannelProtocol,
            "ws_max_size": MAX_CHANNEL_MESSAGE,
            "ws_per_message_deflate": False,
            "ws_ping_interval": None,  # a client that reads other shards first does not answer
        }
        super().__init__(_config(app, patience, max_connections(), **channels))
        self._make_protocol = partial(HTTPProtocol, self.config, self.server_state, {})
        self._certificate = certificate
        self._secure_listener: SecureListener | None = None
        self._own_port = own_port
        self._own_state = ServerState()
        self._channels = app.channels
        self._grace = grace
        self._patience = patience
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = asyncio.Event()
        self._left = asyncio.Event()
        self.server_state.connections = _Members(self._left)
        self.server_state.tasks = _Members(self._left)
        self._failure: BaseException | None = None

    @contextmanager
    def serving(self, listener: socket.socket) -> Iterator[None]:
        """Serve on *listener* while the block runs, and until requests in flight are answered."""
        thread = threading.Thread(target=self._run_on, args=[listener], name="pymdc-bridge")
        thread.start()
        self._ready.wait()
        try:
            if self._failure or not self.started:
                raise RuntimeError("the bridge did not start") from self._failure
            yield
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """Begin to stop."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._stopped.set)

    def connections(self) -> int:
        """Return how many connections are open, without those in their handshake."""
        return len(self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and set the event that says so."""
        self._loop = asyncio.get_running_loop()
        listeners = sockets or []
        await super().startup([] if self._certificate else listeners)
        for listener in listeners:
            if self._certificate:
                self._secure_listener = SecureListener(
                    listener, self._certificate, self._make_protocol
                )
            listener.listen(BACKLOG)  # asyncio has set it to what it accepts at once
        if self._own_port:
            app, listener = self._own_port
            config = _config(app, self._patience, MAX_PROBE_CONNECTIONS, ws="none")
            make = partial(HTTPProtocol, config, self._own_state, {})
            self._own_server = await self._loop.create_server(make, sock=listener)
        self._ready.set()

    async def main_loop(self) -> None:
        """Serve until `stop`, which uvicorn itself would see up to 0.1 seconds later."""
        while not await self.on_tick(0):  # it makes the header Date
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: finish what is in flight within the grace, end the rest, and clean up."""
        self.config.stopping = True
        deadline = time.monotonic() + self._grace
        if self._secure_listener:
            self._secure_listener.close()
        for server, listener in zip(self.servers, sockets or [], strict=False):
            await self._close_main(server, listener)
        await self._channels.finish(self._grace)  # the next step would abort those that send
        state = self.server_state
        for connection in [*state.connections]:
            connection.shutdown()
        seconds = max(deadline - time.monotonic(), CLOSE_SECONDS / 2)
        await self._wait_until_none_is_left(seconds)
        if state.tasks:
            _log.warning("%d requests took longer than the grace, and are ended", len(state.tasks))
            await self._end_requests()
        await self._end_connections()
        # Requests see that their connection has ended.
        await self._wait_until_none_is_left(SETTLE_SECONDS)

    async def _close(self, server: asyncio.Server) -> None:
        """Close the listeners of *server*, when the connections that it accepted are known.

        asyncio would forget them, and never close them.
        """
        with suppress(NotImplementedError):  # Windows
            for listener in server.sockets:
                asyncio.get_running_loop().remove_reader(listener.fileno())
        if others := asyncio.all_tasks() - {asyncio.current_task()} - self.server_state.tasks:
            await asyncio.wait(others, timeout=SETTLE_SECONDS)
        server.close()

    async def _close_main(self, server: asyncio.Server, listener: socket.socket) -> None:
        """Close *server* and its *listener*, and serve the connections that are in its queue.

        The system would reset them, although their requests may have been sent already.
        """
        queued: list[socket.socket] = []
        listener = listener.dup()
        await self._close(server)
        ignore_new_connections(listener)
        await asyncio.sleep(ARRIVAL_SECONDS)
        with listener, suppress(OSError):
            while len(queued) < BACKLOG:
                queued.append(listener.accept()[0])
        for connection in queued:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make_protocol, connection
            )

    async def _wait_until_none_is_left(self, seconds: float) -> None:
        """Wait until all connections and requests have ended, for at most so many *seconds*."""
        deadline = time.monotonic() + seconds
        while self.server_state.connections or self.server_state.tasks:
            self._left.clear()
            try:
                await asyncio.wait_for(self._left.wait(), deadline - time.monotonic())
            except asyncio.TimeoutError:
                return

    async def _end_requests(self) -> None:
        for connection in self.server_state.connections:
            if isinstance(connection, HTTPProtocol) and connection.flow.write_paused:
                connection.transport.abort()  # no answer can be sent
        await self._wait_until_none_is_left(SETTLE_SECONDS)
        if tasks := [*self.server_state.tasks]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLEANUP_SECONDS)

    async def _end_connections(self) -> None:
        """End those that are left: a client reads nothing, or a scraper asks for the metrics."""
        if self._own_port:
            await self._close(self._own_server)
        for connection in (*self.server_state.connections, *self._own_state.connections):
            connection.transport.abort()

    def _run_on(self, listener: socket.socket) -> None:
        try:
            self.run(sockets=[listener])
        except BaseException as error:  # noqa: BLE001  # raised again in the starting thread
            if self._ready.is_set():
                _log.critical("the bridge stopped because of an error", exc_info=error)
            self._failure = error
        finally:
            self._ready.set()


def raise_descriptor_limit() -> None:
    """Allow as many open files as the bridge has connections at most, if the system lets it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + DESCRIPTORS_KEPT
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def max_connections() -> int:
    """Return how many connections the limit on open files leaves room for."""
    if resource is None:
        return MAX_CONNECTIONS
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, limit - DESCRIPTORS_KEPT))

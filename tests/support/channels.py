"""Fake channels, and pointers to them."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from servers import RawServer, read_request, written
from websockets.sync.server import ServerConnection, serve

import pymdc
from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.file_hash import file_hash
from pymdc._transfers.channel import open_shard

DATA = b"a shard of a file"
HASH = file_hash(DATA)

ChannelHandler = Callable[[ServerConnection], None]

# websockets logs what it receives; tests that read the client's log must not see that.
_silent = logging.Logger("channels")
_silent.disabled = True


@contextmanager
def websocket_port(handle: ChannelHandler, port: int = 0, **options: Any) -> Iterator[int]:
    """Serve WebSockets with *handle*, yield the port, and close everything at the end."""
    with serve(handle, "127.0.0.1", port, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()
    for end in (server.shutdown_watcher, server.shutdown_notifier):
        if isinstance(end, int):  # up to websockets 16 they stay open
            os.close(end)


@contextmanager
def websocket(handle: ChannelHandler, reads_request: bool = False) -> Iterator[str]:
    """Serve WebSockets with *handle*, and yield the URL.

    The client's request is read first, or by *handle* itself if it *reads_request*.
    """

    def read_then_handle(connection: ServerConnection) -> None:
        connection.recv()
        handle(connection)

    with websocket_port(handle if reads_request else read_then_handle, logger=_silent) as port:
        yield f"ws://127.0.0.1:{port}"


@contextmanager
def pointer_server(pointers: Any) -> Iterator[str]:
    """Answer each request with *pointers*, and yield the endpoint."""
    answer = written("200 OK", json.dumps(pointers).encode())

    # It keeps the connection: one that it closed would now and then lose the next request, which
    # is not sent again, since it may have spent its token.
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(answer)

    with RawServer(handle) as server:
        yield server.endpoint


def pointer(channel: str, name: str = HASH) -> dict[str, str]:
    """Return a pointer to the shard *name* on *channel*."""
    return {"hash": name, "token": "secret-token", "operation": "PULL", "channel": channel}


def send_shard(connection: ServerConnection) -> None:
    """Send the shard in blocks of five bytes."""
    for offset in range(0, len(DATA), 5):
        connection.send(DATA[offset : offset + 5])


def blocks(client: pymdc.Client, pointer: Any) -> Iterator[Any]:
    """Yield the blocks of the shard that *pointer* names."""
    scope = CancelScope()
    with closing(open_shard(pointer, client.transport, scope)) as shard:
        try:
            yield from shard
        finally:
            scope.detach()

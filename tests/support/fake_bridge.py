"""A fake bridge that serves the shards of one file, and fails if a test wants it to."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from channels import websocket
from modes import PATIENCE, Ask
from servers import RawServer, read_request, written
from websockets.sync.server import ServerConnection

import pymdc
from pymdc._crypto.file_hash import file_hash

SHARD = 4096
DATA = random.Random(4).randbytes(10 * SHARD + 100)
SHARDS = [DATA[offset : offset + SHARD] for offset in range(0, len(DATA), SHARD)]
HASH = file_hash(DATA)

ShardHandler = Callable[[ServerConnection], object]


class FakeBridge:
    """Serves the shards of `DATA`.

    Its pointers have a hash, a token, a channel and the other *fields*, by default the size.
    ``channel`` is the URL that the pointers name.
    ``handlers`` replace, by a shard's number, the first response to a request for that shard.
    ``refusal``, if set, is answered instead of pointers from the second request for them on.
    ``requested`` are the numbers of the shards requested, ``most_at_once`` how many of them were
    served at the same time, and ``pointer_requests`` counts the answers with pointers.
    """

    def __init__(self, *fields: str) -> None:
        self.handlers: dict[int, ShardHandler] = {}
        self.refusal = b""
        self.requested: list[int] = []
        self.most_at_once = self.pointer_requests = 0
        self.endpoint = self.channel = ""
        self._fields = {"token", "channel", *(fields or ("size",))}
        self._current = 0
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def __enter__(self) -> FakeBridge:
        self.channel = self._stack.enter_context(websocket(self._serve_shard, reads_request=True))
        self.endpoint = self._stack.enter_context(RawServer(self._answer)).endpoint
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def _answer(self, connection: socket.socket) -> None:
        while head := read_request(connection)[0]:
            if head.startswith(b"POST"):
                answer: Any = {"token": "t"}
            elif self.pointer_requests and self.refusal:
                connection.sendall(self.refusal)
                continue
            else:
                self.pointer_requests += 1
                answer = [self._pointer(number) for number in range(len(SHARDS))]
            connection.sendall(written("200 OK", json.dumps(answer).encode()))

    def _pointer(self, number: int) -> dict[str, Any]:
        whole = {"size": len(SHARDS[number]), "token": str(number), "channel": self.channel}
        whole["operation"] = "PULL"
        return {"hash": file_hash(SHARDS[number])} | {key: whole[key] for key in self._fields}

    def _serve_shard(self, connection: ServerConnection) -> None:
        number = int(json.loads(connection.recv())["token"])
        with self._lock:
            self.requested.append(number)
            self._current += 1
            self.most_at_once = max(self.most_at_once, self._current)
            handle = self.handlers.pop(number, None)
        if handle is None:
            connection.send(SHARDS[number])
        else:
            handle(connection)
        with self._lock:
            self._current -= 1


def refuse(connection: ServerConnection) -> None:
    """Refuse the token of the pointer."""
    connection.send('{"code": 400, "message": "The supplied token is not accepted"}')


def send_damaged(connection: ServerConnection) -> None:
    """Send zeros instead of the shard."""
    connection.send(bytes(SHARD))


def drop(connection: ServerConnection) -> None:
    """Send a part of the shard and close the connection."""
    connection.send(bytes(10))
    connection.socket.shutdown(socket.SHUT_RDWR)


def download(ask: Ask, fake: FakeBridge, to: Any, token: str | None = None, **more: Any) -> Any:
    channels = more.pop("channels", 4)
    with pymdc.Client(fake.endpoint, timeout=(5, PATIENCE), channels=channels) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        return ask(files.download, HASH, token, to=to, **more)


def part_path(folder: Path) -> Path:
    return folder / f".pymdc-{HASH}.part"

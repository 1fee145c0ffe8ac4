"""A proxy in front of the bridge that breaks connections."""

from __future__ import annotations

import re
import socket
import threading

from servers import RawServer, read_request

from pymdc.bridge import Bridge

UNREAD = "before a byte is read"
HEAD = "after the head"
FORWARDED = "after the bridge has it all"
ANSWERING = "in the middle of the answer"
STAGES = [UNREAD, HEAD, FORWARDED, ANSWERING]
BUSY = "Retry-After: "


class FaultyProxy(RawServer):
    """Forwards requests to *bridge*; *stages* say at which stage to break each request.

    A request with an empty stage, or after the last stage, is forwarded whole.
    If a stage begins with `BUSY`, the answer is 503 with that header.
    ``heads`` are the parts of the heads of all requests that were read.
    """

    def __init__(self, bridge: Bridge, *stages: str) -> None:
        self._port = int(bridge.endpoint.rpartition(":")[2])
        self._stages = list(stages)
        self._lock = threading.Lock()
        self.heads: list[bytes] = []
        super().__init__(self._relay)

    def __enter__(self) -> FaultyProxy:
        return self

    @property
    def methods(self) -> list[str]:
        """The methods of all requests so far."""
        return [head.split()[0].decode() for head in self.heads]

    def _relay(self, connection: socket.socket) -> None:
        while self._relay_one(connection):
            pass

    def _relay_one(self, connection: socket.socket) -> bool:
        # Not read, so that closing the connection resets it.
        head = connection.recv(65536, socket.MSG_PEEK)
        if not head:
            return False
        stage = self._next_stage()
        if stage == UNREAD:
            self.heads.append(head)
            return False
        if stage == HEAD:
            self.heads.append(read_head(connection))
            return False
        head, body = read_request(connection)
        self.heads.append(head)
        if stage.startswith(BUSY):
            connection.sendall(
                f"HTTP/1.1 503 Busy\r\n{stage}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            return True
        if len(body) < length(head):
            return False
        answer = self._forward(head + b"\r\n\r\n" + body)
        if stage:
            connection.sendall(half(answer) if stage == ANSWERING else b"")
            return False
        connection.sendall(answer)
        return True

    def _next_stage(self) -> str:
        with self._lock:
            return self._stages.pop(0) if self._stages else ""

    def _forward(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self._port)) as upstream:
            upstream.sendall(request)
            return b"\r\n\r\n".join(read_request(upstream))


def length(head: bytes) -> int:
    """Return the Content-Length in *head*."""
    found = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    return int(found[1]) if found else 0


def read_head(connection: socket.socket) -> bytes:
    """Read a head byte by byte, so that the body stays unread."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return head


def half(answer: bytes) -> bytes:
    """Return the head and half of the body; without a body, less than the status line."""
    head, end, body = answer.partition(b"\r\n\r\n")
    return head + end + body[: len(body) // 2] if body else head[:10]

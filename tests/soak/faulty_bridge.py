"""A fake bridge that answers correctly about every second time, and else fails in many ways."""

from __future__ import annotations

import gzip
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from servers import RawServer, read_request

from pymdc._crypto.file_hash import file_hash

DATA = b"what is stored" * 1_000
GAP = 0.05  # seconds for which connections are refused
DRIP = 0.1  # seconds between two bytes

Fault = Callable[[socket.socket, bytes], bool]


def answer_to(head: bytes, pointers: object) -> bytes:
    """Return an answer with the fields that the client needs; *pointers* for a download."""
    method, path, _ = head.split(b" ", 2)
    body: object = {"id": "i", "email": "e", "key": "k", "hash": file_hash(DATA), "token": "t" * 64}
    if method == b"GET" and not path.startswith((b"/activations", b"/buckets/b?")):
        body = pointers if path.startswith(b"/buckets/b/files/") else []
    return written("200 OK", b"" if method == b"DELETE" else json.dumps(body).encode())


def written(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def sending(answer: bytes, *, stays: bool = True) -> Fault:
    """Return a fault that sends *answer* and keeps the connection open if it *stays*."""

    def send(connection: socket.socket, _good: bytes) -> bool:
        connection.sendall(answer)
        return stays

    return send


def answer(connection: socket.socket, good: bytes) -> bool:
    connection.sendall(good)
    return True


def close(_connection: socket.socket, _good: bytes) -> bool:
    return False


def reset(connection: socket.socket, _good: bytes) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return False


def truncate_head(connection: socket.socket, good: bytes) -> bool:
    connection.sendall(good[:20])
    return False


def truncate_body(connection: socket.socket, good: bytes) -> bool:
    connection.sendall(good[:-1])
    return False


def stall(connection: socket.socket, _good: bytes) -> bool:
    while connection.recv(65536):
        pass
    return False


HTML = b"<html><body>a proxy's own page</body></html>"
ERROR = b'{"error":"Internal error"}'
REASONS = {"500": "Internal Server Error", "502": "Bad Gateway"}

REFUSES = "refuses connections"
UNREAD = "resets before reading"
DRIPS = "drips"

# Each fault with its weight in the random choice.
FAULTS: dict[str, tuple[int, Fault]] = {
    "answers": (500, answer),
    REFUSES: (5, answer),
    UNREAD: (40, reset),
    DRIPS: (2, answer),
    "closes": (40, close),
    "resets after reading": (40, reset),
    "truncates the head": (30, truncate_head),
    "truncates the body": (30, truncate_body),
    "truncates a chunk": (
        20,
        sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99\r\n[1", stays=False),
    ),
    "stalls": (10, stall),
    "HTML": (20, sending(written("200 OK", HTML))),
    "HTML 404": (20, sending(written("404 Not Found", HTML))),
    "HTML 500": (20, sending(written("500 Internal Server Error", HTML))),
    "JSON 500": (20, sending(written("500 Internal Server Error", ERROR))),
    "HTML 502": (20, sending(written("502 Bad Gateway", HTML))),
    "503": (40, sending(written("503 Busy", HTML, "Retry-After: 0"))),
    "503, JSON": (20, sending(written("503 Busy", ERROR, "Retry-After: 0"))),
    "503, nonsense": (10, sending(written("503 Busy", ERROR, "Retry-After: \u00b2"))),
    "stale nonce": (
        30,
        sending(written("401 Unauthorized", b'{"error":"Invalid nonce supplied"}')),
    ),
    "spent token": (
        20,
        sending(written("401 Unauthorized", b'{"error":"Invalid or expired token"}')),
    ),
    "redirect": (10, sending(written("302 Found", b"", "Location: http://127.0.0.1:1/"))),
    "bad gzip": (20, sending(written("200 OK", b"no gzip", "Content-Encoding: gzip"))),
    "cut gzip": (
        15,
        sending(written("200 OK", gzip.compress(b"[]" * 99)[:-9], "Content-Encoding: gzip")),
    ),
    "length too long": (20, sending(written("200 OK", b"[1]", length=99), stays=False)),
    "length too short": (
        15,
        sending(written("200 OK", b"[1]HTTP/1.1 200 OK\r\n\r\n[6]", length=3)),
    ),
    "length beyond memory": (10, sending(written("200 OK", b"[]", length=10**14), stays=False)),
    "chunk below zero": (
        10,
        sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n[]", stays=False),
    ),
    "length no number": (
        10,
        sending(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n[]", stays=False),
    ),
    "not HTTP": (15, sending(b"220 smtp.example.com ESMTP\r\n", stays=False)),
}


class FaultyBridge(RawServer):
    """Answers each request with a random one of the `FAULTS`; ``counts`` has the number of each.

    *seed* determines the choices; *pointers* are the pointers of every file.
    """

    def __init__(self, seed: int, pointers: object = ()) -> None:
        self._pointers = pointers
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._choosing = threading.Lock()
        self._over = threading.Event()
        self._reopening = threading.Lock()
        super().__init__(self._answer_or_fail)

    def __enter__(self) -> FaultyBridge:
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        with self._reopening:  # from here on the port is not opened again
            pass
        super().__exit__(None, None, None)

    def _accept(self) -> None:
        while not self._over.is_set():
            super()._accept()
            with self._reopening:
                self._reopen()

    def _reopen(self) -> None:
        self._socket.close()
        while not self._over.wait(GAP):
            with suppress(OSError):
                self._socket = socket.create_server(("127.0.0.1", self.port))
                return

    def _answer_or_fail(self, connection: socket.socket) -> None:
        while connection.recv(1, socket.MSG_PEEK):
            name = self._choose()
            if name == REFUSES:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            head = b"" if name == UNREAD else read_request(connection)[0]
            good = answer_to(head, self._pointers) if head else b""
            if name == DRIPS:
                self._drip(connection, good)
            elif not FAULTS[name][1](connection, good):
                return

    def _choose(self) -> str:
        with self._choosing:
            weights = [weight for weight, _ in FAULTS.values()]
            (name,) = self._random.choices(list(FAULTS), weights)
            self.counts[name] += 1
            return name

    def _drip(self, connection: socket.socket, answer: bytes) -> None:
        for number in answer:
            connection.sendall(bytes([number]))
            self._over.wait(DRIP)

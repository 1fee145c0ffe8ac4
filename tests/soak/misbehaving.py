"""A bridge that answers well about every other time, and else does whatever servers do."""

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
    """Return what a bridge would answer, with *pointers* for a download: enough to go on."""
    method, path, _ = head.split(b" ", 2)
    body: object = {"id": "i", "email": "e", "key": "k", "hash": file_hash(DATA), "token": "t" * 64}
    if method == b"GET" and not path.startswith((b"/activations", b"/buckets/b?")):
        body = pointers if path.startswith(b"/buckets/b/files/") else []
    return written("200 OK", b"" if method == b"DELETE" else json.dumps(body).encode())


def written(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def says(answer: bytes, *, stays: bool = True) -> Fault:
    """Answer with *answer*, and keep the connection or close it."""

    def say(connection: socket.socket, _good: bytes) -> bool:
        connection.sendall(answer)
        return stays

    return say


def answers(connection: socket.socket, good: bytes) -> bool:
    connection.sendall(good)
    return True


def closes(_connection: socket.socket, _good: bytes) -> bool:
    return False


def resets(connection: socket.socket, _good: bytes) -> bool:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return False


def truncates_the_head(connection: socket.socket, good: bytes) -> bool:
    connection.sendall(good[:20])
    return False


def truncates_the_body(connection: socket.socket, good: bytes) -> bool:
    connection.sendall(good[:-1])
    return False


def stalls(connection: socket.socket, _good: bytes) -> bool:
    while connection.recv(65536):
        pass
    return False


HTML = b"<html><body>a proxy's own page</body></html>"
ERROR = b'{"error":"Internal error"}'
REASONS = {"500": "Internal Server Error", "502": "Bad Gateway"}

REFUSES = "refuses connections"
UNREAD = "resets before reading"
DRIPS = "drips"

# What is done with a request, and its weight among the others.
FAULTS: dict[str, tuple[int, Fault]] = {
    "answers": (500, answers),
    REFUSES: (5, answers),
    UNREAD: (40, resets),
    DRIPS: (2, answers),
    "closes": (40, closes),
    "resets after reading": (40, resets),
    "truncates the head": (30, truncates_the_head),
    "truncates the body": (30, truncates_the_body),
    "truncates a chunk": (
        20,
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99\r\n[1", stays=False),
    ),
    "stalls": (10, stalls),
    "HTML": (20, says(written("200 OK", HTML))),
    "HTML 404": (20, says(written("404 Not Found", HTML))),
    "HTML 500": (20, says(written("500 Internal Server Error", HTML))),
    "JSON 500": (20, says(written("500 Internal Server Error", ERROR))),
    "HTML 502": (20, says(written("502 Bad Gateway", HTML))),
    "503": (40, says(written("503 Busy", HTML, "Retry-After: 0"))),
    "503, JSON": (20, says(written("503 Busy", ERROR, "Retry-After: 0"))),
    "503, nonsense": (10, says(written("503 Busy", ERROR, "Retry-After: \u00b2"))),
    "stale nonce": (30, says(written("401 Unauthorized", b'{"error":"Invalid nonce supplied"}'))),
    "spent token": (20, says(written("401 Unauthorized", b'{"error":"Invalid or expired token"}'))),
    "redirect": (10, says(written("302 Found", b"", "Location: http://127.0.0.1:1/"))),
    "bad gzip": (20, says(written("200 OK", b"no gzip", "Content-Encoding: gzip"))),
    "cut gzip": (
        15,
        says(written("200 OK", gzip.compress(b"[]" * 99)[:-9], "Content-Encoding: gzip")),
    ),
    "length too long": (20, says(written("200 OK", b"[1]", length=99), stays=False)),
    "length too short": (15, says(written("200 OK", b"[1]HTTP/1.1 200 OK\r\n\r\n[6]", length=3))),
    "length beyond memory": (10, says(written("200 OK", b"[]", length=10**14), stays=False)),
    "chunk below zero": (
        10,
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n[]", stays=False),
    ),
    "length no number": (10, says(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n[]", stays=False)),
    "not HTTP": (15, says(b"220 smtp.example.com ESMTP\r\n", stays=False)),
}


class Misbehaving(RawServer):
    """Does with each request at random, after *seed*, one of the `FAULTS`; ``did`` counts them.

    *pointers* are those of every file.
    """

    def __init__(self, seed: int, pointers: object = ()) -> None:
        self._pointers = pointers
        self.did: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._choosing = threading.Lock()
        self._over = threading.Event()
        self._reopening = threading.Lock()
        super().__init__(self._misbehave)

    def __enter__(self) -> Misbehaving:
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        with self._reopening:  # from here on nobody opens
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

    def _misbehave(self, connection: socket.socket) -> None:
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
            self.did[name] += 1
            return name

    def _drip(self, connection: socket.socket, answer: bytes) -> None:
        for number in answer:
            connection.sendall(bytes([number]))
            self._over.wait(DRIP)

"""A client that is as cheap as Python allows, so that it is not what limits a bridge."""

from __future__ import annotations

import base64
import json
import os
import re
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pymdc
from pymdc._http.auth import Signature
from pymdc._http.request import Request

_MAX_WAIT = 60  # seconds for an answer
_FAREWELL = b"\x88\x02\x03\xe8"  # the last message of a channel
_BOUNDARY = "limit"


def connect(server: tuple[str, int], tls: ssl.SSLContext | None) -> socket.socket:
    """Return a connection to *server*."""
    connection = socket.create_connection(server, _MAX_WAIT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(connection, server_hostname=server[0]) if tls else connection


def exchange(
    servers: Sequence[tuple[str, int]],
    requests: Iterable[bytes],
    connections: int = 16,
    tls: ssl.SSLContext | None = None,
) -> list[bytes]:
    """Send *requests* over so many *connections* in all; return the bodies as they arrive."""
    bodies = []
    remaining = iter(requests)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for index in range(connections):
            if request := next(remaining, b""):
                server = servers[index % len(servers)]
                connection = stack.enter_context(connect(server, tls))
                connection.sendall(request)
                selector.register(connection, selectors.EVENT_READ, bytearray())
        for connection, body in _answers(selector):
            bodies.append(body)
            if request := next(remaining, b""):
                connection.sendall(request)
            else:
                selector.unregister(connection)
    return bodies


def _answers(selector: selectors.BaseSelector) -> Iterator[tuple[socket.socket, bytes]]:
    while selector.get_map():
        ready = selector.select(_MAX_WAIT)
        if not ready:
            raise TimeoutError("the bridge does not answer")
        for key, _ in ready:
            connection, received = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            more = connection.recv(65536)
            received += more
            body = _body(received)
            if not more or (body is None and not received.startswith(b"HTTP/1.1 2")):
                raise RuntimeError(f"the bridge answered {bytes(received[:300])!r}")
            if body is not None:
                received.clear()
                yield connection, body


def _body(received: bytearray) -> bytes | None:
    """Return the body of an answer; None until it is complete."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    if not head.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(f"the bridge answered {bytes(received[:300])!r}")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if length:
        return bytes(body) if len(body) >= int(length[1]) else None
    if b"chunked" in head.lower():
        return bytes(body) if body.endswith(b"0\r\n\r\n") else None
    return b""


def waits(
    server: tuple[str, int], requests: Iterable[bytes], stop: threading.Event
) -> Iterator[float]:
    """Send one request after the other until *stop*; yield the seconds until each answer."""
    with connect(server, None) as connection:
        for request in requests:
            if stop.is_set():
                return
            begun = time.perf_counter()
            connection.sendall(request)
            received = bytearray()
            while _body(received) is None:
                received += connection.recv(65536)
            yield time.perf_counter() - begun


def signed_requests(key_pair: pymdc.ECDSA, unsigned: Request, count: int) -> list[bytes]:
    """Return *count* requests, encoded, each with a nonce of its own."""
    signature = Signature(key_pair)
    return [_encode(signature.sign(unsigned)) for _ in range(count)]


def _encode(request: Request) -> bytes:
    body = request.body or b""
    assert isinstance(body, bytes)
    headers = dict(request.headers) | ({"Content-Length": str(len(body))} if body else {})
    lines = [f"{request.method} {request.target} HTTP/1.1", "Host: localhost"]
    lines += (f"{name}: {value}" for name, value in headers.items())
    return "\r\n".join((*lines, "", "")).encode("ascii") + body


def upload_request(bucket: str, token: str, content: bytes) -> bytes:
    """Return the upload of a file with *content*."""
    disposition = 'Content-Disposition: form-data; name="file"; filename="a file"'
    first = f"--{_BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
    last = f"\r\n--{_BOUNDARY}--\r\n".encode()
    lines = (
        f"PUT /buckets/{bucket}/files HTTP/1.1",
        "Host: localhost",
        f"x-token: {token}",
        f"x-filesize: {len(content)}",
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}",
        f"Content-Length: {len(first) + len(content) + len(last)}",
    )
    return b"".join(("\r\n".join((*lines, "", "")).encode(), first, content, last))


def pull(
    server: tuple[str, int],
    pointers: Sequence[Mapping[str, str]],
    sizes: Sequence[int],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Receive all shards at once, each over a channel of its own, and discard them."""
    failures: list[BaseException] = []

    def one(pointer: Mapping[str, str], size: int) -> None:
        try:
            _pull_shard(server, pointer, size, tls)
        except BaseException as error:  # noqa: BLE001  # raised below
            failures.append(error)

    pairs = zip(pointers, sizes, strict=True)
    threads = [threading.Thread(target=one, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _pull_shard(
    server: tuple[str, int], pointer: Mapping[str, str], size: int, tls: ssl.SSLContext | None
) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = (
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    fields = {"token": pointer["token"], "hash": pointer["hash"], "operation": "PULL"}
    with connect(server, tls) as channel:
        channel.sendall(upgrade.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += channel.recv(1)
        channel.sendall(_frame(json.dumps(fields).encode()))
        block = memoryview(bytearray(1024 * 1024))
        received, last = 0, b""
        while not (received >= size and last.endswith(_FAREWELL)):
            count = channel.recv_into(block)
            if not count:
                raise RuntimeError(f"the channel ended after {received} bytes: {last!r}")
            received += count
            last = (last + bytes(block[max(0, count - 100) : count]))[-100:]
        if received < size:
            raise RuntimeError(f"the channel sent {received} bytes")


def _frame(message: bytes) -> bytes:
    """Return a masked frame with a text of fewer than 65,536 bytes; the mask is zero."""
    assert 125 < len(message) < 65536
    return b"\x81\xfe" + len(message).to_bytes(2, "big") + bytes(4) + message

"""Answers that come while the request is still being sent."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, over_tls
from faulty_proxy import length, read_head
from modes import PATIENCE, Ask
from proxies import Proxy
from servers import ANSWER, HoldingServer, read_request, written

import pymdc
from pymdc import exceptions
from pymdc._crypto.file_hash import file_hash
from pymdc._http.raw_response import EarlyResponse

REFUSAL = written("413 Content Too Large", b'{"error": "Storage quota exceeded"}')
REFUSED = {"error": "Storage quota exceeded"}
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 102 Processing\r\nServer: x\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 2\r\n\r\n"
)
LARGE = 100_000_000  # bytes, more than the system buffers for a server that does not read


class DelayedFile(io.RawIOBase):
    """A file of *size* zeros; reading it waits until *ready* is set."""

    def __init__(self, size: int, ready: threading.Event) -> None:
        self._size, self._position, self._ready = size, 0, ready

    def read(self, size: int = -1) -> bytes:
        assert size == 0 or self._ready.wait(PATIENCE)
        block = bytes(min(size, self._size - self._position))
        self._position += len(block)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = starts[whence] + offset
        return self._position


ROUTES = ["plain", "TLS", "TLS in TLS"]


class Route:
    """Servers and clients that are connected by one of `ROUTES`."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self._variables = name, monkeypatch
        self._pems = {host: certificate(folder, host) for host in ("localhost", "bridge.invalid")}
        self._both = folder / "both.pem"
        self._both.write_bytes(b"".join(pem.read_bytes() for pem in self._pems.values()))

    @contextmanager
    def client(self, server: HoldingServer, **settings: Any) -> Iterator[pymdc.Client]:
        """Yield a client of *server* that fails if it waits for a timeout."""
        with ExitStack() as stack:
            endpoint = server.endpoint
            if self.name == "TLS":
                endpoint = f"https://localhost:{server.port}"
            elif self.name == "TLS in TLS":
                hosts, pem = {"bridge.invalid": server.port}, self._pems["localhost"]
                proxy = stack.enter_context(Proxy(hosts, certificate=pem))
                self._variables.setenv("https_proxy", f"https://{proxy.address}")
                endpoint = "https://bridge.invalid"
            trusted = {"ca_certs": str(self._both), "timeout": PATIENCE, "stall": 5}
            yield stack.enter_context(pymdc.Client(endpoint, **{**trusted, **settings}))

    def server(self, first: Any) -> HoldingServer:
        """Return a server that calls *first* with its first connection, and holds it."""
        host = "bridge.invalid" if self.name == "TLS in TLS" else "localhost"
        over = partial(over_tls, self._pems[host])
        return HoldingServer(first) if self.name == "plain" else HoldingServer(first, over)


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Route:
    return Route(request.param, tmp_path, monkeypatch)


def files_of(client: pymdc.Client) -> pymdc.api.Files:
    return pymdc.api.Files("b", pymdc.ECDSA(), client=client)


@pytest.mark.parametrize("before", [b"", INTERIM], ids=["alone", "after interim answers"])
def test_refusal_is_read_at_once_and_its_connection_is_closed(
    ask: Ask, route: Route, before: bytes
) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(before + REFUSAL)

    with route.server(refuse) as server, route.client(server) as client:
        value = ask(files_of(client).upload, DelayedFile(LARGE, server.held), "token")
        assert value == REFUSED
        server.released.set()
        assert server.ended.wait(PATIENCE)
        assert ask(files_of(client).list) == []
        assert server.connections == 2


def test_refusal_sent_byte_by_byte_is_read_at_once(ask: Ask, route: Route) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        for place in range(len(INTERIM + REFUSAL)):
            connection.sendall((INTERIM + REFUSAL)[place : place + 1])

    with route.server(refuse) as server, route.client(server) as client:
        assert ask(files_of(client).upload, DelayedFile(LARGE, server.held), "token") == REFUSED
        server.released.set()


@pytest.mark.parametrize("route", ["plain", "TLS"], indirect=True)
def test_refusal_is_read_in_middle_of_file(ask: Ask, route: Route) -> None:
    sending = threading.Event()

    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        sending.wait(PATIENCE)
        connection.sendall(REFUSAL)

    with route.server(refuse) as server, route.client(server) as client:
        data, progress = io.BytesIO(bytes(LARGE)), lambda done, total: sending.set()
        assert ask(files_of(client).upload, data, "token", progress=progress) == REFUSED
        server.released.set()


@pytest.mark.parametrize("size", [0, 1_000, 100_000])
def test_refusal_of_small_file_is_read(ask: Ask, route: Route, size: int) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(REFUSAL)

    with route.server(refuse) as server, route.client(server) as client:
        assert ask(files_of(client).upload, bytearray(size), "token") == REFUSED
        server.released.set()


def test_server_that_half_closes_without_reading_is_connection_lost_at_once(ask: Ask) -> None:
    def end(connection: socket.socket) -> None:
        read_head(connection)
        connection.shutdown(socket.SHUT_WR)

    with HoldingServer(end) as server, pymdc.Client(server.endpoint, stall=5) as client:
        value = ask(files_of(client).upload, DelayedFile(LARGE, server.held), "token")
        server.released.set()
    assert type(value) is exceptions.ConnectionLost


@pytest.mark.parametrize("before", [b"", INTERIM], ids=["a success", "interim answers first"])
def test_early_success_is_used_after_whole_file_is_sent(
    ask: Ask, route: Route, before: bytes
) -> None:
    size = 20_000_000
    entry = b'{"hash": "%s"}' % file_hash(bytes(size)).encode()
    left: list[int] = []

    def accept(connection: socket.socket) -> None:
        head = read_head(connection)
        connection.sendall(before + written("200 OK", entry))
        left.append(length(head))
        server.held.set()
        while left[0]:
            left[0] -= len(connection.recv(min(left[0], 65536)))
        read_request(connection)
        connection.sendall(ANSWER)

    with route.server(accept) as server, route.client(server) as client:
        value = ask(files_of(client).upload, DelayedFile(size, server.held), "token")
        assert value == {"hash": file_hash(bytes(size))}
        assert ask(files_of(client).list) == []
        assert server.connections == 1
        server.released.set()
    assert left == [0]


def test_interim_answers_are_ignored(ask: Ask, route: Route) -> None:
    size = 20_000_000
    entry = b'{"hash": "%s"}' % file_hash(bytes(size)).encode()

    def store(connection: socket.socket) -> None:
        left = length(read_head(connection))
        while left:
            connection.sendall(INTERIM)
            part = min(left, 500_000)  # 40 interim answers; 100 are too many for Python 3.14
            left -= part
            while part:
                part -= len(connection.recv(part))
        connection.sendall(INTERIM + written("200 OK", entry))

    with route.server(store) as server, route.client(server) as client:
        value = ask(files_of(client).upload, io.BytesIO(bytes(size)), "token")
        assert value == {"hash": file_hash(bytes(size))}
        server.released.set()


def test_early_success_of_server_that_stops_reading_closes_connection(ask: Ask) -> None:
    def accept(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(written("200 OK", b'{"hash": "0"}'))

    with HoldingServer(accept) as server, pymdc.Client(server.endpoint, timeout=0.5) as client:
        value = ask(files_of(client).upload, DelayedFile(LARGE, server.held), "token")
        assert type(value) is exceptions.IntegrityError
        server.released.set()
        assert server.ended.wait(PATIENCE)
        assert ask(files_of(client).list) == []
        assert server.connections == 2


@pytest.mark.parametrize(
    ("received", "started", "success"),
    [
        (b"", False, False),
        (b"HTTP/1.1 413 Content Too", False, False),
        (b"HTTP/1.1 413 Content Too Large\r\n", True, False),
        (b"HTTP/1.1 200 OK\n", True, True),
        (b"HTTP/1.0 204\r\n", True, True),
        (b"HTTP/1.1 302 Found\r\n", True, False),
        (b"HTTP/1.1 101 Switching Protocols\r\n", True, False),
        (b"HTTP/1.1 100 Continue\r\nServer: x\r\n", False, False),
        (INTERIM, False, False),
        (INTERIM + INTERIM[:-2], False, False),
        (INTERIM + b"HTTP/1.1 200 OK\r\n", True, True),
        (INTERIM.replace(b"\r", b"") + REFUSAL, True, False),
        (b"220 smtp.example.com ESMTP\r\n", True, False),
        (b"HTTP/1.1 100 x" * 10_000, True, False),
        (b"HTTP/1.1 100 Continue\r\n" + b"a: b\r\n" * 20_000, True, False),
    ],
)
def test_early_response_is_parsed_in_pieces_of_any_size(
    received: bytes, started: bool, success: bool
) -> None:
    for size in (1 if len(received) < 1_000 else 1_000, 10_000_000):
        early_response = EarlyResponse()
        for offset in range(0, len(received), size):
            if not early_response.started:
                early_response.add(received[offset : offset + size])
        assert (early_response.started, early_response.success) == (started, success)

"""An answer may come while its request is still being sent."""

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
from modes import PATIENCE, Ask
from proxies import Proxy
from servers import ANSWER, Holding, read_request, written
from ways import length, read_head

import pymdc
from pymdc import exceptions
from pymdc._crypto.file_hash import file_hash
from pymdc._http.raw_response import EarlyBytes

REFUSAL = written("413 Content Too Large", b'{"error": "Storage quota exceeded"}')
REFUSED = {"error": "Storage quota exceeded"}
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 102 Processing\r\nServer: x\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 2\r\n\r\n"
)
LARGE = 100_000_000  # bytes, more than is taken by who does not read


class After(io.RawIOBase):
    """A file of *size* zeros, which are read when something has happened."""

    def __init__(self, size: int, happened: threading.Event) -> None:
        self._size, self._place, self._happened = size, 0, happened

    def read(self, size: int = -1) -> bytes:
        assert size == 0 or self._happened.wait(PATIENCE)
        block = bytes(min(size, self._size - self._place))
        self._place += len(block)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}
        self._place = starts[whence] + offset
        return self._place


WAYS = ["plain", "TLS", "TLS in TLS"]


class Way:
    """Servers and clients that meet on a way: one of `WAYS`."""

    def __init__(self, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self._variables = name, monkeypatch
        self._pems = {host: certificate(folder, host) for host in ("localhost", "bridge.invalid")}
        self._both = folder / "both.pem"
        self._both.write_bytes(b"".join(pem.read_bytes() for pem in self._pems.values()))

    @contextmanager
    def client(self, server: Holding, **settings: Any) -> Iterator[pymdc.Client]:
        """Give a client of *server* to which a wait for the time to be over would be its end."""
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

    def server(self, first: Any) -> Holding:
        """Return a server that does *first* to its first connection, and holds it."""
        host = "bridge.invalid" if self.name == "TLS in TLS" else "localhost"
        over = partial(over_tls, self._pems[host])
        return Holding(first) if self.name == "plain" else Holding(first, over)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    return Way(request.param, tmp_path, monkeypatch)


def files_of(client: pymdc.Client) -> pymdc.api.Files:
    return pymdc.api.Files("b", pymdc.ECDSA(), client=client)


@pytest.mark.parametrize("before", [b"", INTERIM], ids=["alone", "after interim answers"])
def test_a_refusal_is_heard_at_once_and_its_connection_is_closed(
    ask: Ask, way: Way, before: bytes
) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(before + REFUSAL)

    with way.server(refuse) as server, way.client(server) as client:
        value = ask(files_of(client).upload, After(LARGE, server.held), "token")
        assert value == REFUSED
        server.released.set()
        assert server.ended.wait(PATIENCE)
        assert ask(files_of(client).list) == []
        assert server.connections == 2


def test_a_refusal_that_comes_bit_by_bit_is_heard_at_once(ask: Ask, way: Way) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        for place in range(len(INTERIM + REFUSAL)):
            connection.sendall((INTERIM + REFUSAL)[place : place + 1])

    with way.server(refuse) as server, way.client(server) as client:
        assert ask(files_of(client).upload, After(LARGE, server.held), "token") == REFUSED
        server.released.set()


@pytest.mark.parametrize("way", ["plain", "TLS"], indirect=True)
def test_a_refusal_is_heard_in_the_middle_of_a_file(ask: Ask, way: Way) -> None:
    on_its_way = threading.Event()

    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        on_its_way.wait(PATIENCE)
        connection.sendall(REFUSAL)

    with way.server(refuse) as server, way.client(server) as client:
        data, told = io.BytesIO(bytes(LARGE)), lambda done, total: on_its_way.set()
        assert ask(files_of(client).upload, data, "token", progress=told) == REFUSED
        server.released.set()


@pytest.mark.parametrize("size", [0, 1_000, 100_000])
def test_a_refusal_of_what_is_small_is_heard_too(ask: Ask, way: Way, size: int) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(REFUSAL)

    with way.server(refuse) as server, way.client(server) as client:
        assert ask(files_of(client).upload, bytearray(size), "token") == REFUSED
        server.released.set()


def test_who_ends_the_connection_for_writing_and_does_not_read_is_lost_at_once(ask: Ask) -> None:
    def end(connection: socket.socket) -> None:
        read_head(connection)
        connection.shutdown(socket.SHUT_WR)

    with Holding(end) as server, pymdc.Client(server.endpoint, stall=5) as client:
        value = ask(files_of(client).upload, After(LARGE, server.held), "token")
        server.released.set()
    assert type(value) is exceptions.ConnectionLost


@pytest.mark.parametrize("before", [b"", INTERIM], ids=["a success", "interim answers first"])
def test_a_success_that_comes_early_is_that_of_the_whole(ask: Ask, way: Way, before: bytes) -> None:
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

    with way.server(accept) as server, way.client(server) as client:
        value = ask(files_of(client).upload, After(size, server.held), "token")
        assert value == {"hash": file_hash(bytes(size))}
        assert ask(files_of(client).list) == []
        assert server.connections == 1
        server.released.set()
    assert left == [0]


def test_interim_answers_change_nothing(ask: Ask, way: Way) -> None:
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

    with way.server(store) as server, way.client(server) as client:
        value = ask(files_of(client).upload, io.BytesIO(bytes(size)), "token")
        assert value == {"hash": file_hash(bytes(size))}
        server.released.set()


def test_a_success_of_who_stops_reading_closes_its_connection(ask: Ask) -> None:
    def accept(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(written("200 OK", b'{"hash": "0"}'))

    with Holding(accept) as server, pymdc.Client(server.endpoint, timeout=0.5) as client:
        value = ask(files_of(client).upload, After(LARGE, server.held), "token")
        assert type(value) is exceptions.IntegrityError
        server.released.set()
        assert server.ended.wait(PATIENCE)
        assert ask(files_of(client).list) == []
        assert server.connections == 2


@pytest.mark.parametrize(
    ("came", "began", "accepts"),
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
def test_what_has_begun_is_known_whatever_the_pieces(
    came: bytes, began: bool, accepts: bool
) -> None:
    for size in (1 if len(came) < 1_000 else 1_000, 10_000_000):
        early = EarlyBytes()
        for place in range(0, len(came), size):
            if not early.began:
                early.take(came[place : place + size])
        assert (early.began, early.accepts) == (began, accepts)

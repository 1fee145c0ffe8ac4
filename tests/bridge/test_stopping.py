"""SIGTERM ends the program, whatever its clients hang in; and how many of them there may be."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from errno import ECONNREFUSED
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from signal import SIGTERM
from typing import Any, BinaryIO

import pytest
from certificates import certificate
from modes import PATIENCE
from plain_client import (
    DATA,
    NORMAL_CLOSE,
    PASSWORD,
    Reply,
    User,
    accepts,
    address,
    ask,
    form,
    head,
    refused_upload,
    stopping,
    text,
    upgrade,
)
from processes import MINUTE, bridge_process

from pymdc.bridge import Bridge
from pymdc.bridge.serving.uvicorn import Server
from pymdc.bridge.settings import FRAME

MiB = 1024 * 1024
CONTENT = bytes(8 * MiB)  # more than the system takes
ALIVE = b'{"status":"alive"}'
QUIET = "--grace", "0.3", "--log-level", "warning"  # the log would fill the pipe
Connect = Callable[[], socket.socket]


@pytest.fixture
def new_seconds(monkeypatch: pytest.MonkeyPatch) -> int:
    """Give a busy machine more than two seconds for its requests; return how many."""
    monkeypatch.setattr("pymdc.bridge.serving.protocols.NEW_SECONDS", 5)
    return 5


def hanging_requests() -> list[bytes]:
    """Return what clients send before they stand still, without an account."""
    return [
        b"",
        b"GET / HT",
        head("POST /users", "Content-Length: 10") + b"{",
        head("POST /users", "Transfer-Encoding: chunked") + b"5\r\n{",
        head("POST /users", "Content-Length: 10", "Expect: 100-continue"),
        head("PUT /buckets/x/files", "Content-Length: 1000"),
        1000 * head("GET /"),
        head("GET /health"),
        upgrade(),
        upgrade() + text("{}")[:-1],
        upgrade() + text("{}"),
    ]


def hang(connect: Connect, sent: bytes) -> socket.socket:
    wire = connect()
    wire.sendall(sent)
    return wire


def small_socket() -> socket.socket:
    """Return a socket that takes little before somebody reads."""
    wire = socket.socket()
    wire.settimeout(PATIENCE)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    return wire


def stalled_channel(user: User, connect: Connect) -> socket.socket:
    """Ask for a shard that is larger than the sockets' buffers, read a frame, and stall."""
    bucket = user.bucket()
    [pointer] = user.pointers(bucket, user.upload(bucket, bytes(8 * MiB)).json["hash"]).json
    fields = {name: pointer[name] for name in ("token", "hash", "operation")}
    wire = hang(connect, upgrade())
    assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
    wire.sendall(text(json.dumps(fields)))
    assert wire.recv(65536)
    return wire


def stalled_upload(user: User, connect: Connect) -> socket.socket:
    upload = user.upload_head(user.bucket(), 9 * MiB, 9 * MiB + 200)
    return hang(connect, upload + form(bytes(8 * MiB + 1000))[:-20])


def new_user(bridge: Bridge, output: object) -> User:
    user = User(bridge, "alice", known=True)
    fields = {"email": user.email, "password": PASSWORD, "pubkey": user.key.public}
    assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
    link = output.readline().split()[-1]  # type: ignore[attr-defined]
    assert ask(bridge, "GET", link.removeprefix(bridge.endpoint)).status == 200
    return user


def test_sigterm_ends_the_program_whatever_its_clients_hang_in(data: Path) -> None:
    bridge = Bridge()

    def connect() -> socket.socket:
        wire = small_socket()
        wire.connect(address(bridge))
        return wire

    with bridge_process(data, *QUIET) as (bridge.endpoint, process), ExitStack() as clients:
        user = new_user(bridge, process.stdout)
        for sent in hanging_requests():
            clients.enter_context(hang(connect, sent))
        clients.enter_context(refused_upload(bridge))
        clients.enter_context(stalled_channel(user, connect))
        clients.enter_context(stalled_upload(user, connect))
        assert ask(bridge, "GET", "/ready").status == 200
        process.terminate()
        assert process.wait(MINUTE) == 0
        assert process.stderr
        errors = process.stderr.read()
    assert "Traceback" not in errors
    assert [
        path for path in (data / "shards").glob("[0-9a-f]*") if path.stat().st_size < 8 * MiB
    ] == []
    assert len([*(data / "shards").glob("[0-9a-f]*")]) == 1, "nothing of the upload is kept"


def test_sigterm_ends_the_program_whatever_its_clients_hang_in_within_tls(
    data: Path, tmp_path: Path
) -> None:
    bridge, pem = Bridge(), certificate(tmp_path, "localhost")
    trusted = ssl.create_default_context(cafile=pem)

    def connect() -> socket.socket:
        wire = socket.create_connection(address(bridge), timeout=PATIENCE)
        return trusted.wrap_socket(wire, server_hostname="localhost")

    options = "--tls-cert", str(pem), "--tls-key", str(pem), "--host", "localhost", *QUIET
    with bridge_process(data, *options) as (bridge.endpoint, process), ExitStack() as clients:
        clients.enter_context(socket.create_connection(address(bridge)))
        for sent in hanging_requests():
            clients.enter_context(hang(connect, sent))
        with hang(connect, head("GET /ready")) as wire:
            assert wire.recv(1000).startswith(b"HTTP/1.1 200 ")
        process.terminate()
        assert process.wait(MINUTE) == 0
        assert process.stderr
        assert "Traceback" not in process.stderr.read()


def test_program_ends_although_its_database_and_its_log_hang(data: Path) -> None:
    bridge = Bridge()
    with bridge_process(data, "--grace", "0") as (bridge.endpoint, process), ExitStack() as clients:
        fields = json.dumps({"email": "a@example.com", "password": PASSWORD}).encode()
        busy = clients.enter_context(closing(sqlite3.connect(data / "metadata.sqlite")))
        busy.execute("BEGIN IMMEDIATE")
        connect = partial(socket.create_connection, address(bridge))
        post = head("POST /users", f"Content-Length: {len(fields)}") + fields
        clients.enter_context(hang(connect, post))
        wire = clients.enter_context(hang(connect, 2000 * head("GET /nope")))
        while select.select([wire], [], [], 0.5)[0]:  # until the pipe of the log is full
            assert wire.recv(65536)
        process.terminate()
        assert process.wait(MINUTE) == 1


def stop_being_ready(bridge: Bridge, process: subprocess.Popen[str]) -> Reply:
    """Stop a bridge; return what it answers when it is not ready any more."""
    process.terminate()
    while (ready := ask(bridge, "GET", "/ready")).status == 200:
        pass  # the signal is on its way
    return ready


def test_bridge_serves_on_while_it_drains_and_is_not_ready(data: Path) -> None:
    bridge = Bridge()
    options = "--drain", str(MINUTE), "--log-level", "warning"
    with bridge_process(data, *options) as (bridge.endpoint, process):
        user = new_user(bridge, process.stdout)
        bucket = user.bucket()
        with (
            closing(HTTPConnection(*address(bridge), timeout=PATIENCE)) as begun,
            closing(HTTPConnection(*address(bridge), timeout=PATIENCE)) as kept,
        ):
            begun.putrequest("POST", "/users")
            begun.putheader("Content-Length", "2")
            begun.endheaders(b"{")
            kept.request("GET", "/ready")
            with kept.getresponse() as before:
                assert (before.status, before.getheader("Connection")) == (200, None)
                before.read()
            ready = stop_being_ready(bridge, process)
            assert ready.error == (503, "The bridge is stopping")
            assert ready.headers["connection"] == "close"
            kept.request("GET", "/health")
            with kept.getresponse() as after:
                assert (after.status, after.getheader("Connection")) == (200, "close")
            begun.send(b"}")
            with begun.getresponse() as begun_before:
                assert (begun_before.status, begun_before.getheader("Connection")) == (400, "close")
        entry = user.upload(bucket, DATA).json
        assert user.download(bucket, entry["hash"]) == DATA
        process.terminate()
        assert process.wait(MINUTE) == -SIGTERM, "a second signal ends it at once"


@contextmanager
def long_answer(bridge: Bridge, user: User) -> Iterator[tuple[HTTPConnection, Callable[[], None]]]:
    """Begin to read an answer that does not say that its connection ends.

    Give the connection, and what reads the rest.
    """
    bucket = user.bucket()
    path = f"/buckets/{bucket}/files/{user.upload(bucket, CONTENT).json['hash']}/content"
    with closing(HTTPConnection(*address(bridge), timeout=PATIENCE)) as connection:
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MiB)
        connection.request("GET", path, headers={"x-token": user.token(bucket, "PULL")})
        with connection.getresponse() as answer:
            assert (answer.status, answer.getheader("Connection")) == (200, None)

            def read_rest() -> None:
                assert answer.read() == CONTENT

            yield connection, read_rest


def ask_once_more(connection: HTTPConnection) -> None:
    connection.request("GET", "/health")
    with connection.getresponse() as answer:
        assert (answer.status, answer.getheader("Connection")) == (200, "close")


def test_answer_that_did_not_say_that_its_connection_ends_is_not_the_last(data: Path) -> None:
    bridge = Bridge()
    with bridge_process(data, "--drain", str(MINUTE)) as (bridge.endpoint, process):
        with long_answer(bridge, new_user(bridge, process.stdout)) as (connection, read_rest):
            stop_being_ready(bridge, process)
            read_rest()
            ask_once_more(connection)
        process.terminate()
        assert process.wait(MINUTE) == -SIGTERM


def test_answer_that_goes_on_when_the_port_is_closed_is_not_the_last_either(
    data: Path, new_seconds: int
) -> None:
    with Bridge(data, grace=MINUTE) as bridge:
        user = User(bridge, "alice")
        with (
            long_answer(bridge, user) as (connection, read_rest),
            long_answer(bridge, user) as (unused, read_rest_of_unused),
            stopping(bridge),
        ):
            threading.Event().wait(new_seconds + 0.5)  # which begin when the answer ends
            read_rest()
            ask_once_more(connection)
            read_rest_of_unused()
            assert unused.sock.recv(1) == b""


def test_channel_that_follows_such_an_answer_gets_its_whole_shard(
    data: Path, new_seconds: int
) -> None:
    with Bridge(data, grace=MINUTE) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        path = f"/buckets/{bucket}/files/{user.upload(bucket, CONTENT).json['hash']}"
        [pointer] = user.pointers(bucket, path.rpartition("/")[2]).json
        fields = {name: pointer[name] for name in ("token", "hash", "operation")}
        download = head(f"GET {path}/content", f"x-token: {user.token(bucket, 'PULL')}")
        with small_socket() as wire, wire.makefile("rb") as received:
            wire.connect(address(bridge))
            wire.sendall(download)
            read_head(received, b"HTTP/1.1 200 ")
            wire.sendall(upgrade())  # before that answer has ended
            with stopping(bridge):
                assert received.read(len(CONTENT)) == CONTENT
                read_head(received, b"HTTP/1.1 101 ")
                wire.sendall(text(json.dumps(fields)))
                threading.Event().wait(new_seconds + 0.5)
                frames = len(CONTENT) // FRAME * (10 + FRAME)
                assert len(received.read(frames)) == frames
                assert received.read(4) == NORMAL_CLOSE
                wire.shutdown(socket.SHUT_WR)


def read_head(received: BinaryIO, start: bytes) -> None:
    assert received.readline().startswith(start)
    while received.readline() != b"\r\n":
        pass


def read_health(received: BinaryIO) -> None:
    read_head(received, b"HTTP/1.1 200 ")
    assert received.read(len(ALIVE)) == ALIVE


def test_request_that_has_begun_when_the_bridge_stops_is_answered(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.protocols.NEW_SECONDS", MINUTE)
    request = head("GET /health")
    with Bridge(data, grace=MINUTE) as bridge, ExitStack() as connections:
        new, kept = (
            connections.enter_context(socket.create_connection(address(bridge), PATIENCE))
            for _ in range(2)
        )
        read = {wire: connections.enter_context(wire.makefile("rb")) for wire in (new, kept)}
        kept.sendall(request)
        read_health(read[kept])
        for wire in read:
            wire.sendall(request[:20])
        assert ask(bridge, "GET", "/health").status == 200  # the bridge has read those by now
        with stopping(bridge):
            for wire, received in read.items():
                wire.sendall(request[20:])
                read_health(received)


def test_kept_connection_does_not_hold_up_the_stop(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.protocols.NEW_SECONDS", MINUTE)
    with Bridge(data, grace=MINUTE) as bridge:
        with (
            socket.create_connection(address(bridge), PATIENCE) as wire,
            wire.makefile("rb") as received,
        ):
            wire.sendall(head("GET /health"))
            read_health(received)
            assert ask(bridge, "GET", "/health").status == 200  # the other answer has ended by now
            with stopping(bridge):
                assert received.read() == b""


class OneAnswer:
    """An application with one answer, which ends just when the server has finished channels."""

    stopping = False

    def __init__(self) -> None:
        self.channels = self
        self.begun = threading.Event()
        self.finishing, self.ended = asyncio.Event(), asyncio.Event()

    async def finish(self, _seconds: float) -> None:
        self.stopping = True
        self.finishing.set()
        await self.ended.wait()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.begun.set()
        fields = [(b"content-length", b"%d" % len(CONTENT)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await self.finishing.wait()
        self.ended.set()
        await send({"type": "http.response.body", "body": CONTENT})


def test_answer_that_ends_just_when_its_connection_is_shut_down_arrives() -> None:
    for _ in range(10):
        app = OneAnswer()
        server = Server(app, grace=MINUTE, patience=MINUTE)  # type: ignore[arg-type]
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            ThreadPoolExecutor(1) as threads,
            ExitStack() as connection,
        ):
            with server.serving(listener):
                wire = socket.create_connection(listener.getsockname(), PATIENCE)
                received = connection.enter_context(wire).makefile("rb")
                wire.sendall(head("GET /"))
                assert app.begun.wait(PATIENCE)
                reading = threads.submit(connection.enter_context(received).read)
            assert reading.result(PATIENCE).endswith(b"\r\n\r\n" + CONTENT)


def test_bridge_stops_when_it_has_drained(data: Path) -> None:
    with bridge_process(data, "--drain", "0.1") as (_, process):
        process.terminate()
        assert process.wait(MINUTE) == 0
    with Bridge(data, drain=0.1) as bridge:
        bridge.close()
        assert not accepts(bridge)


def test_limit_on_open_files_is_raised(data: Path) -> None:
    limited, bridge = ["sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh"], Bridge()
    with (
        bridge_process(data, wrapper=limited) as (bridge.endpoint, process),
        ExitStack() as connections,
    ):
        idle = [
            connections.enter_context(socket.create_connection(address(bridge))) for _ in range(300)
        ]
        assert ask(bridge, "GET", "/health").status == 200
        assert not select.select(idle, [], [], 0)[0], "none is closed"
        process.terminate()
        assert process.wait(MINUTE) == 0


class LateListener(socket.socket):
    """A listener to which a client connects each time when nobody has."""

    stopping = False
    late: list[socket.socket]

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except BlockingIOError:
            if LateListener.stopping:
                client = socket.socket()
                client.setblocking(False)
                client.connect_ex(self.getsockname())
                LateListener.late.append(client)
            raise


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can ignore connections")
def test_connection_that_comes_too_late_is_refused_and_not_reset(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listen(*where: Any) -> socket.socket:
        return LateListener(fileno=socket.create_server(where).detach())

    monkeypatch.setattr("pymdc.bridge.bridge._listen", listen)
    monkeypatch.setattr(LateListener, "late", [], raising=False)
    with Bridge(data) as bridge:
        assert ask(bridge, "GET", "/health").status == 200
        monkeypatch.setattr(LateListener, "stopping", True)
        bridge.close()
    with ExitStack() as clients:
        for client in LateListener.late:
            clients.enter_context(client)
        [client] = LateListener.late
        assert select.select([], [client], [], PATIENCE)[1]
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == ECONNREFUSED

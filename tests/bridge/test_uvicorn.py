"""Limits on what a client may send, and how long it may stall."""

from __future__ import annotations

import json
import logging
import select
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from backends import Backend
from modes import PATIENCE
from plain_client import (
    NORMAL_CLOSE,
    Count,
    Reply,
    Rows,
    User,
    address,
    ask,
    fill,
    form,
    head,
    stopping,
    text,
    upgrade,
    upload_headers,
)
from processes import MINUTE, bridge_process
from websockets.frames import Frame, Opcode

from pymdc.bridge import Bridge
from pymdc.bridge.serving.uvicorn import Server
from pymdc.bridge.settings import FRAME

MiB = 1024 * 1024
DATA = bytes(range(250)) * 10


@pytest.mark.parametrize(
    "start", ["GET /", "GET / HTTP/1.1\r\nX: ", "{chunked}0\r\nX: ", "{chunked}1;x="]
)
def test_endless_head_is_refused(data: Path, start: str) -> None:
    start = start.format(chunked="POST /users HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    with Bridge(data) as bridge, send(bridge, start.encode()) as wire:
        with pytest.raises(ConnectionError):
            wire.sendall(20 * MiB * b"x")


@pytest.fixture
def bridge(backend: Backend) -> Iterator[Bridge]:
    with backend.bridge(shard_size=1000, patience=1) as running:
        yield running


def send(bridge: Bridge, sent: bytes = b"") -> socket.socket:
    """Connect, send *sent*, and stall."""
    wire = socket.socket()
    wire.settimeout(20)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    wire.connect(address(bridge))
    wire.sendall(sent)
    return wire


def test_stalled_upload_gets_408_and_leaves_nothing(
    alice: User, objects: Count, rows: Rows
) -> None:
    bucket, body = alice.bucket(), form(DATA)
    headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
    headers["Content-Length"] = str(len(body))
    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", body[:-100], headers)
    assert reply.error == (408, "Request body stands still")
    assert reply.headers["connection"] == "close"
    assert (objects(), rows("files"), rows("shards")) == (0, 0, 0)


def test_stalled_small_body_gets_408(bridge: Bridge) -> None:
    reply = ask(bridge, "POST", "/users", b"{", {"Content-Length": "100"})
    assert reply.error == (408, "Request body stands still")


def test_stalled_head_is_disconnected(bridge: Bridge) -> None:
    with send(bridge) as silent, send(bridge, b"GET / HTTP/1.1\r\nHo") as begun:
        with send(bridge, b"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n") as second:
            assert second.recv(5000).startswith(b"HTTP/1.1 204 ")
            second.sendall(b"GET / HTTP/1.1\r\nHo")
            assert [wire.recv(1) for wire in (silent, begun, second)] == [b"", b"", b""]


def test_slow_body_is_accepted(bridge: Bridge) -> None:
    def pieces() -> Iterator[bytes]:
        with send(bridge) as silent:
            for _ in range(400):
                if select.select([silent], [], [], 0.05)[0]:
                    break
                yield b" "
        yield b"{}"

    reply = ask(bridge, "POST", "/users", pieces())
    assert reply.error == (400, "Password must be hex encoded SHA-256 hash")


def stalled_channel(user: User) -> socket.socket:
    """Ask for a shard that is larger than the sockets' buffers, read a frame, and stall."""
    bucket = user.bucket()
    [pointer] = user.pointers(bucket, user.upload(bucket, bytes(8 * MiB)).json["hash"]).json
    fields = {name: pointer[name] for name in ("token", "hash", "operation")}
    upgrade = "GET / HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"
    key = "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    wire = send(user.bridge, "\r\n".join([*upgrade, *key, "", ""]).encode())
    assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
    wire.sendall(text(json.dumps(fields)))
    with wire.makefile("rb") as received:
        received.read(65536)
    return wire


def test_stalled_channel_is_disconnected(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Bridge(data, patience=0.2, grace=MINUTE) as bridge:
        with stalled_channel(User(bridge, "alice")) as wire, pytest.raises(ConnectionError):
            wire.sendall(5000 * text(9000 * "x"))
        stop = threading.Thread(target=bridge.close)
        stop.start()
        stop.join(5)
        assert not stop.is_alive(), "a task is left"
    assert caplog.records == []


def test_stalled_channel_is_disconnected_on_close(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Bridge(data, grace=1) as bridge:
        with stalled_channel(User(bridge, "alice")):
            bridge.close()
    assert caplog.records == []


def test_waiting_client_is_kept_while_the_bridge_is_busy(alice: User, data: Path) -> None:
    bucket, large, replies = alice.bucket(), bytes(MiB), list[Reply]()
    headers = upload_headers(alice.token(bucket, "PUSH"), len(large))
    arguments = (alice.bridge, "PUT", f"/buckets/{bucket}/files", form(large), headers)
    upload = threading.Thread(target=lambda: replies.append(ask(*arguments)))
    with closing(sqlite3.connect(data / "metadata.sqlite")) as busy:
        busy.execute("BEGIN IMMEDIATE")
        upload.start()
        for _ in range(2):
            with send(alice.bridge) as silent:
                assert silent.recv(1) == b""
        busy.rollback()
    upload.join()
    assert [reply.status for reply in replies] == [200]


class BusyApp:
    """An application whose first request keeps the server busy until ``go_on`` is set."""

    stopping = False

    def __init__(self) -> None:
        self.channels = self
        self.busy, self.go_on = threading.Event(), threading.Event()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.busy.set()
        self.go_on.wait(MINUTE)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def finish(self, _seconds: float) -> None:
        pass


def test_connections_that_come_just_before_the_stop_are_closed() -> None:
    app = BusyApp()
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener, ExitStack() as clients:

        def connect() -> socket.socket:
            wire = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
            return clients.enter_context(wire)

        server = Server(app, grace=8, patience=60)  # type: ignore[arg-type]  # it stands in for App
        with server.serving(listener):
            first = connect()
            first.sendall(head("GET /"))
            assert app.busy.wait(MINUTE)
            late = [connect() for _ in range(300)]
            server.stop()
            app.go_on.set()
            assert first.recv(100).startswith(b"HTTP/1.1 204 ")
        for wire in late:
            with suppress(ConnectionResetError):
                assert wire.recv(1) == b""


def test_requests_that_come_just_before_the_stop_are_answered() -> None:
    app, answer = BusyApp(), b"HTTP/1.1 204 "
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener, ExitStack() as clients:

        def ask_for(path: str) -> socket.socket:
            wire = socket.create_connection(listener.getsockname(), timeout=PATIENCE)
            wire.sendall(head(f"GET {path}"))
            return clients.enter_context(wire)

        server = Server(app, grace=8, patience=60)  # type: ignore[arg-type]  # it stands in for App
        with server.serving(listener):
            first = ask_for("/")
            assert app.busy.wait(MINUTE)
            late = [ask_for("/late") for _ in range(300)]
            server.stop()
            app.go_on.set()
            assert first.recv(100).startswith(answer)
        for wire in late:
            assert wire.recv(100).startswith(answer)


class FailingApp(BusyApp):
    async def finish(self, _seconds: float) -> None:
        raise ZeroDivisionError


def test_error_of_the_server_while_it_stops_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    app = FailingApp()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app, grace=8, patience=60)  # type: ignore[arg-type]  # it stands in for App
        with server.serving(listener):
            pass
    [record] = caplog.records
    assert record.getMessage() == "the bridge stopped because of an error"
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_new_connections_may_still_ask_when_the_bridge_stops(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.protocols.NEW_SECONDS", PATIENCE)
    with Bridge(data, grace=MINUTE) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        [pointer] = user.pointers(bucket, user.upload(bucket, b"a shard").json["hash"]).json
        fields = {name: pointer[name] for name in ("token", "hash", "operation")}
        with send(bridge) as wire, send(bridge, upgrade()) as channel:
            assert channel.recv(1000).startswith(b"HTTP/1.1 101 ")
            with stopping(bridge):
                channel.sendall(text(json.dumps(fields)))
                assert b"a shard" in channel.recv(1000)
                channel.close()
                wire.sendall(head("GET /health"))
                answer = wire.recv(1000)
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"\r\nconnection: close\r\n" in answer


def test_channel_that_begins_while_the_bridge_stops_gets_its_whole_shard(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.protocols.NEW_SECONDS", 5)
    with Bridge(data, grace=MINUTE) as bridge:
        user, shard = User(bridge, "alice"), bytes(8 * MiB)
        bucket = user.bucket()
        [pointer] = user.pointers(bucket, user.upload(bucket, shard).json["hash"]).json
        fields = {name: pointer[name] for name in ("token", "hash", "operation")}
        with send(bridge) as wire, wire.makefile("rb") as received, stopping(bridge):
            assert still_open(wire)
            wire.sendall(upgrade())
            while received.readline() != b"\r\n":
                pass
            wire.sendall(text(json.dumps(fields)))
            threading.Event().wait(5.5)  # longer than a connection may be without a request
            frames = len(shard) // FRAME * (10 + FRAME)
            assert len(received.read(frames)) == frames
            assert received.read(4) == NORMAL_CLOSE
            wire.shutdown(socket.SHUT_WR)


def test_channel_that_its_client_closes_while_the_bridge_stops_is_no_error(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.protocols.NEW_SECONDS", 5)
    with Bridge(data, grace=MINUTE) as bridge:
        busy = head("POST /users", "Content-Length: 2") + b"{"
        with send(bridge, busy) as busy_wire, send(bridge, upgrade()) as wire:
            assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
            with stopping(bridge):
                assert still_open(wire)
                wire.sendall(close_frame())
                assert wire.recv(100)[:1] == NORMAL_CLOSE[:1]
                wire.close()
                threading.Event().wait(5.5)  # until it would have been given up
                busy_wire.sendall(b"}")
                assert busy_wire.recv(100).startswith(b"HTTP/1.1 400 ")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_channel_whose_client_answers_no_close_holds_up_no_stop(data: Path) -> None:
    with (
        Bridge(data, grace=MINUTE) as bridge,
        send(bridge, upgrade()) as wire,
        wire.makefile("rb") as received,
    ):
        while received.readline() != b"\r\n":
            pass
        wire.sendall(text("{}"))
        frames = b""
        while not frames.endswith(NORMAL_CLOSE):
            frames += received.read(1)
        assert b"You did not supply a token" in frames
        stop = threading.Thread(target=bridge.close)
        stop.start()
        stop.join(8)  # uvicorn itself waits ten seconds for the answer
        assert not stop.is_alive()


def still_open(wire: socket.socket) -> bool:
    """Return whether a bridge that stops has not closed *wire* when it has looked at each one."""
    return not select.select([wire], [], [], 1)[0]


def close_frame() -> bytes:
    return Frame(Opcode.CLOSE, NORMAL_CLOSE[2:]).serialize(mask=True)


@pytest.mark.parametrize("path", ["POST /", "PUT /buckets/x/files", "DELETE /"])
def test_websocket_that_begins_with_another_method_is_refused(bridge: Bridge, path: str) -> None:
    with send(bridge, upgrade(path) + b"more") as wire, wire.makefile("rb") as received:
        assert received.read().startswith(b"HTTP/1.1 400 ")


def test_connection_ends_after_an_upgrade_that_is_not_known(bridge: Bridge) -> None:
    fields = "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AA"
    with send(bridge, head("OPTIONS /", *fields)) as wire, wire.makefile("rb") as received:
        assert received.read().startswith(b"HTTP/1.1 204 ")


def drip(wire: socket.socket, piece: bytes) -> bytes:
    """Send *piece* again and again, with pauses, until an answer or the end comes; return it."""
    with suppress(ConnectionError):  # a piece may be on its way when the end comes
        for _ in range(400):
            if select.select([wire], [], [], 0.05)[0]:
                return wire.recv(5000)
            wire.sendall(piece)
        raise AssertionError("it goes on for ever")
    return b""


def test_dripping_head_is_disconnected(bridge: Bridge) -> None:
    with send(bridge, b"GET / HTTP/1.1\r\nX: ") as wire:
        assert drip(wire, b"x") == b""


@pytest.mark.parametrize("framing", ["Content-Length: 60000", "Transfer-Encoding: chunked"])
def test_dripping_body_gets_408(bridge: Bridge, framing: str) -> None:
    with send(bridge, head("POST /users", framing)) as wire:
        assert drip(wire, b"1\r\nx\r\n"[: 6 if "chunked" in framing else 1]).startswith(
            b"HTTP/1.1 408 "
        )


def test_pings_without_reading_take_no_memory(bridge: Bridge) -> None:
    pings = 100 * Frame(Opcode.PING, 125 * b"x").serialize(mask=True)
    with send(bridge, upgrade()) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
        assert fill(wire, pings) < 20 * MiB, "more than the buffers of the sockets"


@pytest.mark.parametrize(
    "begun", [b"", b"\x81\x85", b"\x89\x80\0\0\0\0"], ids=["nothing", "part", "ping"]
)
def test_channel_without_a_message_is_given_up(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("pymdc.bridge.routes.channels.FIRST_MESSAGE_SECONDS", 0.1)
    with send(bridge, upgrade() + begun) as wire, wire.makefile("rb") as received:
        while received.readline() != b"\r\n":
            pass
        assert received.read(4) == NORMAL_CLOSE


def test_text_that_is_not_utf8_leaves_one_line(
    bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    with send(bridge, upgrade()) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
        wire.sendall(Frame(Opcode.TEXT, b"\xff").serialize(mask=True))
        assert b"\x03\xef" in wire.recv(1000), "1007"
    [record] = caplog.records
    assert (record.levelname, record.exc_info) == ("INFO", None)
    assert record.getMessage() == "Invalid UTF-8 sequence received from client."


def test_connections_are_bounded_and_told_once(data: Path) -> None:
    limited, bridge = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"], Bridge()
    with (
        bridge_process(data, wrapper=limited) as (bridge.endpoint, process),
        ExitStack() as connections,
    ):
        idle = [connections.enter_context(send(bridge)) for _ in range(300)]
        busy = connections.enter_context(send(bridge, head("POST /users", "Content-Length: 10")))
        assert ask(bridge, "GET", "/").status == 200
        assert select.select(idle, [], [], 0)[0], "some are closed"
        busy.sendall(b"0123456789")
        assert busy.recv(100).startswith(b"HTTP/1.1 400 "), "a request is never given up for it"
        process.terminate()
        assert process.stderr
        errors = process.stderr.read()
    assert errors.count("there are 128 connections") == 1
    assert "socket.accept()" not in errors

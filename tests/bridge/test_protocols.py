"""What a client can make one connection hold."""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from backends import Backend
from plain_client import NORMAL_CLOSE, Clock, User, address, ask, fill, form, head, upgrade
from processes import MINUTE
from websockets.frames import Frame, Opcode

from pymdc.bridge import Bridge

MiB = 1024 * 1024


@pytest.fixture
def bridge(backend: Backend, clock: Clock) -> Iterator[Bridge]:
    with backend.bridge(patience=1, clock=clock) as running:
        yield running


def connect(bridge: Bridge, sent: bytes = b"") -> socket.socket:
    """Connect with a small buffer for answers, and send *sent*."""
    wire = socket.socket()
    wire.settimeout(MINUTE)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    wire.connect(address(bridge))
    wire.sendall(sent)
    return wire


def read_all(wire: socket.socket) -> bytes:
    with wire.makefile("rb") as received:
        return received.read()


def frame(opcode: Opcode, data: bytes) -> bytes:
    return Frame(opcode, data).serialize(mask=True)


@pytest.mark.parametrize("size", [1, 60_000], ids=["small", "large"])
def test_client_that_reads_no_answers_is_disconnected(bridge: Bridge, size: int) -> None:
    ended = select.poll()
    requests = 1000 * head("GET /") if size == 1 else head("GET /" + size * "x")
    with connect(bridge) as wire:
        assert fill(wire, requests) < 20 * MiB, "more than the buffers of the sockets"
        ended.register(wire, 0)  # its end is reported, whatever there is to read
        assert ended.poll(1000 * MINUTE)


def test_pipelined_requests_are_answered_in_order(bridge: Bridge) -> None:
    chunked = head("POST /b", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
    sized = head("POST /c", "Content-Length: 9000") + 9000 * b"c"
    wires = b"".join(head(f"GET /a{number}") + chunked + sized for number in range(300))
    with connect(bridge) as wire, wire.makefile("rb") as received:
        wire.setblocking(False)
        got = b""
        while got.count(b"HTTP/1.1 404 ") < 900 or not got.endswith(b"}"):
            readable, writable, _ = select.select([wire], [wire] if wires else [], [], MINUTE)
            assert readable or writable
            if writable:
                wires = wires[wire.send(wires) :]
            if readable:
                got += received.read1(65536)
    paths = re.findall(rb"Cannot \w+ /(\w+)", got)
    assert paths == [path for number in range(300) for path in (b"a%d" % number, b"b", b"c")]


def test_request_after_one_that_closes_the_connection_is_not_answered(bridge: Bridge) -> None:
    with connect(bridge, head("GET /x", "Connection: close") + head("GET /y")) as wire:
        assert read_all(wire).count(b"HTTP/1.1") == 1


def test_upload_that_was_refused_and_goes_on_is_disconnected(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.app.DRAIN_SECONDS", 0.2)
    with connect(bridge, head("PUT /buckets/x/files", f"Content-Length: {10**12}")) as wire:
        with pytest.raises(ConnectionError):
            wire.sendall(1000 * MiB * b"x")


@pytest.mark.parametrize(("fields", "status"), [(99, b"404"), (100, b"400")])
def test_head_has_so_many_fields(bridge: Bridge, fields: int, status: bytes) -> None:
    with connect(bridge, head("GET /x", *(fields * ["a: b"]))) as wire:
        assert wire.recv(100).split()[1] == status


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ((), b"404"),
        (("",), b"404"),
        (("x.example:80",), b"404"),
        (("[fe80::1%25eth0]:80",), b"404"),
        (("x", "x"), b"400"),
        (("x/y",), b"400"),
        (("a@x",), b"400"),
        (("x:y",), b"400"),
        (('x" y',), b"400"),
        (("\xe9",), b"400"),
        ((2000 * "x",), b"400"),
    ],
    ids=str,
)
def test_host_is_one_name_and_a_port(bridge: Bridge, hosts: tuple[str, ...], status: bytes) -> None:
    lines = ["GET /x HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close", "", ""]
    with connect(bridge, "\r\n".join(lines).encode("latin-1")) as wire:
        assert read_all(wire).split()[1] == status


def test_channel_that_begins_before_the_last_answer_is_refused(bridge: Bridge) -> None:
    with connect(bridge, head("GET /") + upgrade()) as wire:
        assert b" 101 " not in read_all(wire)


@pytest.mark.parametrize("message", [b"{}", b""], ids=["refused", "none"])
def test_pings_around_a_message_take_no_memory(bridge: Bridge, message: bytes) -> None:
    pings = 1000 * frame(Opcode.PING, 125 * b"x")
    with connect(bridge, upgrade()) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
        sent = fill(wire, 40 * pings + frame(Opcode.TEXT, message) + 100 * pings)
        assert sent < 20 * MiB, "more than the buffers of the sockets"


def test_messages_after_the_first_are_dropped(bridge: Bridge) -> None:
    refusal, more = frame(Opcode.TEXT, b"{}"), 900 * frame(Opcode.BINARY, b"")
    with connect(bridge, upgrade()) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
        wire.sendall(refusal + more)
        got = b""
        while NORMAL_CLOSE not in got:
            got += wire.recv(1000)
        assert got.count(b"You did not supply a token") == 1


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG, Opcode.CONT, Opcode.BINARY])
def test_channel_takes_so_many_frames(bridge: Bridge, opcode: Opcode) -> None:
    first = Frame(Opcode.BINARY, b"", fin=False).serialize(mask=True)
    empty = Frame(opcode, b"", fin=opcode is not Opcode.CONT).serialize(mask=True)
    with connect(bridge, upgrade()) as wire:
        assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
        with pytest.raises(ConnectionError):
            wire.sendall((first if opcode is Opcode.CONT else b"") + 10**6 * empty)


@pytest.mark.parametrize(
    ("count", "size", "status"), [(1000, 1, b"404"), (1001, 1, b"400"), (5000, 64, b"404")]
)
def test_many_chunks_are_not_small(bridge: Bridge, count: int, size: int, status: bytes) -> None:
    body = count * (b"%x\r\n%s\r\n" % (size, size * b"x")) + b"0\r\n\r\n"
    fields = "Transfer-Encoding: chunked", "Connection: close"
    with connect(bridge, head("POST /x", *fields)) as wire:
        wire.sendall(body)
        replies = read_all(wire)
    assert replies.rpartition(b"HTTP/1.1 ")[2].startswith(status)


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET / HTTP/1.1\r\n", head("POST /users", "Content-Length: 10"), upgrade()],
    ids=["idle", "head", "body", "channel"],
)
def test_connections_that_stand_still_make_room(
    data: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.uvicorn.max_connections", lambda: 8)
    monkeypatch.setattr("pymdc.bridge.serving.protocols.ROOM_SECONDS", 0)
    with Bridge(data) as bridge, ExitStack() as wires:
        for _ in range(20):
            wires.enter_context(connect(bridge, begun))
        assert ask(bridge, "GET", "/").status == 200


def test_transfers_in_progress_make_no_room(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.uvicorn.max_connections", lambda: 8)
    with Bridge(data) as bridge, ExitStack() as wires:
        user = User(bridge, "alice")
        body = form(bytes(1000))
        begun = user.upload_head(user.bucket(), 1000, len(body), "Expect: 100-continue")
        with connect(bridge, begun) as upload:
            assert upload.recv(100).startswith(b"HTTP/1.1 100 ")
            upload.sendall(body[:500])
            for _ in range(20):
                wires.enter_context(connect(bridge, b"GET"))
            upload.sendall(body[500:])
            assert upload.recv(100).startswith(b"HTTP/1.1 200 ")

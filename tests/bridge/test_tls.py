"""TLS: the client of pymdc, new certificates, and clients that stand still in it."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate
from modes import PATIENCE, Ask
from plain_client import accepts, address, head, stopping
from processes import MINUTE, bridge_process
from websockets.frames import Frame, Opcode

import pymdc
from pymdc.bridge import Bridge
from pymdc.bridge.serving.tls import Certificate, SecureListener
from pymdc.bridge.serving.uvicorn import Server
from pymdc.bridge.settings import CLOSE_SECONDS, MAX_HANDSHAKES

DATA = bytes(range(250)) * 10_000
PIECE, PIECES = bytes(16_000), 100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two certificates for localhost."""
    first, second = (
        certificate(tmp_path_factory.mktemp("tls"), "localhost").rename for _ in range(2)
    )
    folder = tmp_path_factory.mktemp("made")
    return first(folder / "first.pem"), second(folder / "second.pem")


@pytest.fixture
def pem(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return the file that the bridge uses."""
    return Path(shutil.copy(made[0], tmp_path / "bridge.pem"))


@pytest.fixture
def bridge(data: Path, pem: Path) -> Iterator[Bridge]:
    with Bridge(data, host="localhost", shard_size=1_000_000, tls_cert=pem, tls_key=pem) as running:
        yield running


def connected(bridge: Bridge, trusted: Path) -> ssl.SSLSocket:
    """Return a connection after its handshake."""
    return connected_to(address(bridge), trusted)


def connected_to(its_address: tuple[str, int], trusted: Path) -> ssl.SSLSocket:
    wire = socket.socket()
    wire.settimeout(PATIENCE)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    wire.connect(its_address)
    context = ssl.create_default_context(cafile=trusted)
    return context.wrap_socket(wire, server_hostname="localhost")


def channel(bridge: Bridge, trusted: Path) -> ssl.SSLSocket:
    """Return an open channel."""
    lines = "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"
    wire = connected(bridge, trusted)
    wire.sendall(head("GET /", *lines, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
    assert wire.recv(1000).startswith(b"HTTP/1.1 101 ")
    return wire


def status(wire: ssl.SSLSocket) -> bytes:
    wire.sendall(head("GET /health"))
    return wire.recv(5000)[9:12]


def files_of_new_user(bridge: Bridge, client: pymdc.Client) -> pymdc.api.Files:
    user = pymdc.api.Users("a@example.com", "pass", client=client)
    user.register()
    user.activate(bridge.activation_key(user.username))
    keys = pymdc.api.Keys(user)
    keys.create()
    pair = keys.key_pairs[0]
    bucket = pymdc.api.Buckets(pair, client=client).create("photos", 1, 1, [])
    return pymdc.api.Files(bucket["id"], pair, client=client)


def test_client_with_the_certificate_uploads_and_downloads(
    ask: Ask, bridge: Bridge, made: tuple[Path, Path], tmp_path: Path
) -> None:
    assert bridge.endpoint.startswith("https://localhost:")
    with pymdc.Client(bridge.endpoint, ca_certs=str(made[0])) as client:
        files = files_of_new_user(bridge, client)
        stored = ask(files.upload, io.BytesIO(DATA))
        [*pointers] = ask(files.download, stored["hash"])
        channel = bridge.endpoint.replace("https", "wss")
        assert [pointer["channel"] for pointer in pointers] == 3 * [channel]
        assert ask(files.download, stored["hash"], to=tmp_path / "copy")["size"] == len(DATA)
    assert (tmp_path / "copy").read_bytes() == DATA
    with pymdc.Client(bridge.endpoint) as stranger:
        assert isinstance(ask(stranger_call(stranger)), pymdc.PymdcError)


def stranger_call(client: pymdc.Client) -> Any:
    return pymdc.api.Users("b@example.com", "pass", client=client).register


def test_variable_of_openssl_names_the_certificate(
    ask: Ask, bridge: Bridge, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(made[0]))
    with pymdc.Client(bridge.endpoint) as client:
        assert ask(stranger_call(client))["activated"] is False


def test_new_certificate_is_for_new_connections(
    bridge: Bridge, made: tuple[Path, Path], pem: Path
) -> None:
    with connected(bridge, made[0]) as old:
        shutil.copy(made[1], pem)
        assert bridge.reload_certificate() is True
        with connected(bridge, made[1]) as new:
            assert status(new) == b"200"
        with pytest.raises(ssl.SSLCertVerificationError):
            connected(bridge, made[0])
        assert status(old) == b"200"


def break_text(pem: Path, _other: Path) -> str:
    pem.write_text("x")
    return f"the certificate {pem} can't be used with the key {pem}: no PEM"


def remove(pem: Path, _other: Path) -> str:
    pem.unlink()
    return f"[Errno 2] No such file or directory: '{pem}'"


def mix(pem: Path, other: Path) -> str:
    marker = "-----BEGIN CERTIFICATE"
    key, _, _ = pem.read_text().partition(marker)
    pem.write_text(key + marker + other.read_text().partition(marker)[2])
    return f"the certificate {pem} can't be used with the key {pem}: key values mismatch"


def encrypt(pem: Path, _other: Path) -> str:
    command: list[str | Path] = ["openssl", "pkey", "-in", pem, "-aes128", "-passout", "pass:x"]
    key = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    marker = "-----BEGIN CERTIFICATE"
    pem.write_text(key + marker + pem.read_text().partition(marker)[2])
    return f"the key {pem} is encrypted; expected one without a password"


@pytest.mark.parametrize("spoil", [break_text, remove, mix, encrypt])
def test_broken_certificate_is_told_and_the_old_one_kept(
    bridge: Bridge, made: tuple[Path, Path], pem: Path, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told = spoil(pem, made[1])
    assert bridge.reload_certificate() is False
    [record] = caplog.records
    assert (record.levelname, record.exc_info) == ("ERROR", None)
    assert record.getMessage() == f"{told}; the old certificate stays in use"
    with connected(bridge, made[0]) as wire:
        assert status(wire) == b"200"
    with pytest.raises(OSError, match=re.escape(told)), Bridge(tls_cert=pem, tls_key=pem):
        pass


def test_bridge_without_tls_has_no_certificate_to_read_again(data: Path) -> None:
    with Bridge(data) as bridge, pytest.raises(RuntimeError, match="it serves without TLS"):
        bridge.reload_certificate()


def test_sighup_reads_the_certificate_again(data: Path, made: tuple[Path, Path], pem: Path) -> None:
    options, bridge = (
        ["--host", "localhost", "--tls-cert", str(pem), "--tls-key", str(pem)],
        Bridge(),
    )
    with bridge_process(data, *options) as (bridge.endpoint, process):
        assert process.stderr
        assert "data in" in process.stderr.readline()
        for content, line in (
            (b"x", f"ERROR the certificate {pem} can't be used with the key {pem}: no PEM;"),
            (made[1].read_bytes(), f"INFO the certificate {pem} was read again"),
        ):
            pem.write_bytes(content)
            process.send_signal(signal.SIGHUP)
            assert line in process.stderr.readline()
        with connected(bridge, made[1]) as wire:
            assert status(wire) == b"200"
        process.terminate()
        assert process.wait(MINUTE) == 0


def test_closed_terminal_ends_the_program(data: Path) -> None:
    terminal, its_program = os.openpty()
    command = [sys.executable, "-m", "pymdc.bridge", "--port", "0", "--data", str(data)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdin=its_program, **pipes))
        stack.callback(process.kill)
        os.close(its_program)
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        assert "data in" in process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        assert "there is no certificate to read again" in process.stderr.readline()
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert process.wait(MINUTE) == 0


def test_failed_handshake_is_a_line(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pymdc.bridge")
    with socket.create_connection(address(bridge), timeout=PATIENCE) as wire:
        wire.sendall(head("GET /"))
        assert wire.recv(1000) == b""
    bridge.close()
    assert re.search(r"the TLS handshake with 127\.0\.0\.1 failed: .*http request", caplog.text)


def test_connections_without_a_handshake_are_bounded(
    bridge: Bridge, made: tuple[Path, Path]
) -> None:
    with ExitStack() as connections:
        idle = [
            connections.enter_context(socket.create_connection(address(bridge), timeout=PATIENCE))
            for _ in range(MAX_HANDSHAKES + 20)
        ]
        with connected(bridge, made[0]) as wire:
            assert status(wire) == b"200"
        for connection in idle[:20]:
            assert connection.recv(1) == b""
        assert not select.select(idle[21:], [], [], 0)[0]


@pytest.fixture
def patient(data: Path, pem: Path) -> Iterator[Bridge]:
    """Return a bridge that gives requests in flight a minute when it is closed."""
    with Bridge(data, host="localhost", tls_cert=pem, tls_key=pem, grace=MINUTE) as running:
        yield running


def closes_soon(bridge: Bridge) -> threading.Thread:
    """Close *bridge* on a thread, and wait until it accepts no more connections."""
    stop = threading.Thread(target=bridge.close)
    stop.start()
    while accepts(bridge):
        pass
    return stop


def test_connection_that_comes_just_as_the_listener_is_closed_is_no_error(
    made: tuple[Path, Path],
) -> None:
    faults: list[Any] = []
    asyncio.run(close_as_a_connection_comes(Certificate(*2 * [made[0]]), faults))
    assert faults == []


async def close_as_a_connection_comes(certificate: Certificate, faults: list[Any]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, fault: faults.append(fault))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        secure = SecureListener(listener, certificate, asyncio.Protocol)
        await asyncio.sleep(0)  # it waits for a connection
        with socket.create_connection(listener.getsockname()):
            loop.call_soon(secure.close)  # and then asyncio sees the connection
            for _ in range(3):
                await asyncio.sleep(0)


def test_clients_that_stand_still_in_tls_do_not_delay_the_close(
    patient: Bridge, made: tuple[Path, Path]
) -> None:
    with (
        socket.create_connection(address(patient)),
        closing(connected(patient, made[0])) as silent,
        closing(connected(patient, made[0])) as used,
        closing(channel(patient, made[0])),
    ):
        assert status(used) == b"200"
        stop = closes_soon(patient)
        stop.join(PATIENCE / 2)  # they answer no farewell
        assert not stop.is_alive()
        assert silent.recv(1) == b""


def test_client_that_stands_still_after_its_last_answer_does_not_delay_the_close(
    patient: Bridge, made: tuple[Path, Path]
) -> None:
    fields = "Content-Type: application/json", "Content-Length: 2", "Expect: 100-continue"
    with closing(connected(patient, made[0])) as wire:
        wire.sendall(head("POST /users", *fields))
        assert wire.recv(5000).startswith(b"HTTP/1.1 100 ")
        stop = closes_soon(patient)
        wire.sendall(b"{}")
        assert wire.recv(5000).startswith(b"HTTP/1.1 400 ")
        stop.join(PATIENCE / 2)
        assert not stop.is_alive()


class LongAnswer:
    """An application that answers with more bytes than the system takes."""

    stopping = False

    def __init__(self) -> None:
        self.channels = self
        self.answered = threading.Event()

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in range(PIECES):
            more = piece < PIECES - 1
            await send({"type": "http.response.body", "body": PIECE, "more_body": more})
        self.answered.set()

    async def finish(self, _seconds: float) -> None:
        pass


def test_client_that_reads_slowly_gets_the_whole_answer_although_the_bridge_stops(
    made: tuple[Path, Path],
) -> None:
    app, certificate = LongAnswer(), Certificate(*2 * [made[0]])
    server = Server(app, MINUTE, MINUTE, certificate)  # type: ignore[arg-type]  # stands in for App
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        serving = stack.enter_context(ExitStack())
        serving.enter_context(server.serving(listener))
        wire = stack.enter_context(connected_to(listener.getsockname(), made[0]))
        wire.sendall(head("GET /", "Connection: close"))
        with wire.makefile("rb") as received:
            read = 0
            while not app.answered.is_set():
                read += len(piece := received.read1(1000))
                assert piece
            stop = threading.Thread(target=serving.close)
            stop.start()
            threading.Event().wait(3 * CLOSE_SECONDS)  # longer than it is waited for a farewell
            read += len(received.read())
        assert read >= PIECES * len(PIECE)
        stop.join(PATIENCE)
        assert not stop.is_alive()


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio of 3.10 keeps little, and frees it later"
)
def test_connections_that_ended_take_no_memory(bridge: Bridge, made: tuple[Path, Path]) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            with connected(bridge, made[0]) as wire:
                assert status(wire) == b"200"
        bridge.close()
        left = [one for one in gc.get_objects() if isinstance(one, ssl.SSLObject)]
    finally:
        gc.enable()
    assert len(left) <= 1, "the last one may not be gone yet"


def test_client_that_answers_no_farewell_of_a_channel_is_disconnected(
    data: Path, pem: Path, made: tuple[Path, Path]
) -> None:
    with (
        Bridge(data, host="localhost", tls_cert=pem, tls_key=pem, patience=0.2) as bridge,
        closing(channel(bridge, made[0])) as wire,
    ):
        wire.sendall(Frame(Opcode.TEXT, b"{}").serialize(mask=True))
        wire.sendall(Frame(Opcode.CLOSE, b"").serialize(mask=True))
        assert wire.recv(1000)
        with socket.socket(fileno=wire.detach()) as below, suppress(ConnectionResetError):
            below.settimeout(PATIENCE / 2)
            while below.recv(1000):
                pass


def test_channel_that_awaits_the_farewell_does_not_break_off_the_stop(
    data: Path, pem: Path, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.serving.protocols.NEW_SECONDS", 0)
    with (
        Bridge(data, host="localhost", tls_cert=pem, tls_key=pem, grace=MINUTE) as bridge,
        closing(connected(bridge, made[0])) as busy,
        closing(channel(bridge, made[0])) as wire,
    ):
        busy.sendall(head("POST /users", "Content-Length: 2") + b"{")
        wire.sendall(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        assert wire.recv(100)[:1] == b"\x88"
        with stopping(bridge):
            busy.sendall(b"}")
            assert busy.recv(100).startswith(b"HTTP/1.1 400 ")


def test_stalled_channel_is_disconnected(data: Path, pem: Path, made: tuple[Path, Path]) -> None:
    with Bridge(data, host="localhost", tls_cert=pem, tls_key=pem, patience=0.2) as bridge:
        with pymdc.Client(bridge.endpoint, ca_certs=str(made[0])) as client:
            files = files_of_new_user(bridge, client)
            [pointer] = files.download(files.upload(io.BytesIO(bytes(8_000_000)))["hash"])
        fields = {name: pointer[name] for name in ("token", "hash", "operation")}
        with channel(bridge, made[0]) as wire:
            wire.sendall(Frame(Opcode.TEXT, json.dumps(fields).encode()).serialize(mask=True))
            assert wire.recv(65536)
            ping = Frame(Opcode.PING, 125 * b"x").serialize(mask=True)
            with pytest.raises(OSError, match=r"reset|Broken|EOF|closed"):
                wire.sendall(500_000 * ping)

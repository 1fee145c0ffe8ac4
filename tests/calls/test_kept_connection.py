"""Calls on a kept connection: if a call is ended early, its connection is closed."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, over_tls
from channels import HASH
from modes import AT_ONCE, PATIENCE, Ask
from processes import MINUTE
from servers import ANSWER, Handler, HoldingServer, RawServer, read_request, read_some, wait

import pymdc
from pymdc import Call, Cancelled, exceptions

LIMIT = 0.4  # seconds, of a call that is to time out
UPLOAD_SIZE = 32 * 1024 * 1024  # bytes, more than the system buffers if a server does not read


def answer_then(then: Handler) -> Handler:
    """Return a handler that answers one request and calls *then* with the connection."""

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ANSWER)
        then(connection)

    return handle


def half_the_headers(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(ANSWER[:20])


def half_the_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(ANSWER[:-1])


def register(client: pymdc.Client, *callback: Callable[[Any], object]) -> Any:
    return pymdc.api.Users("a@b.com", "pass", client=client).register(*callback)


def upload(client: pymdc.Client, *callback: Callable[[Any], object]) -> Any:
    files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
    return files.upload(io.BytesIO(bytes(UPLOAD_SIZE)), "token", *callback)


def download(client: pymdc.Client, *callback: Callable[[Any], object]) -> Any:
    files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
    return files.download(HASH, "token", *callback, to=io.BytesIO())


Make = Callable[..., Any]

STAGES = pytest.mark.parametrize(
    ("then", "make"),
    [
        pytest.param(read_request, register, id="waiting for the answer"),
        pytest.param(half_the_headers, register, id="in the headers"),
        pytest.param(half_the_body, register, id="in the body"),
        pytest.param(read_some, upload, id="in an upload"),
        pytest.param(read_request, download, id="waiting for pointers"),
    ],
)
SCHEMES = pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])


@contextmanager
def client_with_kept_connection(
    then: Handler, folder: Path, secure: bool = False, **settings: Any
) -> Iterator[tuple[HoldingServer, pymdc.Client]]:
    """Yield a server, and a client with a kept connection whose next call the server holds.

    Check at the end that this call has closed the connection.
    """
    trusted = certificate(folder, "localhost") if secure else None

    def over(handle: Handler) -> Handler:
        return over_tls(trusted, handle) if trusted else handle

    with HoldingServer(answer_then(then), over) as server:
        endpoint = f"https://localhost:{server.port}" if trusted else server.endpoint
        with pymdc.Client(
            endpoint, ca_certs=str(trusted) if trusted else None, **settings
        ) as client:
            assert register(client) == []
            yield server, client
            server.released.set()
            assert server.ended.wait(AT_ONCE), "the call did not close its connection"


def check_next_call(server: HoldingServer, client: pymdc.Client) -> None:
    """Check that the next call gets a new connection and an answer."""
    assert server.connections == 1, "the first connection was not kept"
    assert register(client) == []
    assert server.connections == 2


@SCHEMES
@STAGES
def test_cancelled_call_loses_its_kept_connection(
    then: Handler, make: Make, secure: bool, tmp_path: Path
) -> None:
    got: list[Any] = []
    with client_with_kept_connection(then, tmp_path, secure, workers=1) as (server, client):
        call: Call = make(client, got.append)
        assert server.held.wait(PATIENCE)
        assert call.cancel()
        call.join(AT_ONCE)
        assert [type(value) for value in got] == [Cancelled]
        check_next_call(server, client)


@SCHEMES
@STAGES
@pytest.mark.parametrize("how", [{"cancel": True}, {"timeout": 0.1}], ids=["at once", "in time"])
def test_close_cancels_calls_on_kept_connections(
    how: dict[str, Any], then: Handler, make: Make, secure: bool, tmp_path: Path
) -> None:
    got: list[Any] = []
    with client_with_kept_connection(then, tmp_path, secure) as (server, client):
        blocking = threading.Thread(target=lambda: got.append(make(client)))
        blocking.start()
        assert server.held.wait(PATIENCE)
        client.close(**how)
        blocking.join(AT_ONCE)
        assert [type(value) for value in got] == [Cancelled]
        assert server.connections == 1


def drip(connection: socket.socket) -> None:
    """Send an endless answer, one byte at a time."""
    read_request(connection)
    connection.sendall(ANSWER[:20])
    with suppress(OSError):
        for _ in range(600):
            connection.sendall(b"1")
            threading.Event().wait(0.05)


NOTHING_SENT = f"nothing could be sent for {LIMIT} s"


@SCHEMES
@pytest.mark.parametrize(
    ("then", "make", "settings", "text"),
    [
        pytest.param(drip, register, {"total": LIMIT}, f"not done within {LIMIT} s", id="total"),
        pytest.param(drip, download, {"stall": LIMIT}, f"no progress for {LIMIT} s", id="stall"),
        pytest.param(
            read_some, upload, {"stall": LIMIT}, f"no progress for {LIMIT} s", id="stalled upload"
        ),
        pytest.param(
            read_request,
            register,
            {"timeout": (5, LIMIT)},
            f"no answer within {LIMIT} s",
            id="read",
        ),
        pytest.param(read_some, upload, {"timeout": (5, LIMIT)}, NOTHING_SENT, id="write"),
    ],
)
def test_time_limit_holds_on_kept_connection(
    ask: Ask,
    then: Handler,
    make: Make,
    settings: dict[str, Any],
    text: str,
    secure: bool,
    tmp_path: Path,
) -> None:
    with client_with_kept_connection(then, tmp_path, secure, **settings) as (server, client):
        value = ask(lambda callback=None: make(client, *([callback] if callback else [])))
        assert isinstance(value, exceptions.Timeout)
        assert text in str(value)
        check_next_call(server, client)


@STAGES
def test_ctrl_c_in_blocking_call_closes_its_kept_connection(
    then: Handler, make: Make, tmp_path: Path
) -> None:
    def press(connection: socket.socket) -> None:
        then(connection)
        main = threading.main_thread().ident
        assert main
        signal.pthread_kill(main, signal.SIGINT)

    with client_with_kept_connection(press, tmp_path) as (server, client):
        with pytest.raises(KeyboardInterrupt):
            make(client)
        check_next_call(server, client)


PROGRAM = """
import pymdc, sys

user = pymdc.api.Users("a@b.com", "pass", client=pymdc.Client(sys.argv[1]))

def again(value):
    assert value == []
    user.register(lambda value: sys.stdout.write(type(value).__name__ + "\\n"))

for _ in range(4):
    user.register(again)
"""


def test_ctrl_c_ends_callback_calls_on_kept_connections() -> None:
    all_requested, arrived = threading.Barrier(4), threading.Semaphore(0)

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        all_requested.wait(PATIENCE)  # so that each call has its own connection
        connection.sendall(ANSWER)
        read_request(connection)
        arrived.release()
        wait(connection)

    with RawServer(handle) as server:
        command = [sys.executable, "-c", PROGRAM, server.endpoint]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            for _ in range(4):
                assert arrived.acquire(timeout=PATIENCE)
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=MINUTE)
        assert server.connections == 4
    assert printed == "Cancelled\n" * 4
    assert "KeyboardInterrupt" in errors

"""Every call has a time limit, even if the server keeps sending single bytes."""

from __future__ import annotations

import io
import math
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, over_tls
from channels import DATA, HASH, ChannelHandler, pointer, pointer_server, websocket
from modes import AT_ONCE, PATIENCE, Ask, blocking
from processes import python
from servers import (
    Handler,
    HoldingServer,
    RawServer,
    answer_all,
    full_port,
    read_request,
    read_some,
    wait,
    written,
)
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import Call, exceptions
from pymdc._calls import waiting as queue
from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.file_hash import file_hash
from pymdc._http.connection import connection_to
from pymdc._http.raw_response import EarlyResponse
from pymdc.rest import REST

LIMIT = 0.3
LONG = 60
PAUSE = 0.1


def pauses(count: int) -> Iterator[int]:
    """Count to *count* with a pause before each number."""
    for number in range(count):
        threading.Event().wait(PAUSE)
        yield number


def drip(connection: socket.socket) -> None:
    """Send a byte at intervals until the other side closes."""
    with suppress(OSError):
        for _ in pauses(300):
            connection.sendall(b"1")


def dripping(start: bytes) -> Handler:
    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(start)
        drip(connection)

    return handle


def assert_timed_out(value: Any, text: str, where: object) -> None:
    assert isinstance(value, exceptions.Timeout)
    assert text in str(value)
    assert f"127.0.0.1:{where}" in str(value)


def register(ask: Ask, endpoint: str, **settings: Any) -> Any:
    with pymdc.Client(endpoint, **settings) as client:
        return ask(pymdc.api.Users("a@b.com", "pass", client=client).register)


def upload(ask: Ask, endpoint: str, size: int, **settings: Any) -> Any:
    with pymdc.Client(endpoint, **settings) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        return ask(files.upload, io.BytesIO(bytes(size)), "token")


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nServer: ", id="in a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", id="in the body"),
    ],
)
def test_call_ends_at_the_total_though_bytes_keep_coming(ask: Ask, start: bytes) -> None:
    with RawServer(dripping(start)) as server:
        value = register(ask, server.endpoint, total=LIMIT)
    assert_timed_out(value, f"/users: not done within {LIMIT} s", server.port)


@pytest.mark.parametrize("where", ["progress", "file"])
def test_call_inside_a_transfer_ends_at_its_total(ask: Ask, where: str) -> None:
    got: list[Any] = []

    class File(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if where == "file" and size:
                call_other_bridge()
            return super().read(size)

    def call_other_bridge() -> None:
        if not got:
            got.append(register(blocking, slow.endpoint, total=LIMIT))

    def progress(done: int, total: int | None) -> None:
        if where == "progress":
            call_other_bridge()

    start = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"
    with RawServer(dripping(start)) as slow, RawServer(answer_all) as server:
        with pymdc.Client(server.endpoint) as client:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            ask(files.upload, File(bytes(10**7)), "token", progress=progress)
    assert_timed_out(got[0], f"/users: not done within {LIMIT} s", slow.port)


def test_total_includes_retries() -> None:
    handlers: list[Callable[[socket.socket], object]] = [read_request, dripping(b"")]

    def handle(connection: socket.socket) -> None:
        handlers.pop(0)(connection)

    with RawServer(handle) as server, pymdc.Client(server.endpoint, total=2) as client:
        value = pymdc.api.Keys(pymdc.api.Users("a@b.com", client=client)).list()
    assert_timed_out(value, "/keys: not done within 2 s", server.port)
    assert handlers == []


def test_connect_timeout_names_its_limit() -> None:
    with full_port() as port:
        value = register(blocking, f"http://127.0.0.1:{port}", timeout=(0.1, LONG))
    assert type(value) is exceptions.ConnectTimeout
    assert_timed_out(value, "no connection within 0.1 s", port)


def test_missing_tls_handshake_is_a_connect_timeout() -> None:
    with RawServer(wait) as server:
        value = register(blocking, f"https://127.0.0.1:{server.port}", timeout=(0.1, LONG))
    assert type(value) is exceptions.ConnectTimeout
    assert_timed_out(value, "no connection within 0.1 s", server.port)


MUCH = 32 * 1024 * 1024  # more than socket buffers hold if the server does not read


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"stall": LIMIT}, f"no progress for {LIMIT} s"),
        ({"timeout": (LONG, LIMIT)}, f"nothing could be sent for {LIMIT} s"),
    ],
)
def test_upload_to_a_server_that_stops_reading_times_out(
    ask: Ask, settings: dict[str, Any], text: str
) -> None:
    with HoldingServer(read_some) as server:
        value = upload(ask, server.endpoint, MUCH, **settings)
        server.released.set()
    assert_timed_out(value, text, server.port)


def test_upload_may_wait_for_the_server_longer_than_the_connect_timeout() -> None:
    def pause(connection: socket.socket) -> None:
        read_some(connection)
        for _ in pauses(5):
            pass

    with RawServer(pause) as server:
        value = upload(blocking, server.endpoint, MUCH, timeout=(0.1, LONG))
    assert not isinstance(value, exceptions.Timeout)


def one_block(connection: ServerConnection) -> None:
    connection.send(DATA[:5])
    with suppress(Exception):
        connection.recv()


def endless_frame(connection: ServerConnection) -> None:
    connection.socket.sendall(b"\x82\x7e\xff\xff")  # binary, of 65,535 bytes
    drip(connection.socket)


@pytest.mark.parametrize("serve", [one_block, endless_frame])
def test_stalled_channel_times_out(ask: Ask, serve: ChannelHandler, tmp_path: Path) -> None:
    with websocket(serve) as channel, pointer_server([pointer(channel)]) as endpoint:
        with pymdc.Client(endpoint, stall=LIMIT) as client:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            value = ask(files.download, HASH, "token", to=tmp_path / "out")
    assert_timed_out(value, f"no progress for {LIMIT} s", channel.rpartition(":")[2])
    assert list(tmp_path.iterdir()) == []


STEADY: dict[str, Any] = {"total": LIMIT, "stall": 2.0}
BLOCKS = 24  # their pauses together exceed the total and the stall


@pytest.mark.parametrize("by_rest", [False, True], ids=["upload", "REST"])
def test_slow_steady_upload_succeeds(by_rest: bool) -> None:
    class Slow(io.BytesIO):
        pauses = pauses(BLOCKS)

        def read(self, size: int | None = -1) -> bytes:
            next(self.pauses, None)
            return super().read(size)

    data = bytes(BLOCKS * 256 * 1024)
    answer = written("200 OK", b'{"hash": "%s"}' % file_hash(data).encode())

    def store(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    with RawServer(store) as server, pymdc.Client(server.endpoint, **STEADY) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        if by_rest:
            headers = {"x-token": "token", "x-filesize": str(len(data))}
            value = REST("PUT", "/buckets/b/files", {"f": Slow(data)}, (), headers, client=client)
        else:
            value = files.upload(Slow(data), "token")
    assert value == {"hash": file_hash(data)}


def test_slow_steady_download_succeeds(tmp_path: Path) -> None:
    def slow(connection: ServerConnection) -> None:
        for number in pauses(BLOCKS):
            connection.send(bytes([number]))

    data = bytes(range(BLOCKS))
    with websocket(slow) as url, pointer_server([pointer(url, file_hash(data))]) as endpoint:
        with pymdc.Client(endpoint, **STEADY) as client:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            files.download(file_hash(data), "token", to=tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


CALLS = """
import io, pymdc
user, files = pymdc.api.Users("a@b.com"), pymdc.api.Files("b", pymdc.ECDSA())
print({"call": user.register, "transfer": lambda: files.upload(io.BytesIO(), "token")}["%s"]())
"""


@pytest.mark.parametrize(
    ("variable", "seconds", "what", "text"),
    [
        ("PYMDC_TIMEOUT", "9,0.5", "call", "no answer within 0.5 s"),
        ("PYMDC_TOTAL", "0.5", "call", "not done within 0.5 s"),
        ("PYMDC_STALL", "0.5", "transfer", "no progress for 0.5 s"),
    ],
)
def test_variable_sets_the_time_limit(variable: str, seconds: str, what: str, text: str) -> None:
    with RawServer(wait) as server:
        settings = {"PYMDC_ENDPOINT": server.endpoint, variable: seconds}
        done = python("-c", CALLS % what, env=settings)
    assert text in done.stdout
    assert server.endpoint in done.stdout


@pytest.mark.parametrize("seconds", [0, -1, 1e10, float("inf"), float("nan"), "5", None])
@pytest.mark.parametrize("limit", ["timeout", "total", "stall"])
def test_time_limit_must_be_positive_seconds(limit: str, seconds: Any) -> None:
    with pytest.raises(ValueError, match=f"{limit} is .*; expected .*seconds"):
        pymdc.Client("http://127.0.0.1:1", **{limit: seconds})


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_block_sent_in_small_parts_is_progress(tmp_path: Path, secure: bool) -> None:
    """Otherwise an upload at 4 KB/s or less would time out before its block is sent."""
    here, there = socket.socketpair()
    size, wait = 256 * 1024, 1.0
    received = bytearray()

    def receive(connection: socket.socket) -> None:
        while len(received) < size:
            received.extend(connection.recv(size // 40))
            threading.Event().wait(wait / 20)  # so that it takes twice as long as may be waited

    pem = certificate(tmp_path, "localhost")
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    serve = over_tls(pem, receive) if secure else receive
    reading = threading.Thread(target=serve, args=(there,))
    reading.start()
    tls = ssl.create_default_context(cafile=pem)
    if secure:
        here = tls.wrap_socket(here, server_hostname="localhost")
    here.settimeout(wait)
    scope = CancelScope(wait, renews=True)
    scope.start()
    with here, there:
        connection = connection_to("x", 1, lambda: tls, secure=secure)
        connection.sock = here
        connection.open(scope, (wait, wait))
        connection.sock.settimeout(0)
        connection._send(memoryview(bytes(size)), EarlyResponse())
        assert scope.remaining() > 0
        reading.join()
        scope.detach()
    assert len(received) == size


FOR_EVER = pytest.mark.parametrize(
    "seconds", [1e20, 10**400, math.inf], ids=["1e20", "huge", "inf"]
)


@FOR_EVER
def test_close_accepts_any_large_timeout(seconds: float) -> None:
    pymdc.Client("http://127.0.0.1:1").close(seconds)


def test_close_refuses_a_timeout_that_is_no_number() -> None:
    with pytest.raises(TypeError, match=r"timeout of close\(\) is '3'; expected seconds, or None"):
        pymdc.Client("http://127.0.0.1:1").close("3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"timeout of close\(\) is nan; expected seconds, or None"):
        pymdc.Client("http://127.0.0.1:1").close(float("nan"))


WAITS = [Call.join, Call.result, Call.exception]


@pytest.mark.parametrize("wait", WAITS)
@FOR_EVER
def test_call_may_be_waited_for_without_limit(
    seconds: float, wait: Callable[[Call, float], object]
) -> None:
    with pymdc.Client("http://127.0.0.1:1") as client:
        go = threading.Event()
        call = client.run(lambda scope: go.wait(PATIENCE), lambda value: None)
        threading.Timer(0.1, go.set).start()
        assert wait(call, seconds) is (True if wait is Call.result else None)
        assert call.done()


@pytest.mark.parametrize("wait", WAITS)
def test_waiting_for_a_call_refuses_nan(wait: Callable[[Call, float], object]) -> None:
    go = threading.Event()
    with pymdc.Client("http://127.0.0.1:1") as client:
        call = client.run(lambda scope: go.wait(PATIENCE), lambda value: None)
        with pytest.raises(ValueError, match="the timeout is nan; expected seconds"):
            wait(call, float("nan"))
        go.set()


def test_waiting_for_a_call_ends_before_its_done_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_POLL_INTERVAL", 1e6)  # so that nothing else wakes the waiter
    go, go_on = threading.Event(), threading.Event()
    with pymdc.Client("http://127.0.0.1:1") as client:
        call = client.run(lambda scope: go.wait(PATIENCE), lambda value: None)
        call.add_done_callback(lambda call: go_on.wait(PATIENCE))
        results = list[bool]()
        waiting = threading.Thread(target=lambda: results.append(call.result()))
        waiting.start()
        go.set()
        waiting.join(AT_ONCE)
        ended = results.copy()
        go_on.set()
        assert ended == [True]

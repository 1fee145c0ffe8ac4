"""A cancelled call ends at once, at whatever stage it is; and no call blocks another."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from channels import DATA, HASH, pointer, pointer_server, websocket
from modes import AT_ONCE, PATIENCE, register
from servers import (
    ANSWER,
    Handler,
    HoldingServer,
    RawServer,
    answer_all,
    answering,
    full_port,
    read_request,
    read_some,
    written,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import Call, Cancelled
from pymdc._calls.cancel_scope import CancelScope, NestedScope

Ask = Callable[[pymdc.Client, Callable[[Any], object]], Call]


def upload(client: pymdc.Client, callback: Callable[[Any], object]) -> Call:
    files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
    call: Call = files.upload(io.BytesIO(bytes(32 * 1024 * 1024)), "token", callback)
    return call


def cancel_and_check(call: Call, got: list[Any]) -> None:
    """Cancel *call*; check that its callback gets `Cancelled` at once, and once."""
    assert call.cancel()
    call.join(AT_ONCE)
    assert not call.is_alive()
    assert [type(value) for value in got] == [Cancelled]
    assert "it was cancelled" in str(got[0])
    assert call.result() is got[0]


def half_the_headers(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(ANSWER[:20])


def half_the_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(ANSWER[:-1])


@pytest.mark.parametrize(
    ("scheme", "first", "ask"),
    [
        pytest.param("https", read_some, register, id="in the TLS handshake"),
        pytest.param("http", read_request, register, id="waiting for the answer"),
        pytest.param("http", half_the_headers, register, id="in the headers"),
        pytest.param("http", half_the_body, register, id="in the body"),
        pytest.param("http", read_some, upload, id="in an upload"),
    ],
)
def test_cancelled_call_closes_its_connection_and_frees_its_worker(
    scheme: str, first: Handler, ask: Ask
) -> None:
    got: list[Any] = []
    with HoldingServer(first) as server:
        with pymdc.Client(f"{scheme}://127.0.0.1:{server.port}", workers=1) as client:
            call = ask(client, got.append)
            assert server.held.wait(PATIENCE)
            cancel_and_check(call, got)
            server.released.set()
            assert server.ended.wait(PATIENCE)
            after = register(client, lambda value: None)
            assert server.another.wait(AT_ONCE)
            after.cancel()
            assert not call.cancel()
    assert len(got) == 1


def test_download_is_cancelled_while_its_channel_stalls(tmp_path: Path) -> None:
    held, ended = threading.Event(), threading.Event()
    got: list[Any] = []

    def stall(connection: ServerConnection) -> None:
        connection.send(DATA[:5])
        held.set()
        with pytest.raises(ConnectionClosed):
            connection.recv()
        ended.set()

    with websocket(stall) as channel, pointer_server([pointer(channel)]) as endpoint:
        with pymdc.Client(endpoint, workers=1) as client:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            call = files.download(HASH, "token", got.append, to=tmp_path / "out")
            assert held.wait(PATIENCE)
            cancel_and_check(call, got)
            assert ended.wait(PATIENCE)
    assert list(tmp_path.iterdir()) == []


_connect_hooks: dict[int, Callable[[], object]] = {}


def _run_connect_hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and _connect_hooks:
        _connect_hooks.get(arguments[1][1], int)()  # type: ignore[index]


# An audit hook cannot be removed; this one does nothing while no port has a hook.
sys.addaudithook(_run_connect_hook)


@contextmanager
def connection_begun(port: int) -> Iterator[threading.Event]:
    """Yield an event that is set when a connection to *port* begins."""
    event = threading.Event()
    _connect_hooks[port] = event.set
    yield event
    del _connect_hooks[port]


@pytest.mark.parametrize("where", ["bridge", "channel"])
def test_call_is_cancelled_while_it_connects(where: str, tmp_path: Path) -> None:
    got: list[Any] = []
    with full_port() as port, pointer_server([pointer(f"ws://127.0.0.1:{port}")]) as endpoint:
        if where == "bridge":
            endpoint = f"http://127.0.0.1:{port}"
        with pymdc.Client(endpoint, workers=1) as client, connection_begun(port) as begun:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            call = files.download(HASH, "token", got.append, to=tmp_path / "out")
            assert begun.wait(PATIENCE)
            cancel_and_check(call, got)


def test_call_is_cancelled_just_before_it_connects() -> None:
    made, got, calls = threading.Event(), list[Any](), list[Call]()

    def cancel() -> None:
        made.wait(PATIENCE)
        calls[0].cancel()

    with full_port() as port, pymdc.Client(f"http://127.0.0.1:{port}") as client:
        _connect_hooks[port] = cancel
        calls.append(register(client, got.append))
        made.set()
        calls[0].join(AT_ONCE)
        del _connect_hooks[port]
        assert [type(value) for value in got] == [Cancelled]


class WarningHandler(logging.Handler):
    """Sets an event when something is logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.set()


@pytest.fixture
def warning() -> Iterator[threading.Event]:
    """Yield an event that is set when pymdc logs a warning."""
    handler = WarningHandler()
    logging.getLogger("pymdc").addHandler(handler)
    yield handler.seen
    logging.getLogger("pymdc").removeHandler(handler)


def test_call_is_cancelled_during_retry_delay(warning: threading.Event) -> None:
    got: list[Any] = []
    busy = answering(written("503 Service Unavailable", b"", "Retry-After: 100"))
    with RawServer(busy) as server, pymdc.Client(server.endpoint) as client:
        call = register(client, got.append)
        assert warning.wait(PATIENCE)
        cancel_and_check(call, got)
    assert server.connections == 1


def test_call_cancelled_in_queue_is_never_sent() -> None:
    got: list[Any] = []
    with HoldingServer(read_request) as server, pymdc.Client(server.endpoint, workers=1) as client:
        first = register(client, lambda value: None)
        assert server.held.wait(PATIENCE)
        queued = [register(client, got.append) for _ in range(50)]
        for call in queued:
            assert call.cancel()
        for call in queued:
            call.join(AT_ONCE)
            assert not call.is_alive()
        assert first.is_alive()
        first.cancel()
        server.released.set()
    assert [type(value) for value in got] == [Cancelled] * 50
    assert server.connections == 1


def test_end_of_a_scope_wakes_every_thread_that_sleeps_in_it() -> None:
    call = CancelScope()
    part = NestedScope(call)
    woken: list[type] = []

    def sleep(scope: CancelScope) -> None:
        sleeping.wait(PATIENCE)
        try:
            scope.sleep(10 * PATIENCE)
        except Cancelled as error:
            woken.append(type(error))

    scopes = [call, call, part, part]
    sleeping = threading.Barrier(len(scopes) + 1)
    threads = [threading.Thread(target=sleep, args=(scope,)) for scope in scopes]
    for thread in threads:
        thread.start()
    sleeping.wait(PATIENCE)
    call.cancel()
    for thread in threads:
        thread.join(AT_ONCE)
    assert woken == [Cancelled] * len(scopes)


def test_finished_call_is_not_cancelled() -> None:
    got: list[Any] = []
    with RawServer(answer_all) as server, pymdc.Client(server.endpoint) as client:
        call = register(client, got.append)
        call.join(PATIENCE)
        assert not call.cancel()
        assert not call.cancelled()
        assert call.result() == []
    assert got == [[]]


def test_finished_scope_is_not_cancelled() -> None:
    scope = CancelScope()
    assert scope.finish("value") == "value"
    assert not scope.cancel()
    scope.check()


class BlockingIdleConnections(deque[Any]):
    """Idle connections; the thread that puts back the first one waits for ``go_on``."""

    def __init__(self) -> None:
        super().__init__()
        self.put_back, self.go_on = threading.Event(), threading.Event()

    def append(self, item: Any) -> None:
        super().append(item)
        if not self.put_back.is_set():
            self.put_back.set()
            self.go_on.wait(PATIENCE)


class CallingFile(io.BytesIO):
    """A file whose reading makes a call."""

    def read(self, size: int | None = -1) -> bytes:
        with RawServer(answer_all) as server, pymdc.Client(server.endpoint) as client:
            assert pymdc.api.Users("a@b.com", client=client).register() == []
        return super().read(size)


def upload_calling_file(client: pymdc.Client, callback: Callable[[Any], object]) -> Call:
    files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
    call: Call = files.upload(CallingFile(b"data"), "token", callback)
    return call


@pytest.mark.parametrize("ask", [register, upload_calling_file])
def test_call_cancelled_after_its_answer_leaves_connection_to_next_call(ask: Ask) -> None:
    arrived, answer = threading.Event(), threading.Event()

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(ANSWER)
        read_request(connection)
        arrived.set()
        answer.wait(PATIENCE)
        connection.sendall(ANSWER)

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        client._transport._idle = kept = BlockingIdleConnections()
        cancelled = ask(client, lambda value: None)
        assert kept.put_back.wait(PATIENCE)
        following = register(client, lambda value: None)
        assert arrived.wait(PATIENCE)
        assert cancelled.cancel()
        kept.go_on.set()
        answer.set()
        assert isinstance(cancelled.result(PATIENCE), Cancelled)
        assert following.result(PATIENCE) == []
    assert server.connections == 1


def test_cancelled_asyncio_future_cancels_its_call() -> None:
    got: list[Any] = []

    async def cancel_future(server: HoldingServer, client: pymdc.Client) -> Call:
        call = register(client, got.append)
        future = asyncio.wrap_future(call)
        await asyncio.to_thread(server.held.wait, PATIENCE)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        await asyncio.to_thread(call.join, AT_ONCE)
        return call

    with HoldingServer(read_request) as server, pymdc.Client(server.endpoint) as client:
        call = asyncio.run(cancel_future(server, client))
        assert not call.is_alive()
        server.released.set()
        assert server.ended.wait(PATIENCE)
    assert [type(value) for value in got] == [Cancelled]


def test_blocking_call_bypasses_thousand_queued_calls() -> None:
    got: list[Any] = []
    with HoldingServer(read_request) as server, pymdc.Client(server.endpoint, workers=1) as client:
        first = register(client, got.append)
        assert server.held.wait(PATIENCE)
        queued = [register(client, got.append) for _ in range(1000)]
        assert pymdc.api.Users("a@b.com", client=client).register() == []
        assert got == []
        assert all(call.is_alive() for call in queued)
        server.released.set()
        first.cancel()
    assert [type(value) for value in got] == [Cancelled] + [list] * 1000


def test_blocking_calls_and_joins_nest_in_callbacks_of_one_worker() -> None:
    got: list[Any] = []
    with RawServer(answer_all) as server, pymdc.Client(server.endpoint, workers=1) as client:
        user = pymdc.api.Users("a@b.com", client=client)

        def step(value: Any) -> None:
            got.append(user.register())
            if len(got) < 3:
                register(client, step).join(PATIENCE)

        call = register(client, step)
        call.join(AT_ONCE)
        assert not call.is_alive()
        assert got == [[]] * 3


def test_blocking_callback_delays_no_other_worker() -> None:
    blocked, go_on = threading.Event(), threading.Event()
    got: list[Any] = []

    def block(value: Any) -> None:
        blocked.set()
        go_on.wait(PATIENCE)

    with RawServer(answer_all) as server, pymdc.Client(server.endpoint, workers=2) as client:
        register(client, block)
        assert blocked.wait(PATIENCE)
        calls = [register(client, got.append) for _ in range(50)]
        for call in calls:
            call.join(PATIENCE)
        assert got == [[]] * 50
        go_on.set()

"""A finished call holds its value, and no reference to its source, target or callbacks."""

from __future__ import annotations

import io
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

import fake_bridge
import pytest
from fake_bridge import HASH, FakeBridge, send_damaged
from modes import MODES, PATIENCE, Ask
from servers import RawServer, answering, read_request, read_some, wait, written

import pymdc
from pymdc import Cancelled, exceptions
from pymdc.exceptions import Closed

pytestmark = pytest.mark.usefixtures("no_collection")

SIZE = 3_000_000


class Content(bytearray):
    """Bytes to which a weak reference can be made."""


class File(io.BytesIO):
    """A file to which a weak reference can be made."""


def refuse(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(written("400 Bad Request", b'{"error": "no"}'))


def drop(connection: socket.socket) -> None:
    read_some(connection)


def store(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(written("200 OK", b'{"hash": "%s"}' % (b"0" * 40)))


def stop(done: int, total: int | None) -> None:
    raise ZeroDivisionError


HANDLERS: dict[str, tuple[Callable[[socket.socket], None], dict[str, Any], type]] = {
    "stored": (store, {"verify": False}, dict),
    "stored as another one": (store, {}, exceptions.IntegrityError),
    "refused": (refuse, {}, dict),
    "not JSON": (answering(written("502 Bad Gateway", b"<html>")), {}, exceptions.HTTPError),
    "dropped": (drop, {}, exceptions.ConnectionLost),
    "garbled": (answering(b"no HTTP\r\n\r\n"), {}, exceptions.GarbledAnswer),
    "stopped by progress": (store, {"progress": stop}, ZeroDivisionError),
}


def call_and_keep(
    mode: str, method: Callable[..., Any], *args: Any, **kwargs: Any
) -> tuple[Any, Any]:
    """Call *method*; return its value, and the object that the caller may keep."""
    if mode == "blocking":
        value = method(*args, **kwargs)
        return value, value
    call = method(*args, **kwargs, callback=lambda value: None)
    return call.result(PATIENCE), call


def assert_released(reference: weakref.ref[Any]) -> None:
    assert reference() is None


@pytest.mark.parametrize("kind", [Content, File])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("handle", HANDLERS)
def test_finished_upload_releases_its_source(handle: str, mode: str, kind: Any) -> None:
    respond, options, expected = HANDLERS[handle]
    data = kind(bytes(SIZE))
    reference = weakref.ref(data)
    with RawServer(respond) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value, call = call_and_keep(mode, files.upload, data, "token", **options)
        assert type(value) is expected
        if kind is Content:
            data.extend(b"more")
        del data
        assert_released(reference)
        del call, value


@pytest.mark.parametrize("mode", MODES)
def test_upload_without_a_connection_releases_its_source(mode: str) -> None:
    data = Content(SIZE)
    reference = weakref.ref(data)
    with pymdc.Client("http://127.0.0.1:1") as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value, call = call_and_keep(mode, files.upload, data, "token")
        assert type(value) is exceptions.ConnectError
        data.extend(b"more")
        del data
        assert_released(reference)
        del call, value


@pytest.mark.parametrize("mode", MODES)
def test_upload_on_a_closed_client_releases_its_source(mode: str) -> None:
    data = Content(SIZE)
    reference = weakref.ref(data)
    client = pymdc.Client("http://127.0.0.1:1")
    client.close()
    files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
    value, call = call_and_keep(mode, files.upload, data, "token")
    assert type(value) is Closed
    data.extend(b"more")
    del data
    assert_released(reference)
    client.close()
    del call, value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [Content, File])
@pytest.mark.parametrize("limit", ["stall", "timeout"])
def test_upload_that_times_out_releases_its_source(limit: str, kind: Any, mode: str) -> None:
    data = kind(bytes(SIZE))
    reference = weakref.ref(data)
    settings: dict[str, Any] = {limit: 0.5}
    with RawServer(wait) as server, pymdc.Client(server.endpoint, **settings) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value, call = call_and_keep(mode, files.upload, data, "token")
        assert type(value) is exceptions.Timeout
        del data
        assert_released(reference)
        del call, value


@pytest.mark.parametrize("mode", MODES)
def test_upload_that_was_sent_again_releases_its_source(mode: str) -> None:
    breaks = [True]

    def handle(connection: socket.socket) -> None:
        while head := read_request(connection)[0]:
            if head.startswith(b"PUT") and breaks:
                breaks.clear()
                return
            answer = b'{"token": "t"}' if head.startswith(b"POST") else b'{"hash": "0"}'
            connection.sendall(written("200 OK", answer))

    data = File(bytes(SIZE))
    reference = weakref.ref(data)
    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value, call = call_and_keep(mode, files.upload, data, verify=False)
        assert value == {"hash": "0"}
        del data
        assert_released(reference)
        del call, value


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("handle", [None, send_damaged, fake_bridge.refuse, fake_bridge.drop])
def test_finished_download_releases_its_target(handle: Any, mode: str) -> None:
    target = File()
    reference = weakref.ref(target)
    with FakeBridge() as fake, pymdc.Client(fake.endpoint) as client:
        if handle is not None:
            fake.handlers[3] = handle
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value, call = call_and_keep(mode, files.download, HASH, to=target)
        assert isinstance(value, dict | exceptions.IntegrityError)
        del target
        assert_released(reference)
        del call, value


@pytest.mark.parametrize("queued", [False, True], ids=["on its way", "in the queue"])
def test_cancelled_upload_releases_its_source(queued: bool) -> None:
    arrived = threading.Event()

    def hold(connection: socket.socket) -> None:
        connection.recv(100)
        arrived.set()
        wait(connection)

    data = Content(SIZE)
    reference = weakref.ref(data)
    with RawServer(hold) as server, pymdc.Client(server.endpoint, workers=1) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        first = files.upload(bytearray(1), "token", lambda value: None) if queued else None
        call = files.upload(data, "token", lambda value: None)
        assert arrived.wait(PATIENCE)
        assert call.cancel()
        assert type(call.result(PATIENCE)) is Cancelled
        data.extend(b"more")
        del data
        assert_released(reference)
        assert first is None or first.cancel()


def test_finished_call_releases_its_callbacks(ask: Ask) -> None:
    class Callback:
        def __call__(self, value: Any) -> None:
            """Be a callback."""

    with pymdc.Client("http://127.0.0.1:1") as client:
        callback, done = Callback(), Callback()
        references = [weakref.ref(callback), weakref.ref(done)]
        call = pymdc.api.Users("a@b.com", client=client).register(callback)
        call.add_done_callback(done)
        call.join(PATIENCE)
        client.close()  # a function that waits for a call is called after the call is done
        del callback, done
        for reference in references:
            assert_released(reference)
        assert not call.cancel()
        assert isinstance(call.result(), exceptions.ConnectError)

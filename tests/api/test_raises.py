"""A client that raises: blocking calls raise what other clients return."""

from __future__ import annotations

import inspect
import io
import logging
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from modes import PACKAGE, PATIENCE
from servers import HoldingServer, RawServer, answering, read_request, read_some, written

import pymdc
from pymdc import api, exceptions
from pymdc.bridge import Bridge
from pymdc.testing import Account

SECRET = "5ecret" * 4


@pytest.fixture
def raising(bridge: Bridge) -> Iterator[pymdc.Client]:
    with pymdc.Client(bridge.endpoint, raises=True) as client:
        yield client


def every_call(client: pymdc.Client) -> list[Callable[[], Any]]:
    """Return every call of the API, with *client* and with secrets among the arguments."""
    user = api.Users("a@b.com", SECRET, client=client)
    pair = pymdc.ECDSA()
    bucket = api.Bucket("b", pair, client=client)
    keys, buckets = api.Keys(user), api.Buckets(pair, client=client)
    arguments: dict[str, tuple[Any, ...]] = {
        "Users.activate": (SECRET,),
        "Users.change_password": (SECRET,),
        "Users.reset_password": (SECRET, SECRET),
        "Keys.delete": (pair,),
        "Buckets.create": ("b", 1, 1, [pair]),
        "Bucket.patch": ({"name": "b"},),
        "Files.token": ("PUSH",),
        "Files.upload": (io.BytesIO(b"data"), SECRET),
        "Files.download": ("hash", SECRET),
        "Files.delete": ("hash",),
        "Files.rename": ("hash", "name"),
    }
    calls: list[Callable[[], Any]] = [
        lambda: pymdc.rest.REST(
            "PUT", "/b", {"file": io.BytesIO(b"data")}, headers={"x-token": SECRET}, client=client
        ),
        lambda: pymdc.rest.REST("POST", "/b", {"password": SECRET}, auth=user, client=client),
    ]
    for resource in (user, keys, buckets, bucket, bucket.files):
        for name, method in inspect.getmembers(resource, inspect.ismethod):
            if name[0] != "_" and "callback" in inspect.signature(method).parameters:
                given = arguments.get(f"{type(resource).__name__}.{name}", ())
                calls.append(partial(method, *given))
    return calls


def raised_by(call: Callable[[], Any]) -> BaseException:
    try:
        value = call()
    except Exception as error:  # noqa: BLE001  # whatever it is
        return error
    raise AssertionError(f"returned {value!r}")


NUMBER_OF_CALLS = len(every_call(pymdc.Client("http://127.0.0.1:1")))


@pytest.mark.parametrize("number", range(NUMBER_OF_CALLS))
@pytest.mark.parametrize("body", [b'{"error": "no"}', b"<html>"], ids=["refused", "failed"])
def test_every_call_raises_with_one_frame_of_pymdc_and_without_secrets(
    number: int, body: bytes
) -> None:
    with RawServer(answering(written("400 Bad", body))) as server:
        with pymdc.Client(server.endpoint, raises=True) as client:
            error = raised_by(every_call(client)[number])
    expected = pymdc.BridgeError if b"error" in body else exceptions.HTTPError
    assert type(error) is expected
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if frame.f_code.co_filename.startswith(PACKAGE)]
    assert own == frames[-1:]
    assert SECRET not in repr([frame.f_locals for frame in own])
    assert {*own[0].f_locals} == {"method"}
    assert error.__context__ is None


def test_answer_is_returned(raising: pymdc.Client, account: Account) -> None:
    assert api.Buckets(account.key_pair, client=raising).list() == []


def test_callback_gets_the_value(raising: pymdc.Client, new_user: api.Users) -> None:
    new_user.register()
    again = api.Users(new_user.username, "other", client=raising)
    got: list[Any] = []
    call = again.forgot_password(got.append)
    assert call.result(PATIENCE) is got[0]
    refused = api.Files("b", pymdc.ECDSA(), client=raising).list(got.append).result(PATIENCE)
    assert set(refused) == {"error"}
    lost = api.Files("b", None, client=raising).upload("missing.jpg", "token", got.append)
    assert type(lost.result(PATIENCE)) is FileNotFoundError
    assert len(got) == 3


def test_blocking_call_in_callback_raises(raising: pymdc.Client) -> None:
    files = api.Files("b", pymdc.ECDSA(), client=raising)
    got: list[Any] = []

    def again(_refused: Any) -> None:
        got.append(raised_by(files.list))

    files.list(again).join(PATIENCE)
    assert [type(error) for error in got] == [pymdc.BridgeError]


def test_call_that_raises_in_callback_is_logged_without_secrets(
    raising: pymdc.Client, caplog: pytest.LogCaptureFixture
) -> None:
    user = api.Users("nobody@example.com", SECRET, client=raising)

    def again(_answer: Any) -> None:
        user.activate(SECRET)

    api.Files("b", pymdc.ECDSA(), client=raising).list(again).join(PATIENCE)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    assert record.exc_info[0] is pymdc.BridgeError
    shown = traceback.TracebackException(*record.exc_info, capture_locals=True)
    assert SECRET not in "".join(line for line in shown.format() if "user.activate" not in line)


def test_exception_of_progress_is_raised_with_its_frames(
    raising: pymdc.Client, bucket: api.Bucket
) -> None:
    mine = ZeroDivisionError("mine")

    def stop(_done: int, _total: int | None) -> None:
        raise mine

    files = api.Files(bucket.bucket_id, bucket.key_pair, client=raising)
    for _ in range(2):  # the same exception may be raised twice
        error = raised_by(lambda: files.upload(io.BytesIO(bytes(1_000_000)), progress=stop))
        assert error is mine
        names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
        assert names[:4] == ["raised_by", "<lambda>", "call", "stop"]
        assert names.count("call") * 4 == len(names)  # no other frame of pymdc


def test_exception_that_is_a_value_has_no_traceback_until_it_is_raised(
    raising: pymdc.Client,
) -> None:
    files = api.Files("b", None, client=raising)
    value = files.upload("missing.jpg", "token", lambda answer: None).result(PATIENCE)
    assert value.__traceback__ is None


def test_raised_exception_holds_no_bytes(no_collection: None) -> None:
    data = bytearray(3_000_000)
    with RawServer(read_some) as server:
        with pymdc.Client(server.endpoint, raises=True) as client:
            files = api.Files("b", None, client=client)
            with pytest.raises(exceptions.ConnectionLost):
                files.upload(data, "token")
    data.append(0)  # BufferError while a view of the bytes exists


def test_wrong_argument_raises_as_before(raising: pymdc.Client) -> None:
    with pytest.raises(TypeError, match="the callback is int"):
        api.Users("a@b.com", client=raising).register(5)  # type: ignore[arg-type]  # the check
    with pytest.raises(TypeError, match="raises is 1; expected True or False"):
        pymdc.Client("http://127.0.0.1:1", raises=1)  # type: ignore[arg-type]  # the check


def test_raises_may_be_assigned(raising: pymdc.Client) -> None:
    files = api.Files("b", pymdc.ECDSA(), client=raising)
    raising.raises = False
    assert set(files.list()) == {"error"}
    raising.raises = True
    assert isinstance(raised_by(files.list), pymdc.BridgeError)


def test_call_of_closed_client_raises() -> None:
    with pymdc.Client("http://127.0.0.1:1", raises=True) as client:
        files = api.Files("b", pymdc.ECDSA(), client=client)
    assert type(raised_by(files.list)) is exceptions.Closed


def test_cancelled_blocking_call_raises() -> None:
    def cancel(connection: socket.socket) -> None:
        read_request(connection)
        client.close(cancel=True)

    with RawServer(cancel) as server:
        client = pymdc.Client(server.endpoint, raises=True)
        error = raised_by(api.Files("b", pymdc.ECDSA(), client=client).list)
    assert type(error) is exceptions.Cancelled


@pytest.mark.parametrize(
    ("value", "raises"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False)]
)
def test_variable_sets_default_client(
    monkeypatch: pytest.MonkeyPatch, value: str, raises: bool
) -> None:
    monkeypatch.setenv("PYMDC_RAISES", value)
    monkeypatch.delenv("PYMDC_ENDPOINT")
    call = pymdc.api.Users("a@b.com").register
    if raises:
        assert type(raised_by(call)) is exceptions.NoEndpoint
    else:
        assert type(call()) is exceptions.NoEndpoint


def test_invalid_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYMDC_RAISES", "yes please")
    with pytest.raises(ValueError, match="PYMDC_RAISES is 'yes please'; expected 1 or 0"):
        pymdc.api.Users("a@b.com").register()


INTERRUPTED = """
import signal, pymdc
user = pymdc.api.Users("a@b.com", client=pymdc.Client({endpoint!r}, raises=True))
print("ready", flush=True)
try:
    user.register()
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_raises_keyboard_interrupt() -> None:
    with HoldingServer(read_request) as server:
        server.released.set()
        command = [sys.executable, "-c", INTERRUPTED.format(endpoint=server.endpoint)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert server.held.wait(PATIENCE)
            process.send_signal(signal.SIGINT)
            assert process.stdout
            assert process.stdout.read() == "ready\ninterrupted\n"

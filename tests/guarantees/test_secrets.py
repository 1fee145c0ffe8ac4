"""No log, repr or exception has a secret, whatever fails."""

from __future__ import annotations

import base64
import io
import json
import logging
import secrets
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import urllib3
from certificates import certificate, over_tls
from channels import HASH, ChannelHandler, blocks, pointer, pointer_server, websocket
from fake_bridge import drop, refuse, send_damaged
from modes import PATIENCE, Ask
from proxies import Proxy
from servers import (
    Handler,
    HoldingServer,
    RawServer,
    answer_all,
    answering,
    echoing,
    read_request,
    written,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import exceptions
from pymdc._http.request import build_request
from pymdc.bridge import Bridge
from pymdc.rest import REST


def pieces(secret: str) -> list[str]:
    """Return overlapping pieces of *secret*, to find it in a shortened text too."""
    return [secret[start : start + 16] for start in range(0, len(secret) - 15, 8)]


def chain(error: BaseException) -> list[BaseException]:
    """Return *error* with its causes and contexts; check that they form no cycle."""
    found = [error]
    for link in found:
        for cause in {link.__cause__, link.__context__}:
            assert cause not in found
            if cause is not None:
                found.append(cause)
    return found


def traceback_with_locals(error: BaseException) -> Iterator[str]:
    """Give the traceback of *error* with the local variables of each frame."""
    yield from traceback.TracebackException.from_exception(error, capture_locals=True).format()


class LeakDetector(logging.Handler):
    """Collects logs and other texts, and the secrets that must not be in them."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        self.texts: list[str] = []
        self.secrets: dict[str, str] = {}
        self.mailed = SimpleQueue[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def value(self, value: Any) -> Any:
        """Collect the texts of a call's *value*, with the locals of an exception; return it."""
        for error in chain(value) if isinstance(value, BaseException) else ():
            self.texts += ["".join(traceback_with_locals(error)), repr(vars(error))]
        return self.shown(value)

    def shown(self, value: Any) -> Any:
        """Collect the texts of *value*, an object or an exception; return it."""
        if isinstance(value, BaseException):
            self.texts += [str(value), repr(value), "".join(traceback.format_exception(value))]
        elif not isinstance(value, dict | list):
            self.texts += [str(value), repr(value)]
        return value

    def raised(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Collect the texts of the exception that *function* raises."""
        with pytest.raises((TypeError, ValueError)) as caught:
            function(*args, **kwargs)
        self.shown(caught.value)

    def secret(self, name: str, value: str) -> str:
        """Register *value* as a secret and return it."""
        assert len(value) >= 16
        self.secrets[f"{name} {len(self.secrets)}"] = value
        return value

    def check(self) -> None:
        text = "\n".join(self.texts).lower()
        found = {
            name: text[max(0, text.index(piece) - 80) :][:100]
            for name, secret in self.secrets.items()
            for piece in pieces(secret.lower())
            if piece in text
        }
        assert found == {}


@pytest.fixture
def leaks() -> Iterator[LeakDetector]:
    """Collect all logs at DEBUG; check at the end that they have no secret."""
    handler, root = LeakDetector(), logging.getLogger()
    named = [logging.getLogger(name) for name in list(logging.Logger.manager.loggerDict)]
    levels = [(logger, logger.level) for logger in (root, *named)]
    for logger, _ in levels:
        logger.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for logger, level in levels:
        logger.setLevel(level)
    handler.check()


@pytest.fixture
def watched_bridge(leaks: LeakDetector) -> Iterator[Bridge]:
    """Run a bridge in this process whose whole log is collected."""

    def announce(_email: str, link: str) -> None:
        leaks.mailed.put(leaks.secret("mailed", link.rpartition("/")[2]))

    with Bridge(announce=announce) as running:
        yield running


class WatchedKeyPair(pymdc.ECDSA):
    """A key pair that registers its signatures as secrets."""

    leaks: LeakDetector

    def sign(self, *args: Any, **kwargs: Any) -> str:
        return self.leaks.secret("signature", super().sign(*args, **kwargs))


@pytest.fixture
def pair(leaks: LeakDetector) -> WatchedKeyPair:
    made = WatchedKeyPair()
    made.leaks = leaks
    for form in ("hex", "base64"):
        leaks.secret("private key", str(made.get_private_key(form)))
    leaks.secret("private key", repr(made.private_key)[2:-1])
    return made


def new_user(leaks: LeakDetector, client: pymdc.Client, name: str) -> pymdc.api.Users:
    """Return a user whose password is registered as a secret, plain and as it is sent."""
    password = leaks.secret("password", f"pass {secrets.token_hex(16)}")
    user = pymdc.api.Users(f"{name}@example.com", password, client=client)
    digest = leaks.secret("hash", user.password_hash())
    credentials = base64.b64encode(f"{user.username}:{digest}".encode()).decode()
    leaks.secret("authorization", credentials)
    return user


def token(leaks: LeakDetector) -> str:
    return leaks.secret("made-up token", secrets.token_hex(32))


def test_whole_lesson_with_refusals_leaks_no_secret(
    ask: Ask, leaks: LeakDetector, watched_bridge: Bridge, pair: WatchedKeyPair, tmp_path: Path
) -> None:
    def got(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return leaks.value(ask(method, *args, **kwargs))

    with pymdc.Client(watched_bridge.endpoint) as client:
        user = new_user(leaks, client, "somebody")
        got(user.register)
        assert "error" in got(user.register)
        key = leaks.secret("activation", watched_bridge.activation_key(user.username))
        assert "error" in got(user.activate, token(leaks))
        assert got(user.activate, key)["activated"] is True
        assert "error" in got(user.activate, key)
        keys = pymdc.api.Keys(user)
        got(keys.create, pair)
        assert len(got(keys.list)) == 1
        assert "error" in got(pymdc.api.Keys(new_user(leaks, client, "nobody")).list)
        buckets = pymdc.api.Buckets(pair, client=client)
        bucket_id = got(buckets.create, "photos", 1, 1, [pair])["id"]
        bucket = pymdc.api.Bucket(bucket_id, pair, client=client)
        got(buckets.list)
        got(bucket.list)
        got(bucket.patch, {"name": "renamed"})
        push = leaks.secret("PUSH", got(bucket.files.token, "PUSH")["token"])
        entry = got(bucket.files.upload, io.BytesIO(b"photo"), push)
        assert "error" in got(bucket.files.upload, io.BytesIO(b"photo"), push)
        got(bucket.files.upload, tmp_path / "missing")
        got(bucket.files.list)
        pull = leaks.secret("PULL", got(bucket.files.token, "PULL")["token"])
        pointers = got(bucket.files.download, entry["hash"], pull)
        leaks.secret("pointer", pointers[0]["token"])
        assert b"".join(blocks(client, pointers[0])) == b"photo"
        with pytest.raises(exceptions.ChannelError) as caught:
            list(blocks(client, pointers[0]))
        leaks.shown(caught.value)
        got(bucket.files.download, entry["hash"], to=tmp_path / "back")
        assert "error" in got(bucket.files.download, entry["hash"], token(leaks))
        got(bucket.files.delete, entry["hash"])
        got(bucket.delete)
        assert "error" in got(bucket.list)
        got(keys.delete, pair)
        assert "error" in got(buckets.list)
        assert "error" not in got(user.change_password, new_user(leaks, client, "x").password)
        leaks.mailed.get(timeout=PATIENCE)  # the activation
        got(user.forgot_password)
        mailed, password = leaks.mailed.get(timeout=PATIENCE), new_user(leaks, client, "x").password
        assert "error" in got(user.reset_password, token(leaks), password)
        assert "error" not in got(user.reset_password, mailed, password)
        assert "error" in got(new_user(leaks, client, "somebody").delete)
        assert got(user.delete) == ""
        for shown in (client, user, keys, pair, buckets, bucket, bucket.files, watched_bridge):
            leaks.value(shown)
    text = "\n".join(leaks.texts)
    assert "pymdc DEBUG GET" in text
    assert "/activations/... answered 200" in text


def failing(status: str, body: bytes = b"", *headers: str) -> Handler:
    length = f"Content-Length: {len(body)}"
    lines = [f"HTTP/1.1 {status}", length, "Connection: close", *headers, "", ""]
    return answering("\r\n".join(lines).encode() + body)


def hold_open(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def reset(connection: socket.socket) -> None:
    read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def echo_as_hash(connection: socket.socket) -> None:
    """Answer with JSON that has the request's head as its hash."""
    body = json.dumps({"hash": read_request(connection)[0].decode()}).encode()
    connection.sendall(written("200 OK", body, "Connection: close"))


FIRST = (b"authorization:", b"proxy-authorization:", b"x-signature:", b"x-token:")

FAILURES: dict[str, Handler] = {
    "echoes": echoing(b""),
    "echoes a header first": echoing(b"", FIRST),
    "echoes a header as its version": echoing(b"HTTP/9.9 ", FIRST),
    "echoes a header as its status": echoing(b"HTTP/1.1 ", FIRST),
    "echoes a header as its length": echoing(b"HTTP/1.1 200 OK\r\nContent-Length: ", FIRST),
    "echoes a header as a chunk": echoing(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", FIRST
    ),
    "echoes in a header": echoing(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
    "echoes as an encoding": echoing(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Encoding: "),
    "echoes as a hash": echo_as_hash,
    "echoes in the middle": echoing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "closes": lambda connection: None,
    "resets": reset,
    "is silent": hold_open,
    "is no HTTP": answering(b"220 ESMTP\r\n\r\n"),
    "answers HTML": failing("502 Bad Gateway", b"<html>"),
    "redirects": failing("302 Found", b"", "Location: http://127.0.0.1:1/"),
    "is busy": failing("503 Busy", b"{}", "Retry-After: 0"),
    "knows a nonce": failing("401 No", b'{"error":"Invalid nonce supplied"}'),
    "garbles": failing("200 OK", b"no gzip", "Content-Encoding: gzip"),
    "cuts": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
    "has bad headers": answering(b"HTTP/1.1 200 OK\r\n bad\r\nContent-Length: 0\r\n\r\n"),
    "is no bridge": failing("200 OK", b'"text"'),
}


def make_every_call(
    ask: Ask, leaks: LeakDetector, client: pymdc.Client, pair: WatchedKeyPair
) -> None:
    """Make calls with every kind of authentication at once, then request a shard."""
    user = new_user(leaks, client, "x")
    files = pymdc.api.Files("0" * 24, pair, client=client)
    with ThreadPoolExecutor(16) as threads:

        def make(method: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
            values.append(threads.submit(ask, method, *args, **kwargs))

        values: list[Future[Any]] = []
        make(user.register)
        make(user.activate, token(leaks))
        for path in ("/%61ctivations/", "/%41CTIV%41tions/", "/activations%2f"):
            make(REST, "GET", path + token(leaks), client=client)
        make(user.register, invitation=leaks.secret("invitation", secrets.token_hex(16)))
        make(user.change_password, new_user(leaks, client, "x").password)
        make(user.forgot_password)
        make(user.reset_password, token(leaks), new_user(leaks, client, "x").password)
        make(user.delete)
        make(pymdc.api.Keys(user).list)
        make(pymdc.api.Keys(user).create, pair)
        make(pymdc.api.Buckets(pair, client=client).list)
        make(files.token, "PUSH")
        make(files.upload, io.BytesIO(b"photo"), token(leaks))
        make(files.download, "hash", token(leaks))
    for value in values:
        leaks.value(value.result())
    channel = client.endpoint.replace("http", "ws", 1)
    with pytest.raises(pymdc.PymdcError) as caught:
        list(blocks(client, {**pointer(channel), "token": token(leaks)}))
    leaks.shown(caught.value)


@pytest.mark.parametrize("handle", FAILURES.values(), ids=FAILURES)
def test_failure_leaks_no_secret(
    ask: Ask, leaks: LeakDetector, pair: WatchedKeyPair, handle: Handler
) -> None:
    with RawServer(handle) as server:
        with pymdc.Client(server.endpoint, timeout=(5, 0.05), total=2) as client:
            make_every_call(ask, leaks, client, pair)
    assert any("pymdc DEBUG" in text for text in leaks.texts)
    assert not any(text.startswith("urllib3") for text in leaks.texts)


def test_channel_that_echoes_its_request_leaks_no_secret(
    ask: Ask, leaks: LeakDetector, pair: WatchedKeyPair, tmp_path: Path
) -> None:
    def repeat(connection: ServerConnection) -> None:
        sent = connection.recv()
        connection.send(json.dumps({"code": 400, "message": f"this was sent: {sent!r}"}))

    with websocket(repeat, reads_request=True) as url:
        with pointer_server([{**pointer(url), "token": token(leaks)}]) as endpoint:
            with pymdc.Client(endpoint) as client:
                files = pymdc.api.Files("0" * 24, pair, client=client)
                value = ask(files.download, HASH, token(leaks), to=tmp_path / "out")
    assert type(leaks.value(value)) is exceptions.ChannelError
    assert 'answered 400: this was sent: \'{"token": "...", ' in str(value)


def test_refused_or_late_connection_leaks_no_secret(
    ask: Ask, leaks: LeakDetector, pair: WatchedKeyPair, tmp_path: Path
) -> None:
    with pymdc.Client("http://127.0.0.1:1") as client:
        make_every_call(ask, leaks, client, pair)
    with RawServer(over_tls(certificate(tmp_path, "localhost"), hold_open)) as server:
        with pymdc.Client(f"https://localhost:{server.port}") as client:
            make_every_call(ask, leaks, client, pair)
    with RawServer(hold_open) as server, pymdc.Client(server.endpoint, total=0.05) as client:
        leaks.value(ask(new_user(leaks, client, "x").activate, token(leaks)))
        leaks.value(ask(pymdc.api.Buckets(pair, client=client).list))
    leaks.value(ask(pymdc.api.Buckets(pair, client=client).list))  # the client is closed now


def test_proxy_leaks_no_secret(
    ask: Ask,
    leaks: LeakDetector,
    watched_bridge: Bridge,
    pair: WatchedKeyPair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    password = leaks.secret("proxy's password", secrets.token_hex(16))
    leaks.secret("proxy's header", base64.b64encode(f"al:{password}".encode()).decode())
    hosts = {"bridge.invalid": int(watched_bridge.endpoint.rpartition(":")[2])}
    monkeypatch.setenv("no_proxy", "")
    for expected in (f"al:{password}", "al:another"):
        with Proxy(hosts, expected) as proxy:
            monkeypatch.setenv("http_proxy", f"http://al:{password}@{proxy.address}")
            with pymdc.Client("http://bridge.invalid") as client:
                make_every_call(ask, leaks, client, pair)
    for handle in (
        echoing(b"HTTP/1.1 407 "),
        echoing(b"HTTP/1.1 407 ", FIRST),
        echoing(b"", FIRST),
    ):
        with RawServer(handle) as server:
            monkeypatch.setenv("http_proxy", f"http://al:{password}@127.0.0.1:{server.port}")
            with pymdc.Client("http://bridge.invalid") as client:
                make_every_call(ask, leaks, client, pair)


LARGE = 8_000_000  # bytes, more than a connection takes before they are read
CLUE = "a value of the caller's own"


class FailingFile(io.BytesIO):
    """A file that cannot be read."""

    def read(self, size: int | None = -1) -> bytes:
        clue = CLUE
        raise KeyError(len(clue))


class ShrinkingFile(io.BytesIO):
    """A file with no bytes where its size promises some."""

    def read(self, size: int | None = -1) -> bytes:
        return b""


def halfway(done: int, total: int | None) -> None:
    clue = CLUE
    raise ZeroDivisionError(len(clue))


def at_the_end(done: int, total: int | None) -> None:
    if done == total:
        halfway(done, total)


@pytest.mark.parametrize(
    ("handle", "source", "kind"),
    [
        (lambda connection: connection.recv(100_000), io.BytesIO, exceptions.ConnectionLost),
        (reset, io.BytesIO, exceptions.ConnectionLost),
        (hold_open, ShrinkingFile, exceptions.IntegrityError),
        (hold_open, io.BytesIO, exceptions.Timeout),
        (failing("401 Unauthorized", b"<html>"), io.BytesIO, exceptions.HTTPError),
        (failing("200 OK", b'{"hash": "0"}'), io.BytesIO, exceptions.IntegrityError),
    ],
    ids=["closes", "resets", "shrinks", "is silent", "refuses", "stores something else"],
)
def test_failed_upload_leaks_no_secret(
    ask: Ask,
    leaks: LeakDetector,
    pair: WatchedKeyPair,
    handle: Handler,
    source: Callable[[bytes], Any],
    kind: type[pymdc.PymdcError],
) -> None:
    limit = 1 if kind is exceptions.Timeout else PATIENCE
    with RawServer(handle) as server, pymdc.Client(server.endpoint, timeout=limit) as client:
        files = pymdc.api.Files("0" * 24, pair, client=client)
        value = leaks.value(ask(files.upload, source(bytes(LARGE)), token(leaks)))
    assert type(value) is kind
    assert all(error.__traceback__ is None for error in chain(value))


def test_cancelled_call_leaks_no_secret(
    ask: Ask, leaks: LeakDetector, pair: WatchedKeyPair
) -> None:
    def cancel(connection: socket.socket) -> None:
        connection.recv(100)
        client.close(cancel=True)

    with RawServer(cancel) as server:
        client = pymdc.Client(server.endpoint)
        files = pymdc.api.Files("0" * 24, pair, client=client)
        value = leaks.value(ask(files.upload, io.BytesIO(bytes(LARGE)), token(leaks)))
    assert type(value) is exceptions.Cancelled
    assert all(error.__traceback__ is None for error in chain(value))


def stay_silent(connection: ServerConnection) -> None:
    """Send nothing until the other side closes."""
    with suppress(ConnectionClosed):
        connection.recv()


def garbled(connection: ServerConnection) -> None:
    """Send bytes that are no frame."""
    connection.socket.sendall(b"\xff" * 9)


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        (refuse, exceptions.ChannelError),
        (send_damaged, exceptions.IntegrityError),
        (drop, exceptions.ConnectionLost),
        (garbled, exceptions.GarbledAnswer),
        (stay_silent, exceptions.Timeout),
        (None, exceptions.ConnectError),
    ],
    ids=["refuses", "sends another", "vanishes", "is garbled", "is silent", "is none"],
)
def test_failed_shard_leaks_no_secret(
    ask: Ask,
    leaks: LeakDetector,
    pair: WatchedKeyPair,
    tmp_path: Path,
    serve: ChannelHandler | None,
    kind: type[pymdc.PymdcError],
) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(websocket(serve)) if serve else "ws://127.0.0.1:1"
        endpoint = stack.enter_context(pointer_server([{**pointer(url), "token": token(leaks)}]))
        limit = 1 if kind is exceptions.Timeout else PATIENCE
        client = stack.enter_context(pymdc.Client(endpoint, timeout=limit))
        files = pymdc.api.Files("0" * 24, pair, client=client)
        value = leaks.value(ask(files.download, HASH, token(leaks), to=tmp_path / "out"))
    assert type(value) is kind
    assert all(error.__traceback__ is None for error in chain(value))


@pytest.mark.parametrize(
    ("source", "progress", "function"),
    [
        (FailingFile, None, "read"),
        (io.BytesIO, halfway, "halfway"),
        (io.BytesIO, at_the_end, "at_the_end"),
    ],
)
def test_exception_of_user_function_has_only_frames_of_that_function(
    ask: Ask,
    leaks: LeakDetector,
    watched_bridge: Bridge,
    pair: WatchedKeyPair,
    source: Callable[[bytes], Any],
    progress: Callable[[int, int | None], None] | None,
    function: str,
) -> None:
    with pymdc.Client(watched_bridge.endpoint) as client:
        user = new_user(leaks, client, "somebody")
        ask(user.register)
        ask(user.activate, watched_bridge.activation_key(user.username))
        ask(pymdc.api.Keys(user).create, pair)
        bucket_id = ask(pymdc.api.Buckets(pair, client=client).create, "b", 1, 1, [])["id"]
        files = pymdc.api.Files(bucket_id, pair, client=client)
        push = leaks.secret("PUSH", ask(files.token, "PUSH")["token"])
        value = leaks.value(ask(files.upload, source(bytes(3_000_000)), push, progress=progress))
    frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(value.__traceback__)]
    assert frames[0] == function
    assert CLUE in "".join(traceback_with_locals(value))


@pytest.mark.parametrize(
    ("handle", "progress", "kind"),
    [
        (lambda connection: connection.recv(100), None, exceptions.ConnectionLost),
        (hold_open, halfway, ZeroDivisionError),
    ],
    ids=["lost", "ended by its caller"],
)
def test_exception_of_failed_upload_does_not_hold_its_bytes(
    ask: Ask,
    no_collection: None,
    handle: Handler,
    progress: Callable[[int, int | None], None] | None,
    kind: type[Exception],
) -> None:
    data = bytearray(LARGE)
    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("0" * 24, pymdc.ECDSA(), client=client)
        value = ask(files.upload, data, "token", progress=progress)
    assert type(value) is kind
    data.append(0)  # BufferError while a view of the bytes exists


class Records(logging.Handler):
    """Keeps the arguments and the exception of each log record of urllib3."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.arguments: list[str] = []
        self.exceptions: list[object] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.arguments += map(str, record.args or ())
        self.exceptions.append(record.exc_info)


@pytest.fixture
def records(leaks: LeakDetector) -> Iterator[Records]:
    handler, logger = Records(), logging.getLogger("urllib3.connectionpool")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


ACTIVATION = "/activations/of-another-program"


def request_with_urllib3(endpoint: str) -> None:
    """Send a request with urllib3, and log an exception to its logger, as other code may."""
    with urllib3.PoolManager() as pool:
        pool.request("GET", endpoint + ACTIVATION)
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        logging.getLogger("urllib3.connectionpool").warning("%s", error, exc_info=True)


def untouched(records: Records) -> bool:
    return ACTIVATION in records.arguments and any(records.exceptions)


def test_logs_of_other_libraries_are_not_changed(
    ask: Ask, leaks: LeakDetector, records: Records, pair: WatchedKeyPair
) -> None:
    with RawServer(answer_all) as other, HoldingServer(read_request) as server:
        with pymdc.Client(server.endpoint) as client:
            call = pymdc.api.Buckets(pair, client=client).list(leaks.value)
            assert server.held.wait(PATIENCE)  # while ours is on its way
            request_with_urllib3(other.endpoint)
            assert untouched(records)
            records.arguments.clear()
            leaks.value(ask(new_user(leaks, client, "x").activate, token(leaks)))
            assert records.arguments == [], "urllib3 says nothing of ours"
            call.cancel()
            server.released.set()


@pytest.mark.parametrize("where", ["file", "progress"])
def test_logs_of_user_functions_are_not_changed(
    ask: Ask, leaks: LeakDetector, records: Records, pair: WatchedKeyPair, where: str
) -> None:
    with RawServer(answer_all) as other:

        class Remote(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if where == "file" and size:
                    request_with_urllib3(other.endpoint)
                return super().read(size)

        def tell(done: int, total: int | None) -> None:
            if where == "progress":
                request_with_urllib3(other.endpoint)

        with RawServer(answer_all) as server, pymdc.Client(server.endpoint) as client:
            files = pymdc.api.Files("b", pair, client=client)
            source = Remote(bytes(2_000_000))
            value = ask(files.upload, source, token(leaks), progress=tell, verify=False)
            assert value == []
            assert untouched(records)
            records.arguments.clear()
            leaks.value(ask(new_user(leaks, client, "x").activate, token(leaks)))
            assert records.arguments == [], "urllib3 says nothing of ours"


def test_requests_of_a_log_handler_are_logged_unchanged(
    leaks: LeakDetector, records: Records
) -> None:
    """A handler may send log records by HTTP on the thread that logs."""
    with RawServer(answer_all) as other, RawServer(answer_all) as server:

        class Posting(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if threading.current_thread() not in busy:
                    busy.add(threading.current_thread())
                    request_with_urllib3(other.endpoint)
                    busy.discard(threading.current_thread())

        busy: set[threading.Thread] = set()
        posting, logger = Posting(), logging.getLogger("pymdc")
        logger.addHandler(posting)
        try:
            with pymdc.Client(server.endpoint) as client:
                leaks.value(new_user(leaks, client, "x").activate(token(leaks)))
        finally:
            logger.removeHandler(posting)
    assert untouched(records)


def test_log_tells_where_an_exception_was_raised(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pymdc")
    with pymdc.Client("http://127.0.0.1:1") as client:
        ask(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list)
    origins = [text for text in caplog.messages if text.startswith("ConnectError was raised in:\n")]
    assert any("transport.py" in text for text in origins)


def test_invalid_argument_leaks_no_secret(leaks: LeakDetector, pair: WatchedKeyPair) -> None:
    password = leaks.secret("password", secrets.token_hex(16))
    private = leaks.secret("private key", secrets.token_hex(31))
    with pymdc.Client("http://127.0.0.1:1") as client:
        user = pymdc.api.Users("a@b.com", client=client)
        files = pymdc.api.Files("b", pair, client=client)
        wrong = f"{password}\r\n"
        leaks.raised(pymdc.Client, f"http://user:{password}@host")
        leaks.raised(pymdc.Client, f"http://:{password}@host")
        leaks.raised(pymdc.api.Users, "a@b.com", f"{password}\ud800")
        leaks.raised(user.activate, f"{password}\udc00".encode("utf-8", "surrogatepass"))
        leaks.raised(files.upload, io.BytesIO(), wrong)
        leaks.raised(files.download, "hash", wrong)
        leaks.raised(REST, "GET", f"/activations/{password}#x", client=client)
        leaks.value(REST("GET", f"/activations/{password}?redirect=x", client=client))
        leaks.raised(REST, "GET", "/x", {}, (), {"x-token": wrong}, client=client)
        leaks.raised(REST, "GET", "/x", {}, [password], client=client)
    for text in (private, private + "zz", f"{private}=", private[:51], private[:52]):
        leaks.raised(pymdc.ECDSA, private_key=text)
        leaks.raised(pymdc.ECDSA, text)
        leaks.raised(pymdc.ECDSA, private_key=text.encode())
    leaks.raised(pymdc.ECDSA, pymdc.ECDSA().get_public_key(), pair.get_private_key())
    leaks.raised(pymdc.ECDSA, pair.get_private_key())
    leaks.raised(pair.sign, b"message", private)


def test_raising_callback_and_call_leak_no_secret(
    leaks: LeakDetector, watched_bridge: Bridge, pair: WatchedKeyPair
) -> None:
    def explode(answer: Any) -> None:
        raise ZeroDivisionError("in the callback")

    with pymdc.Client(watched_bridge.endpoint, workers=1) as client:
        user = new_user(leaks, client, "x")
        calls = [user.register(explode), user.activate(token(leaks), explode)]
        calls += [pymdc.api.Buckets(pair, client=client).list(explode) for _ in range(3)]
        calls[-1].cancel()
        for call in calls:
            leaks.value(call)
            leaks.value(call.result(PATIENCE))
            leaks.value(call)
    assert sum("ZeroDivisionError: in the callback" in text for text in leaks.texts) == len(calls)


def test_repr_of_request_and_call_hides_the_activation_token(leaks: LeakDetector) -> None:
    with RawServer(hold_open) as server, pymdc.Client(server.endpoint, timeout=0.05) as client:
        call = new_user(leaks, client, "x").activate(token(leaks), lambda value: None)
        leaks.texts += [
            repr(call),
            repr(vars(call)),
            repr(build_request("GET", f"/{token(leaks)}")),
        ]


def test_credentials_in_channel_url_are_hidden(leaks: LeakDetector, client: pymdc.Client) -> None:
    password, query = token(leaks), token(leaks)
    for address in ("127.0.0.1:1", "127.0.0.1:port", "[", "x/y@127.0.0.1:1"):
        for scheme in ("ws://", "http://", "WS://", " ws://", "x1-y://", ""):
            url = f"{scheme}al:{password}@{address}/{query}?token={query}#{query}"
            with pytest.raises(pymdc.PymdcError) as caught:
                list(blocks(client, pointer(url)))
            leaks.shown(caught.value)

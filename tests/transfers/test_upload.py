"""Uploads: tokens are used once, interrupted files restart, and refusals reach the caller."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from accounts import Account, uploaded
from faulty_proxy import STAGES, UNREAD, FaultyProxy, read_head
from modes import Ask
from servers import HoldingServer, RawServer, answering, read_request

import pymdc
from pymdc import exceptions
from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.file_hash import file_hash
from pymdc._transfers.progress import Progress
from pymdc._transfers.source import Source
from pymdc._transfers.upload import body_of
from pymdc.api import Bucket, Files
from pymdc.bridge import Bridge

DATA = os.urandom(300_000)
SKIPPED = 60_000

SPENT = {"error": "Invalid or expired token"}


@pytest.fixture
def file() -> BinaryIO:
    """Give a file object that is positioned after its start."""
    file = io.BytesIO(DATA)
    file.seek(SKIPPED)
    return file


def files_of(bucket: Bucket, account: Account, client: pymdc.Client) -> Files:
    return Files(bucket.list()["id"], account.key_pair, client=client)


def tokens(proxy: FaultyProxy) -> list[str]:
    """Return the tokens that the uploads sent."""
    return re.findall(r"x-token: (\w+)", b"\n".join(proxy.heads).decode("latin-1"))


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_upload_restarts_with_new_token(
    ask: Ask,
    bridge: Bridge,
    account: Account,
    bucket: Bucket,
    file: BinaryIO,
    stage: str,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    with (
        FaultyProxy(bridge, "", stage, "", stage) as proxy,
        pymdc.Client(proxy.endpoint) as proxied,
    ):
        entry = ask(files_of(bucket, account, proxied).upload, file)
    assert proxy.methods == ["POST", "PUT"] * 3
    assert len(set(tokens(proxy))) == 3
    assert (entry["size"], entry["hash"]) == (len(DATA) - SKIPPED, file_hash(DATA[SKIPPED:]))
    assert uploaded(bucket.files.list()) == [entry]
    bucket.files.download(entry["hash"], to=tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == DATA[SKIPPED:]
    assert not file.closed
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert all("; retrying in 0." in warning for warning in warnings)


def test_third_interruption_of_upload_is_final(
    ask: Ask, bridge: Bridge, account: Account, bucket: Bucket, file: BinaryIO
) -> None:
    with FaultyProxy(bridge, *["", UNREAD] * 5) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        value = ask(files_of(bucket, account, proxied).upload, file)
    assert type(value) is exceptions.ConnectionLost
    assert proxy.methods == ["POST", "PUT"] * 3
    assert len(set(tokens(proxy))) == 3
    assert not file.closed


def test_upload_with_callers_token_is_sent_once(
    ask: Ask, bridge: Bridge, account: Account, bucket: Bucket, file: BinaryIO
) -> None:
    push = bucket.files.token("PUSH")["token"]
    with FaultyProxy(bridge, UNREAD) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        value = ask(Files("0" * 24, account.key_pair, client=proxied).upload, file, push)
    assert type(value) is exceptions.ConnectionLost
    assert str(value).endswith("the request was not sent again, because its token may be spent")
    assert proxy.methods == ["PUT"]
    assert not file.closed


class OneConnectionServer(RawServer):
    """Stops listening at its first connection, and answers that one."""

    def __init__(self, answer: bytes) -> None:
        def handle(connection: socket.socket) -> None:
            self._socket.shutdown(socket.SHUT_RDWR)
            answering(answer)(connection)

        super().__init__(handle)


def test_server_that_goes_away_is_a_connect_error(ask: Ask, file: BinaryIO) -> None:
    granted = written("200 OK", {"token": "t0"}, "Connection: close")
    with OneConnectionServer(granted) as server, pymdc.Client(server.endpoint) as client:
        value = ask(Files("b", pymdc.ECDSA(), client=client).upload, file)
    assert type(value) is exceptions.ConnectError


def written(status: str, answer: object, *headers: str) -> bytes:
    body = json.dumps(answer)
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", body]).encode()


def grant_tokens(answer: bytes, times: int) -> Callable[[socket.socket], None]:
    """Return a handler that grants tokens, and answers *answer* to the first *times* uploads."""
    count = 0

    def handle(connection: socket.socket) -> None:
        nonlocal count
        while head := read_request(connection)[0]:
            if head.startswith(b"POST"):
                connection.sendall(written("200 OK", {"token": f"t{count}"}))
                continue
            assert f"x-token: t{count}".encode() in head
            count += 1
            entry = {"hash": file_hash(DATA[SKIPPED:])}
            connection.sendall(answer if count <= times else written("200 OK", entry))

    return handle


@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_spent_token_of_pymdc_is_replaced(ask: Ask, file: BinaryIO, times: int) -> None:
    refusal = written("401 Unauthorized", SPENT)
    with RawServer(grant_tokens(refusal, times)) as server, pymdc.Client(server.endpoint) as client:
        value = ask(Files("b", pymdc.ECDSA(), client=client).upload, file)
    assert value == (SPENT if times == 3 else {"hash": file_hash(DATA[SKIPPED:])})


@pytest.mark.parametrize("status", ["503 Busy", "429 Too Many Requests"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_busy_bridge_gets_the_file_again_with_new_token(
    ask: Ask, file: BinaryIO, status: str, times: int
) -> None:
    busy = written(status, {"error": "busy"}, "Retry-After: 0")
    with RawServer(grant_tokens(busy, times)) as server, pymdc.Client(server.endpoint) as client:
        value = ask(Files("b", pymdc.ECDSA(), client=client).upload, file)
    assert value == ({"error": "busy"} if times == 3 else {"hash": file_hash(DATA[SKIPPED:])})


@pytest.mark.parametrize("token", [None, "t0"])
@pytest.mark.parametrize(
    ("body", "kind"), [(b"<html>", exceptions.HTTPError), (b'{"m": 1}', exceptions.IntegrityError)]
)
def test_answer_of_busy_bridge_is_not_taken_for_an_entry(
    ask: Ask, file: BinaryIO, token: str | None, body: bytes, kind: type[Exception]
) -> None:
    length = f"Content-Length: {len(body)}"
    busy = f"HTTP/1.1 503 Busy\r\n{length}\r\nRetry-After: 0\r\n\r\n".encode() + body
    with RawServer(grant_tokens(busy, 9)) as server, pymdc.Client(server.endpoint) as client:
        value = ask(Files("b", pymdc.ECDSA(), client=client).upload, file, token)
    assert type(value) is kind


def test_retry_after_beyond_stall_is_not_waited_for(ask: Ask, file: BinaryIO) -> None:
    busy = written("503 Busy", {"error": "busy"}, "Retry-After: 9")
    with (
        RawServer(grant_tokens(busy, 1)) as server,
        pymdc.Client(server.endpoint, stall=5) as client,
    ):
        assert ask(Files("b", pymdc.ECDSA(), client=client).upload, file) == {"error": "busy"}


def test_callers_token_is_not_sent_again_to_busy_bridge(ask: Ask, file: BinaryIO) -> None:
    headers = "Retry-After: 0", "Connection: close"
    busy = answering(written("503 Busy", {"error": "busy"}, *headers))
    with RawServer(busy) as server, pymdc.Client(server.endpoint) as client:
        files = Files("b", pymdc.ECDSA(), client=client)
        assert ask(files.upload, file, "token") == {"error": "busy"}
        assert ask(files.download, "hash", "token") == {"error": "busy"}
        assert server.connections == 2


@pytest.mark.parametrize("status", ["400 Bad Request", "413 Content Too Large", "503 Busy"])
def test_other_refusal_is_the_answer(ask: Ask, file: BinaryIO, status: str) -> None:
    refusal = written(status, {"error": "no"}, "Retry-After: 0")
    with RawServer(grant_tokens(refusal, 9)) as server, pymdc.Client(server.endpoint) as client:
        assert ask(Files("b", pymdc.ECDSA(), client=client).upload, file) == {"error": "no"}


def close_at_once(connection: socket.socket) -> None:
    """Return while the body is still arriving, so that the connection is reset."""


def drain(connection: socket.socket) -> None:
    """Read the rest of the body until the sender closes."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(1024 * 1024):
        pass


class Zeros(io.RawIOBase):
    """A file of *size* zeros that takes no memory."""

    def __init__(self, size: int) -> None:
        self._size, self._place = size, 0

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._place
        block = bytes(left if size < 0 else min(size, left))
        self._place += len(block)
        return block

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}
        self._place = starts[whence] + offset
        return self._place


@pytest.mark.parametrize(
    ("then", "size", "tries"),
    [
        (close_at_once, 1_000, 100),
        (close_at_once, 100_000_000, 100),
        (drain, 1_000, 100),
        (drain, 20_000_000, 3),  # all of it is sent each time
    ],
)
@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("400 Bad Request", "File size exceeds declared size"),
        ("401 Unauthorized", "Invalid or expired token"),
        ("413 Content Too Large", "Storage quota exceeded"),
    ],
)
def test_refusal_during_the_body_is_the_value(
    ask: Ask,
    status: str,
    message: str,
    then: Callable[[socket.socket], None],
    size: int,
    tries: int,
) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(written(status, {"error": message}, "Connection: close"))
        then(connection)

    with RawServer(refuse) as server, pymdc.Client(server.endpoint) as client:
        files = Files("b", pymdc.ECDSA(), client=client)
        values = [ask(files.upload, Zeros(size), "token") for _ in range(tries)]
    assert values == [{"error": message}] * tries


def test_refusal_is_the_value_if_server_neither_reads_nor_closes(ask: Ask) -> None:
    def refuse(connection: socket.socket) -> None:
        read_head(connection)
        connection.sendall(written("413 Content Too Large", {"error": "Storage quota exceeded"}))

    with HoldingServer(refuse) as server:
        with pymdc.Client(server.endpoint, timeout=(5, 0.5)) as client:
            value = ask(Files("b", pymdc.ECDSA(), client=client).upload, Zeros(100_000_000), "t")
            server.released.set()
    assert value == {"error": "Storage quota exceeded"}


def test_refusal_of_the_bridge_is_the_value(ask: Ask, bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(20_000_000))
    assert ask(bucket.files.upload, path, "0" * 64) == SPENT
    assert bucket.files.list() == []


def test_pipe_cannot_be_rewound(ask: Ask, bucket: Bucket) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb"):
        value = ask(bucket.files.upload, pipe)
        assert not pipe.closed
    assert isinstance(value, OSError)
    assert "the file cannot be rewound" in str(value)


class ReadOnly:
    """Has only the method by which a file object is recognised."""

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("nobody reads it")


def test_file_whose_seek_returns_none_is_asked_by_tell(ask: Ask, bucket: Bucket) -> None:
    class SeekReturnsNone(io.BytesIO):
        def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
            super().seek(offset, whence)
            return cast(int, None)  # as mmap.seek does before Python 3.13

    file = SeekReturnsNone(DATA)
    file.seek(5)
    entry = ask(bucket.files.upload, file)
    assert entry["hash"] == file_hash(DATA[5:])


def test_source_without_seek_cannot_be_rewound(ask: Ask, bucket: Bucket) -> None:
    value = ask(bucket.files.upload, ReadOnly())
    assert isinstance(value, OSError)
    assert "the file cannot be rewound" in str(value)


def test_fifo_without_writer_is_not_waited_for(ask: Ask, bucket: Bucket, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    value = ask(bucket.files.upload, tmp_path / "pipe")
    assert isinstance(value, OSError)
    assert "the file cannot be rewound" in str(value)


def test_file_not_open_for_reading_is_refused_at_the_call(bucket: Bucket, tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        with pytest.raises(
            ValueError, match=r"not open for reading .*; expected a path, a bytearray"
        ):
            bucket.files.upload(file)
    for closed in (file, io.BytesIO()):
        closed.close()
        with pytest.raises(ValueError, match="not open for reading"):
            bucket.files.upload(closed)


@pytest.mark.parametrize("beyond", [1, 7])
def test_file_positioned_beyond_its_end_is_an_os_error(
    ask: Ask, bucket: Bucket, beyond: int
) -> None:
    file = io.BytesIO(DATA)
    file.seek(len(DATA) + beyond)
    value = ask(bucket.files.upload, file)
    assert isinstance(value, OSError)
    assert f"the file stands at {len(DATA) + beyond}, beyond its end" in str(value)
    assert file.tell() == len(DATA) + beyond


def test_file_that_was_not_stored_keeps_its_position(
    ask: Ask, bridge: Bridge, account: Account, bucket: Bucket, file: BinaryIO
) -> None:
    with pymdc.Client("http://127.0.0.1:1") as nowhere:
        value = ask(files_of(bucket, account, nowhere).upload, file)
    assert type(value) is exceptions.ConnectError
    assert file.tell() == SKIPPED
    assert ask(bucket.files.upload, file, "0" * 64) == SPENT
    assert file.tell() == SKIPPED
    assert ask(bucket.files.upload, file)["size"] == len(DATA) - SKIPPED
    assert file.tell() == len(DATA)


@pytest.mark.parametrize("kind", [bytearray, io.BytesIO])
def test_pieces_of_body_are_small_enough_for_a_slow_connection(
    kind: Callable[[bytes], Any],
) -> None:
    with body_of(Source(kind(bytes(3_000_000))), CancelScope(), Progress(None), None) as body:
        sizes = [len(piece) for piece in body]
    assert sum(sizes) == int(body.headers["Content-Length"])
    assert max(sizes) <= 256 * 1024


def test_file_that_can_be_read_once_is_not_sent_twice(
    ask: Ask, bridge: Bridge, account: Account, bucket: Bucket
) -> None:
    class ReadableOnce(io.BytesIO):
        began = False

        def read(self, size: int | None = -1) -> bytes:
            self.began |= size != 0
            return super().read(size)

        def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
            if self.began:
                raise OSError("it was read")
            return super().seek(offset, whence)

    with FaultyProxy(bridge, "", STAGES[-1]) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        value = ask(files_of(bucket, account, proxied).upload, ReadableOnce(DATA))
    assert isinstance(value, OSError)
    assert "the file cannot be rewound (it was read)" in str(value)
    assert len(tokens(proxy)) <= 2
    assert [entry["hash"] for entry in bucket.files.list()] == [file_hash(DATA)]


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: memoryview(data).cast("I")])
def test_memory_is_uploaded_as_content(
    ask: Ask, bucket: Bucket, kind: Callable[[bytes], Any]
) -> None:
    entry = ask(bucket.files.upload, kind(DATA))
    assert (entry["size"], entry["hash"]) == (len(DATA), file_hash(DATA))


def test_memory_with_gaps_is_refused_at_the_call(bucket: Bucket) -> None:
    with pytest.raises(
        ValueError, match="the memory is not in one piece; expected a path, a bytearray"
    ):
        bucket.files.upload(memoryview(DATA)[::2])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda path: os.truncate(path, 1_500_000), "the file shrank while it was sent"),
        (lambda path: os.truncate(path, 3_000_001), "the file grew while it was sent"),
    ],
    ids=["shrinks", "grows"],
)
@pytest.mark.parametrize("opened", [False, True], ids=["path", "file"])
def test_file_that_changes_during_upload_is_not_stored(
    ask: Ask,
    bucket: Bucket,
    tmp_path: Path,
    change: Callable[[Path], object],
    text: str,
    opened: bool,
) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(3_000_000))

    def once(done: int, total: int | None) -> None:
        if done <= 1024 * 1024:
            change(path)

    with path.open("rb", buffering=0) as file:
        value = ask(bucket.files.upload, file if opened else path, progress=once)
    assert type(value) is exceptions.IntegrityError
    assert f"{text}: it had 3000000 bytes" in str(value)
    assert bucket.files.list() == []


def test_hash_is_not_compared_without_verify(ask: Ask) -> None:
    entry = {"hash": "0" * 40}
    with RawServer(answering(written("200 OK", entry))) as server:
        with pymdc.Client(server.endpoint) as client:
            files = Files("b", pymdc.ECDSA(), client=client)
            assert ask(files.upload, bytearray(DATA), "token", verify=False) == entry


def test_body_that_is_not_sent_has_no_hash(file: BinaryIO) -> None:
    scope = CancelScope()
    with body_of(Source(file), scope, Progress(None), None) as body:
        assert body.hash is None

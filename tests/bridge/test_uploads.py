"""Uploads, and what they leave on the disk."""

from __future__ import annotations

import mmap
import random
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from backends import Backend
from plain_client import DATA, Count, Reply, Rows, User, address, ask, form, pull, upload_headers
from stored_objects import upload_and_do

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.errors import Refused

MiB = 1024 * 1024
RESIDENT = Path("/proc/self/statm")


def test_chunked_upload_is_stored(alice: User) -> None:
    bucket, body = alice.bucket(), form(b"abc")
    headers = upload_headers(alice.token(bucket, "PUSH"), 3)
    pieces = (body[index : index + 1] for index in range(len(body)))
    assert ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", pieces, headers).status == 200


def test_file_is_cut_into_shards_and_downloaded(alice: User, bucket: str, objects: Count) -> None:
    entry = alice.upload(bucket, DATA, "C:\\dir/photo ☃.css").json
    whole = {"bucket": bucket, "size": 2500, "hash": file_hash(DATA)}
    whole["created"] = "2016-03-24T12:00:00.000Z"
    assert entry == {**whole, "filename": "photo ☃.css", "mimetype": "text/css"}
    pointers = alice.pointers(bucket, entry["hash"]).json
    parts = [DATA[:1000], DATA[1000:2000], DATA[2000:]]
    assert [pointer["hash"] for pointer in pointers] == [file_hash(part) for part in parts]
    assert [pointer["size"] for pointer in pointers] == [1000, 1000, 500]
    assert [pull(pointer) for pointer in pointers] == parts
    assert objects() == 3


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 3000, 200_000])
def test_file_of_every_size_is_downloaded(alice: User, bucket: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert alice.download(bucket, alice.upload(bucket, data).json["hash"]) == data


def test_repeated_content_is_one_file_with_the_new_name(
    alice: User, bucket: str, objects: Count
) -> None:
    for filename in ("first", "second"):
        alice.upload(bucket, DATA, filename)
    listed = alice.ask("GET", f"/buckets/{bucket}/files").json
    assert [entry["filename"] for entry in listed] == ["second"]
    assert alice.download(bucket, file_hash(DATA)) == DATA
    assert objects() == 3


def test_repeated_shard_is_stored_once(alice: User, bucket: str, objects: Count) -> None:
    data = bytes(2000) + b"end"
    assert alice.download(bucket, alice.upload(bucket, data).json["hash"]) == data
    assert objects() == 2


def send(alice: User, bucket: str, body: bytes, size: int, **headers: str) -> Reply:
    headers = {**upload_headers(alice.token(bucket, "PUSH"), size), **headers}
    return ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", body, headers)


BAD_BODIES = {
    "too much": (form(DATA), 2499, "File size exceeds declared size"),
    "too little": (form(DATA), 2501, "File does not match the declared size"),
    "cut off": (form(DATA)[:-20], 2500, "Unexpected end of multipart data"),
    "empty": (b"", 2500, "Unexpected end of multipart data"),
    "without a file": (
        form(b"b").replace(b"filename=", b"title="),
        1,
        "No file was found in the multipart data",
    ),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_failed_upload_leaves_nothing(
    alice: User, bucket: str, objects: Count, rows: Rows, case: str
) -> None:
    body, size, message = BAD_BODIES[case]
    assert send(alice, bucket, body, size).error == (400, message)
    assert (objects(), rows("files"), rows("shards")) == (0, 0, 0)


@pytest.mark.parametrize("size", [2**50 + 1, 2**64, 10**300, -1])
def test_size_that_no_file_has_is_refused(alice: User, rows: Rows, size: int) -> None:
    bucket = alice.bucket(storage=None)
    refusal = (400, "Missing or invalid x-filesize header sent")
    assert send(alice, bucket, form(DATA), size).error == refusal
    assert rows("uploads") == 0


def test_body_that_is_not_multipart_is_refused(alice: User, bucket: str) -> None:
    for kind in ("text/plain", "multipart/form-data", f"multipart/form-data; boundary={300 * 'x'}"):
        assert send(alice, bucket, form(DATA), 2500, **{"Content-Type": kind}).status == 400
    reply = send(alice, bucket, form(DATA).replace(b"Content-Type", b"Content Type"), 2500)
    assert reply.status == 400
    assert reply.json["error"].startswith("Malformed multipart data")


def test_upload_into_a_removed_bucket_leaves_nothing(
    alice: User, bucket: str, objects: Count
) -> None:
    def chunks() -> object:
        body = form(DATA)
        yield body[:-100]
        assert alice.ask("DELETE", f"/buckets/{bucket}").status == 204
        yield body[-100:]

    headers = upload_headers(alice.token(bucket, "PUSH"), 2500)
    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", chunks(), headers)  # type: ignore[arg-type]  # an iterator is an iterable
    assert reply.error == (404, "Bucket not found")
    assert objects() == 0


@pytest.mark.skipif(not RESIDENT.exists(), reason="only Linux tells so what memory is taken")
def test_declared_size_takes_no_memory(backend: Backend) -> None:
    with backend.bridge() as bridge, ExitStack() as wires:
        user = User(bridge, "alice")
        bucket, before = user.bucket(storage=None), resident()
        for _ in range(10):
            head = user.upload_head(bucket, 10**12, 10**12 - 1, "Expect: 100-continue")
            wire = wires.enter_context(socket.create_connection(address(bridge), timeout=20))
            wire.sendall(head)
            assert wire.recv(1000).startswith(b"HTTP/1.1 100 "), "the body is not waited for"
        assert resident() - before < 16 * MiB


def resident() -> int:
    """Return the bytes of memory that this process occupies."""
    return int(RESIDENT.read_text().split()[1]) * mmap.PAGESIZE


def test_broken_upload_leaves_nothing(alice: User, bucket: str, objects: Count, rows: Rows) -> None:
    with socket.create_connection(address(alice.bridge)) as connection:
        connection.sendall(alice.upload_head(bucket, 2500, 5000) + form(DATA)[:-50])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "the connection is still open"
    alice.bridge.close()
    assert (objects(), rows("files"), rows("shards")) == (0, 0, 0)


def test_simultaneous_uploads_of_a_file_are_one_file(
    alice: User, bucket: str, objects: Count, rows: Rows
) -> None:
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: alice.upload(bucket, DATA).status, range(8)))
    assert replies == 8 * [200]
    assert (objects(), rows("files"), rows("shards"), rows("file_shards")) == (3, 1, 3, 3)
    assert alice.download(bucket, file_hash(DATA)) == DATA


def test_upload_that_finds_the_database_locked_leaves_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, such as a vacuum, writes for longer than a transaction waits."""
    monkeypatch.setattr("pymdc.bridge.storage.sqlite.BUSY_SECONDS", 0.1)
    with Bridge(data, shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        with closing(sqlite3.connect(data / "metadata.sqlite", isolation_level=None)) as other:
            lock = partial(other.execute, "BEGIN IMMEDIATE")
            assert upload_and_do(alice, bucket, data, lock).status == 503
            with pytest.raises(Refused, match="busy"):
                bridge._housekeeper.keep_house()
        bridge._housekeeper.keep_house()
        assert [*(data / "shards").glob("[0-9a-f]*")] == []
        with closing(sqlite3.connect(data / "metadata.sqlite")) as other:
            assert other.execute("SELECT * FROM uploads").fetchall() == []


def test_nothing_is_stored_where_the_folder_is_another_one(data: Path) -> None:
    """Its disk is not mounted any more, and will be again."""
    with Bridge(data) as bridge:
        alice = User(bridge, "alice")
        bucket, other = alice.bucket(), alice.bucket()
        stored = alice.upload(bucket, b"abc").json["hash"]
        (data / "shards").rename(data / "disk")
        (data / "shards").mkdir()
        assert alice.upload(other, b"abc").status == 500
        assert alice.upload(other, b"new").status == 500, "it would be gone then"
        assert ask(bridge, "GET", "/ready").status == 503
        (data / "shards").rename(data / "below")
        (data / "disk").rename(data / "shards")
        assert alice.download(bucket, stored) == b"abc"
        assert alice.upload(other, b"new").status == 200


def test_object_is_not_replaced_in_a_store_that_is_another_one(data: Path) -> None:
    """A store at the same address, such as an empty replica, for as long as the right one fails."""
    with Bridge(data) as bridge:
        alice = User(bridge, "alice")
        bucket, other = alice.bucket(), alice.bucket()
        stored = alice.upload(bucket, b"abc").json["hash"]
        (data / "elsewhere").mkdir()
        for path in (data / "shards").iterdir():
            path.rename(data / "elsewhere" / path.name)
        assert ask(bridge, "GET", "/ready").status == 503
        assert alice.upload(other, b"abc").status == 500
        for path in (data / "elsewhere").iterdir():
            path.rename(data / "shards" / path.name)
        assert alice.download(bucket, stored) == b"abc"

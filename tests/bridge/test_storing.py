"""Files in and out, and what stays on disk."""

from __future__ import annotations

import json
import logging
import mmap
import random
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from asking import DATA, Clock, Count, Reply, Rows, User, address, ask, form, pull, upload_headers
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge

MiB = 1024 * 1024
RESIDENT = Path("/proc/self/statm")


def test_file_is_cut_into_shards_and_comes_back(alice: User, bucket: str, objects: Count) -> None:
    entry = alice.upload(bucket, DATA, "C:\\dir/photo ☃.css").json
    whole = {"bucket": bucket, "size": 2500, "hash": file_hash(DATA)}
    assert entry == {**whole, "filename": "photo ☃.css", "mimetype": "text/css"}
    pointers = alice.pointers(bucket, entry["hash"]).json
    parts = [DATA[:1000], DATA[1000:2000], DATA[2000:]]
    assert [pointer["hash"] for pointer in pointers] == [file_hash(part) for part in parts]
    assert [pointer["size"] for pointer in pointers] == [1000, 1000, 500]
    assert [pull(pointer) for pointer in pointers] == parts
    assert objects() == 3


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 3000, 200_000])
def test_every_size_comes_back(alice: User, bucket: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert alice.download(bucket, alice.upload(bucket, data).json["hash"]) == data


def test_same_content_again_is_one_entry_with_the_new_name(
    alice: User, bucket: str, objects: Count
) -> None:
    for filename in ("first", "second"):
        alice.upload(bucket, DATA, filename)
    listed = alice.ask("GET", f"/buckets/{bucket}/files").json
    assert [entry["filename"] for entry in listed] == ["second"]
    assert alice.download(bucket, file_hash(DATA)) == DATA
    assert objects() == 3


def test_shard_that_occurs_twice_is_stored_once(alice: User, bucket: str, objects: Count) -> None:
    data = bytes(2000) + b"end"
    assert alice.download(bucket, alice.upload(bucket, data).json["hash"]) == data
    assert objects() == 2


def test_shared_shards_stay_until_the_last_file_goes(
    alice: User, bucket: str, objects: Count, rows: Rows
) -> None:
    other, longer = alice.bucket(), DATA[:2000] + b"else"
    for where, data in ((bucket, DATA), (other, DATA), (other, longer)):
        alice.upload(where, data)
    assert objects() == 4
    assert alice.ask("DELETE", f"/buckets/{bucket}/files/{file_hash(DATA)}").status == 204
    assert objects() == 4
    assert alice.ask("DELETE", f"/buckets/{other}/files/{file_hash(DATA)}").status == 204
    assert objects() == 3
    assert alice.download(other, file_hash(longer)) == longer
    assert alice.ask("DELETE", f"/buckets/{other}").status == 204
    assert (objects(), rows("files"), rows("shards"), rows("file_shards")) == (0, 0, 0, 0)


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


def test_body_that_is_not_multipart_is_refused(alice: User, bucket: str) -> None:
    for kind in ("text/plain", "multipart/form-data", f"multipart/form-data; boundary={300 * 'x'}"):
        assert send(alice, bucket, form(DATA), 2500, **{"Content-Type": kind}).status == 400
    reply = send(alice, bucket, form(DATA).replace(b"Content-Type", b"Content Type"), 2500)
    assert reply.status == 400
    assert reply.json["error"].startswith("Malformed multipart data")


def test_upload_into_a_bucket_that_goes_meanwhile_leaves_nothing(
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
def test_declared_size_takes_no_memory(data: Path) -> None:
    with Bridge(data) as bridge, ExitStack() as wires:
        user = User(bridge, "alice")
        bucket, before = user.bucket(), resident()
        for _ in range(10):
            head = user.upload_head(bucket, 10**15, 10**15 - 1, "Expect: 100-continue")
            wire = wires.enter_context(socket.create_connection(address(bridge), timeout=20))
            wire.sendall(head)
            assert wire.recv(1000).startswith(b"HTTP/1.1 100 "), "it waits for the body"
        assert resident() - before < 16 * MiB


def resident() -> int:
    """Return the bytes of memory that this process takes."""
    return int(RESIDENT.read_text().split()[1]) * mmap.PAGESIZE


def test_broken_upload_leaves_nothing(alice: User, bucket: str, objects: Count, rows: Rows) -> None:
    with socket.create_connection(address(alice.bridge)) as connection:
        connection.sendall(alice.upload_head(bucket, 2500, 5000) + form(DATA)[:-50])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"", "it has read all that there is"
    alice.bridge.close()
    assert (objects(), rows("files"), rows("shards")) == (0, 0, 0)


@pytest.mark.parametrize("operation", ["PUSH", "PULL"])
def test_of_two_requests_with_one_token_one_wins(alice: User, bucket: str, operation: str) -> None:
    alice.upload(bucket, DATA)
    path, token = f"/buckets/{bucket}/files", alice.token(bucket, operation)
    start = threading.Barrier(8)

    def present(_: int) -> int:
        start.wait()
        if operation == "PUSH":
            headers = upload_headers(token, len(DATA))
            return ask(alice.bridge, "PUT", path, form(DATA), headers).status
        return ask(
            alice.bridge, "GET", f"{path}/{file_hash(DATA)}", None, {"x-token": token}
        ).status

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(present, range(8))) == [200] + 7 * [401]


def test_of_two_channels_with_one_pointer_one_wins(alice: User, bucket: str) -> None:
    [pointer] = alice.pointers(bucket, alice.upload(bucket, b"abc").json["hash"]).json
    start = threading.Barrier(8)

    def present(_: int) -> object:
        start.wait()
        try:
            return pull(pointer)
        except AssertionError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(present, range(8)))
    assert outcomes.count(b"abc") == 1


def test_same_file_from_many_at_once_is_one_entry(
    alice: User, bucket: str, objects: Count, rows: Rows
) -> None:
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: alice.upload(bucket, DATA).status, range(8)))
    assert replies == 8 * [200]
    assert (objects(), rows("files"), rows("shards"), rows("file_shards")) == (3, 1, 3, 3)
    assert alice.download(bucket, file_hash(DATA)) == DATA


def test_bare_client_gets_frames_and_a_good_close(alice: User, bucket: str) -> None:
    shard = DATA[:1000]
    [pointer] = alice.pointers(bucket, alice.upload(bucket, shard).json["hash"]).json
    fields = {name: pointer[name] for name in ("token", "hash", "operation")}
    with connect(pointer["channel"], compression=None) as channel:
        channel.send(json.dumps(fields))
        assert list(channel) == [shard]
    assert channel.protocol.close_code == 1000


def test_channel_is_nowhere_but_at_the_root(alice: User) -> None:
    with pytest.raises(InvalidStatus):
        connect(alice.bridge.endpoint.replace("http", "ws") + "/keys", compression=None)


def test_channel_that_goes_well_leaves_no_line_in_the_log(
    alice: User, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    alice.download(bucket, alice.upload(bucket, DATA).json["hash"])
    assert not {"uvicorn.error", "pymdc.bridge.channel"} & {line.name for line in caplog.records}


def test_lost_object_is_an_error_and_not_an_empty_shard(
    alice: User, bucket: str, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [pointer] = alice.pointers(bucket, alice.upload(bucket, b"abc").json["hash"]).json
    for path in (data / "shards").iterdir():
        path.unlink()
    with pytest.raises(AssertionError, match='"code":500'):
        pull(pointer)
    assert pointer["token"] not in caplog.text


def test_pointer_token_lives_five_minutes(alice: User, clock: Clock) -> None:
    bucket = alice.bucket()
    name = alice.upload(bucket, b"data").json["hash"]
    (early,), (late,) = (alice.pointers(bucket, name).json for _ in range(2))
    clock.seconds += 299
    assert pull(early) == b"data"
    clock.seconds += 2
    with pytest.raises(AssertionError, match="The supplied token is not accepted"):
        pull(late)


def test_database_has_a_write_ahead_log(bridge: Bridge, data: Path) -> None:
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("name", ["what?x=y", "a%41b", "Grüße ☃"])
def test_any_folder_will_do(tmp_path: Path, name: str) -> None:
    with Bridge(tmp_path / name) as bridge:
        assert ask(bridge, "GET", "/").status == 200
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert (tmp_path / name / "metadata.sqlite").exists()


def test_upload_that_does_not_end_is_told_that_the_bridge_stops(data: Path) -> None:
    with Bridge(data, grace=1) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        with socket.create_connection(address(bridge), timeout=20) as wire:
            head = user.upload_head(bucket, 9_000_000, 9_000_200)
            wire.sendall(head + form(b"x" * 8_500_000)[:-20])
            bridge.close()
            answer = wire.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b'{"error":"The bridge is stopping"}')
    assert [path for path in (data / "shards").rglob("*") if path.is_file()] == []

"""Files, and the pointers to their shards."""

from __future__ import annotations

import json
import random
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from backends import Backend
from plain_client import (
    DATA,
    Clock,
    Count,
    Rows,
    User,
    address,
    ask,
    form,
    head,
    pull,
    upload_headers,
)
from processes import MINUTE

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge.routes.files import _Pointers
from pymdc.bridge.settings import MAX_LISTS, MAX_NAME
from pymdc.bridge.storage.disk import Reserve


def test_channel_address_has_the_requested_host(alice: User) -> None:
    bucket = alice.bucket()
    stored = alice.upload(bucket, b"abc").json["hash"]
    headers = {"x-token": alice.token(bucket, "PULL"), "Host": "bridge.example:8"}
    [pointer] = ask(alice.bridge, "GET", f"/buckets/{bucket}/files/{stored}", None, headers).json
    assert pointer["channel"] == "ws://bridge.example:8"


def test_shared_shards_stay_until_the_last_file_is_removed(
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


@pytest.mark.parametrize("operation", ["PUSH", "PULL"])
def test_one_of_simultaneous_requests_with_a_token_succeeds(
    alice: User, bucket: str, operation: str
) -> None:
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


def names(user: User, bucket: str, query: str) -> list[str]:
    reply = user.ask("GET", f"/buckets/{bucket}/files", query=query)
    return [file["filename"] for file in reply.json]


def test_longest_name_is_stored_and_found(alice: User, bucket: str) -> None:
    """No index may be too small for a name of 4,096 bytes that cannot be compressed."""
    chance = random.Random(1)
    name = "".join(chr(chance.randrange(0x10000, 0x1F000)) for _ in range(MAX_NAME))
    other = name[:-1] + "a"
    assert [alice.upload(bucket, text.encode(), text).status for text in (name, other)] == [
        200,
        200,
    ]
    assert names(alice, bucket, f"name={quote(name)}") == [name]
    assert names(alice, bucket, f"name={quote(other)}&limit=5") == [other]
    assert names(alice, bucket, f"name={quote(name[:200])}") == []


def test_list_has_a_limit_and_begins_after_a_file(
    alice: User, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.routes.files.PAGE", 3)
    hashes = [alice.upload(bucket, name.encode(), name).json["hash"] for name in "abcdefgh"]
    assert names(alice, bucket, "") == [*"abcdefgh"]
    for limit in (0, 1, 3, 4, 6, 7, 8, 9, 10**17):
        assert names(alice, bucket, f"limit={limit}") == [*"abcdefgh"[:limit]]
        assert names(alice, bucket, f"after={hashes[1]}&limit={limit}") == [*"cdefgh"[:limit]]
    assert names(alice, bucket, f"after={hashes[7]}") == []
    assert names(alice, bucket, f"name=f&after={hashes[4]}&limit=1") == ["f"]
    assert names(alice, bucket, f"name=f&after={hashes[5]}") == []


def test_entry_tells_when_a_file_was_uploaded_last(
    alice: User, bucket: str, backend: Backend, clock: Clock
) -> None:
    entry = alice.upload(bucket, DATA).json
    files = f"/buckets/{bucket}/files"
    assert entry["created"] == "2016-03-24T12:00:00.000Z"
    assert alice.ask("GET", files).json == [entry]
    clock.seconds += 1
    again = alice.upload(bucket, DATA).json
    assert again == {**entry, "created": "2016-03-24T12:00:01.000Z"}
    assert alice.ask("GET", files).json == [again]
    backend.execute("UPDATE files SET created = NULL")  # as in an older database
    assert alice.ask("GET", files).json == [{**entry, "created": None}]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("Grüße ☃.txt", "Grüße ☃.txt"),
        ("/etc/passwd", "passwd"),
        ("C:\\a\\b.txt", "b.txt"),
        ("", file_hash(DATA)),
        ("folder/", file_hash(DATA)),
    ],
)
def test_file_is_renamed_as_an_upload_names_it(
    alice: User, bucket: str, clock: Clock, name: str, stored: str
) -> None:
    alice.upload(bucket, DATA)
    files = f"/buckets/{bucket}/files"
    [entry] = alice.ask("GET", files).json
    clock.seconds += 1
    reply = alice.ask("PATCH", f"{files}/{entry['hash']}", {"filename": name})
    assert (reply.status, reply.json) == (200, {**entry, "filename": stored})
    assert alice.ask("GET", files).json == [reply.json]
    assert alice.download(bucket, entry["hash"]) == DATA


def test_rename_is_refused_with_what_is_wrong(alice: User, bucket: str) -> None:
    alice.upload(bucket, DATA, "before")
    path, bob = f"/buckets/{bucket}/files/{file_hash(DATA)}", User(alice.bridge, "bob")
    expected = 'The body has no name of a file; expected {"filename": "..."}'
    for fields in ({}, {"filename": None}, {"filename": 1}, {"filename": ["a"]}, {"name": "a"}):
        assert alice.ask("PATCH", path, fields).error == (400, expected)
    name = {"filename": "after"}
    assert alice.ask("PATCH", path[:-1] + "0", name).error == (404, "File not found")
    assert bob.ask("PATCH", path, name).error == (404, "Bucket not found")
    assert ask(alice.bridge, "PATCH", path, json.dumps(name)).status == 401
    pulling = {"x-token": alice.token(bucket, "PULL")}
    assert ask(alice.bridge, "PATCH", path, json.dumps(name), pulling).status == 401
    assert names(alice, bucket, "") == ["before"]


def test_list_begins_after_no_file_of_another_bucket(alice: User, bucket: str) -> None:
    other = alice.upload(alice.bucket(), b"other").json["hash"]
    for after in (other, "x"):
        reply = alice.ask("GET", f"/buckets/{bucket}/files", query=f"after={after}")
        assert reply.error == (404, "File not found")


def test_name_in_a_list_is_no_pattern(alice: User, bucket: str) -> None:
    for name in ("a", "%", "_", "A"):
        alice.upload(bucket, name.encode(), name)
    for wanted, found in (("a", ["a"]), ("%25", ["%"]), ("_", ["_"]), ("%2A", [])):
        assert names(alice, bucket, f"name={wanted}") == found


@pytest.mark.parametrize("limit", ["-1", "%2B1", "1_0", "1.0", "%D9%A3", "%201", "1" * 19, "x"])
def test_limit_of_a_list_is_a_number_in_digits(alice: User, bucket: str, limit: str) -> None:
    reply = alice.ask("GET", f"/buckets/{bucket}/files", query=f"limit={limit}")
    assert reply.status == 400
    assert reply.json["error"].endswith("expected a number of files")


def test_query_has_at_most_100_parameters(alice: User, bucket: str) -> None:
    path = f"/buckets/{bucket}/files"
    assert alice.ask("GET", path, query="&".join(99 * ["a=b"])).status == 200
    reply = alice.ask("GET", path, query="&".join(100 * ["a=b"]))
    assert reply.error == (400, "The query has too many parameters")


FILES = 6_000  # whose list is larger than the buffers of a socket


@pytest.fixture
def long_list(alice: User, bucket: str, backend: Backend) -> Iterator[Callable[[], socket.socket]]:
    """Give a function that asks for a long list, and returns the connection."""
    backend.execute(
        "INSERT INTO files (bucket, hash, filename, mimetype, size)"
        " VALUES (:bucket, :hash, :name, 'text/css', 1)",
        [
            {"bucket": bucket, "hash": f"{number:040x}", "name": 1000 * "n"}
            for number in range(FILES)
        ],
    )
    with ExitStack() as connections:

        def ask_for_list() -> socket.socket:
            path, nonce = f"/buckets/{bucket}/files", next(alice.nonces)
            signature = alice.key.sign(f"GET\n{path}\n__nonce={nonce}")
            fields = f"x-pubkey: {alice.key.public}", f"x-signature: {signature}"
            wire = connections.enter_context(socket.create_connection(address(alice.bridge)))
            wire.settimeout(MINUTE)
            wire.sendall(head(f"GET {path}?__nonce={nonce}", *fields))
            assert wire.recv(15) == b"HTTP/1.1 200 OK"
            return wire

        yield ask_for_list


def test_clients_that_read_no_list_hold_up_no_other_list(
    alice: User, bucket: str, long_list: Callable[[], socket.socket]
) -> None:
    for _ in range(MAX_LISTS):
        long_list()
    assert len(alice.ask("GET", f"/buckets/{bucket}/files").json) == FILES


def test_list_ends_when_its_client_has_gone(
    alice: User, long_list: Callable[[], socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pymdc.bridge.requests")
    long_list().close()
    alice.bridge.close()
    [line] = (text for text in caplog.messages if "/files 200 " in text)
    sent = re.search(r" out=(\d+) ", line)
    assert sent
    assert int(sent[1]) < 1000 * FILES


@pytest.fixture
def shards(backend: Backend) -> Iterator[tuple[User, str, str]]:
    """Give a user, a bucket and a file in it that has 1,200 shards of two bytes."""
    content = bytes(byte for number in range(1200) for byte in divmod(number, 256))
    with backend.bridge(shard_size=2) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        yield user, bucket, user.upload(bucket, content).json["hash"]


def test_pointers_to_many_shards_are_made_in_pages(
    shards: tuple[User, str, str], backend: Backend, rows: Rows
) -> None:
    user, bucket, name = shards
    answer = user.pointers(bucket, name).json
    hashes = [file_hash(bytes(divmod(number, 256))) for number in range(1200)]
    assert [pointer["hash"] for pointer in answer] == hashes
    assert len({pointer["token"] for pointer in answer}) == rows("pointers") == 1200
    assert pull(answer[1199]) == bytes(divmod(1199, 256))
    assert backend.transferred() == 2400


def test_pointers_that_are_not_made_take_no_transfer(
    shards: tuple[User, str, str], backend: Backend, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, bucket, name = shards
    gone, make = threading.Event(), _Pointers.add

    def make_when_the_client_has_gone(*arguments: Any) -> list[dict[str, Any]]:
        if rows("pointers"):
            gone.wait(MINUTE)
        return make(*arguments)

    monkeypatch.setattr(_Pointers, "add", make_when_the_client_has_gone)
    token = user.token(bucket, "PULL")
    with socket.create_connection(address(user.bridge)) as wire:
        wire.sendall(head(f"GET /buckets/{bucket}/files/{name}", f"x-token: {token}"))
        while not rows("pointers"):
            pass
    assert ask(user.bridge, "OPTIONS", "/").status == 204, "the bridge has seen that end by now"
    gone.set()
    user.bridge.close()
    assert rows("pointers") < 1200
    assert backend.transferred() == 2 * rows("pointers")


def test_pointers_of_a_later_page_are_made_with_the_reserve_of_a_full_disk(
    shards: tuple[User, str, str],
    backend: Backend,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
) -> None:
    failed, make = threading.Event(), _Pointers.add

    def fail_once(*arguments: Any) -> list[dict[str, Any]]:
        made = make(*arguments)
        if rows("pointers") and not failed.is_set():
            failed.set()
            raise sqlite3.OperationalError("database or disk is full")
        return made

    monkeypatch.setattr(_Pointers, "add", fail_once)
    Reserve(data).fill()
    user, bucket, name = shards
    answer = user.pointers(bucket, name).json
    assert failed.is_set()
    assert len({pointer["token"] for pointer in answer}) == rows("pointers") == 1200
    assert backend.transferred() == 2400


def test_expired_tokens_are_deleted(alice: User, bucket: str, backend: Backend, rows: Rows) -> None:
    backend.execute(
        "INSERT INTO tokens (token, bucket, operation, expires)"
        " VALUES (:token, :bucket, 'PULL', 1)",
        [{"token": str(number), "bucket": bucket} for number in range(2500)],
    )
    alice.token(bucket, "PULL")
    alice.bridge._housekeeper.keep_house()
    assert rows("tokens") == 1

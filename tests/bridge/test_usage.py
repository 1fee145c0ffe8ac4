"""What buckets, users and the bridge may store and send."""

from __future__ import annotations

import random
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from backends import Backend
from plain_client import DATA, Clock, Count, Reply, Rows, User, address, ask, form, pull
from processes import MINUTE

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.storage.usage import no_room as refuse

KB = 1e-6  # in GB
OTHER = DATA[::-1]  # of the same 2,500 bytes


def no_room(whose: str, size: int, used: int, limit: int) -> tuple[int, str]:
    return 413, f"{whose} has no room for {size} bytes more: {used} of {limit} are used"


@contextmanager
def upload_in_flight(user: User, bucket: str, size: int) -> Iterator[tuple[socket.socket, bytes]]:
    """Begin an upload; yield its connection and the body, of which nothing is sent."""
    body = form(bytes(size))
    with socket.create_connection(address(user.bridge), timeout=MINUTE) as wire:
        wire.sendall(user.upload_head(bucket, size, len(body), "Expect: 100-continue"))
        yield wire, body


def test_upload_past_the_storage_is_refused_before_its_body(alice: User, objects: Count) -> None:
    bucket = alice.bucket(storage=5 * KB)
    assert alice.upload(bucket, DATA).status == 200
    assert alice.upload(bucket, DATA[:-1]).status == 200
    before = objects()
    with upload_in_flight(alice, bucket, 2) as (wire, _):
        assert wire.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert alice.upload(bucket, b"ab").error == no_room("The bucket", 2, 4999, 5000)
    assert objects() == before
    assert alice.upload(bucket, b"a").status == 200, "to the last byte"


def test_refusal_is_one_also_if_there_is_room_by_then(
    alice: User, bridge: Bridge, clock: Clock
) -> None:
    values = {"bucket": alice.bucket(), "upload": "", "size": 3, "everybody": None}
    with bridge._database.read() as connection:
        refusal = refuse(connection, {**values, "each_user": None})
    assert (refusal.status, refusal.message) == (413, "There was no room for 3 bytes more")


def test_many_small_files_count(alice: User) -> None:
    bucket = alice.bucket(storage=0.1 * KB)
    replies = [alice.upload(bucket, bytes(10 + number)).status for number in range(9)]
    assert replies == 7 * [200] + 2 * [413], "10 + 11 + ... + 16 = 91"


def test_uploads_side_by_side_count(alice: User, rows: Rows) -> None:
    bucket = alice.bucket(storage=5 * KB)
    with upload_in_flight(alice, bucket, 3000) as (wire, _):
        assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
        assert alice.upload(bucket, DATA).error == no_room("The bucket", 2500, 3000, 5000)
    while rows("uploads"):  # until the bridge has seen that the client is gone
        pass
    assert alice.upload(bucket, DATA).status == 200
    with upload_in_flight(alice, bucket, 2000) as (wire, body):
        assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
        wire.sendall(body)
        assert wire.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert rows("uploads") == 0


@pytest.mark.parametrize("limit", ["storage", "user_limit", "storage_limit"])
@pytest.mark.parametrize("size", [900, 2500], ids=["one shard", "three shards"])
def test_simultaneous_uploads_never_exceed_a_limit(backend: Backend, limit: str, size: int) -> None:
    room = 5 * size / 1e9
    limits: dict[str, Any] = {} if limit == "storage" else {limit: room}
    with backend.bridge(shard_size=1000, **limits) as bridge, ThreadPoolExecutor(12) as threads:
        users = [User(bridge, name) for name in ("alice", "bob")]
        users = [users[0]] if limit != "storage_limit" else users
        buckets = [(user, user.bucket()) for user in users]
        if limit == "user_limit":
            buckets.append((users[0], users[0].bucket()))
        elif limit == "storage":
            buckets = [(users[0], users[0].bucket(storage=room))]

        def upload(number: int) -> int:
            user, bucket = buckets[number % len(buckets)]
            return user.upload(bucket, random.Random(number).randbytes(size)).status

        statuses = [*threads.map(upload, range(12))]
        assert sorted(statuses) == 5 * [200] + 7 * [413]


def test_same_content_counts_once(alice: User, objects: Count) -> None:
    bucket = alice.bucket(storage=3 * KB)
    for name in ("first", "second"):
        assert alice.upload(bucket, DATA, name).json["filename"] == name
    before = objects()
    assert alice.upload(bucket, OTHER).error == no_room("The bucket", 2500, 2500, 3000)
    assert objects() == before
    assert alice.upload(bucket, DATA[:500]).status == 200


def test_removed_files_count_no_longer(alice: User) -> None:
    bucket = alice.bucket(storage=3 * KB)
    for data in (DATA, OTHER):
        name = alice.upload(bucket, data).json["hash"]
        assert alice.ask("DELETE", f"/buckets/{bucket}/files/{name}").status == 204
    assert alice.upload(bucket, DATA).status == 200


def test_lowered_storage_refuses_an_upload_that_has_begun(alice: User, objects: Count) -> None:
    bucket = alice.bucket()
    with upload_in_flight(alice, bucket, 2500) as (wire, body):
        assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
        assert alice.ask("PATCH", f"/buckets/{bucket}", {"storage": 0}).status == 200
        wire.sendall(body)
        assert wire.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert objects() == 0
    assert alice.upload(bucket, b"").status == 200, "a file without bytes takes no room"


def test_bucket_without_a_limit_takes_everything(alice: User) -> None:
    assert alice.upload(alice.bucket(storage=None), DATA).status == 200


def test_user_and_bridge_have_limits_besides(backend: Backend) -> None:
    with backend.bridge(user_limit=3 * KB, storage_limit=5 * KB) as bridge:
        alice, bob = User(bridge, "alice"), User(bridge, "bob")
        assert alice.upload(alice.bucket(), DATA).status == 200
        emptied = alice.bucket()
        assert alice.upload(emptied, OTHER).error == no_room("The account", 2500, 2500, 3000)
        assert bob.upload(bob.bucket(), DATA).status == 200, "stored once, and counted for each"
        reply = bob.upload(bob.bucket(), b"a")
        assert reply.error == no_room("The bridge", 1, 5000, 5000)
        assert alice.ask("DELETE", f"/buckets/{emptied}").status == 204
        [first] = alice.ask("GET", "/buckets").json
        assert alice.ask("DELETE", f"/buckets/{first['id']}").status == 204
        assert bob.upload(bob.bucket(), b"a").status == 200


@pytest.fixture
def pulled(alice: User) -> tuple[str, str]:
    """Return a bucket that may send 6 KB a month, and its file of 2.5 KB."""
    bucket = alice.bucket(transfer=6 * KB)
    return bucket, alice.upload(bucket, DATA).json["hash"]


def spent(reply: Reply, month: str) -> bool:
    text = f"The bucket may not send 2500 bytes more in {month} (UTC): 5000 of 6000 are sent"
    return reply.error == (403, text)


def test_pull_past_the_transfer_of_the_month_is_refused(
    alice: User, clock: Clock, pulled: tuple[str, str]
) -> None:
    for _ in range(2):
        assert alice.download(*pulled) == DATA
    assert spent(alice.pointers(*pulled), "2016-03")
    clock.seconds = 1_459_468_799.9  # the end of March 2016
    assert spent(alice.pointers(*pulled), "2016-03")
    clock.seconds += 0.1
    assert alice.download(*pulled) == DATA
    assert alice.ask("PATCH", f"/buckets/{pulled[0]}", {"transfer": 1 * KB}).status == 200
    assert alice.pointers(*pulled).status == 403
    assert alice.ask("PATCH", f"/buckets/{pulled[0]}", {"transfer": None}).status == 200
    assert alice.download(*pulled) == DATA


def test_pointers_that_expire_unused_do_not_count(
    alice: User, clock: Clock, pulled: tuple[str, str]
) -> None:
    first, _, _ = alice.pointers(*pulled).json
    assert len(pull(first)) == 1000
    assert alice.pointers(*pulled).status == 200
    assert spent(alice.pointers(*pulled), "2016-03")
    clock.seconds += 300
    alice.bridge._housekeeper.keep_house()
    assert alice.download(*pulled) == DATA, "1,000 + 2,500"
    assert alice.download(*pulled) == DATA, "6,000"
    assert alice.pointers(*pulled).status == 403


def test_removed_bucket_leaves_no_row(alice: User, pulled: tuple[str, str], rows: Rows) -> None:
    assert alice.download(*pulled) == DATA
    assert rows("transfers") == 1
    assert alice.ask("DELETE", f"/buckets/{pulled[0]}").status == 204
    assert [rows(table) for table in ("transfers", "buckets", "files", "shards")] == [0, 0, 0, 0]


def test_empty_file_takes_no_transfer(alice: User) -> None:
    bucket = alice.bucket(transfer=0)
    name = alice.upload(bucket, b"").json["hash"]
    assert alice.pointers(bucket, name).json == []
    assert alice.pointers(bucket, alice.upload(bucket, DATA).json["hash"]).status == 403


@pytest.mark.parametrize("left", [b"", b"of another size"], ids=["lost", "cut"])
def test_damaged_object_is_stored_anew_by_the_next_upload(
    alice: User, backend: Backend, objects: Count, left: bytes
) -> None:
    bucket, other = alice.bucket(), alice.bucket()
    assert alice.upload(bucket, DATA).status == 200
    [damaged] = (name for name in backend.objects() if len(backend.read(name)) == 500)
    if left:
        backend.write(damaged, left)
    else:
        backend.remove(damaged)
    for where in (bucket, other):
        assert alice.upload(where, DATA).status == 200
        assert alice.download(bucket, file_hash(DATA)) == DATA
    assert objects() == 3


def usage(user: User) -> Any:
    reply = user.ask("GET", "/usage")
    assert reply.status == 200
    return reply.json


def test_usage_is_that_of_the_user_in_this_month(
    alice: User, clock: Clock, backend: Backend, rows: Rows
) -> None:
    first, second = alice.bucket(), alice.bucket()
    bob = User(alice.bridge, "bob")
    bob.upload(bob.bucket(), DATA)
    name = alice.upload(first, DATA).json["hash"]
    alice.upload(first, DATA, "again")
    alice.upload(first, b"ab")
    alice.download(first, name)
    told = usage(alice)
    free = told.pop("disk_free")
    if backend.knows_what_is_free:
        assert abs(free - shutil.disk_usage(backend.data).free) < 10**9
    else:
        assert free is None
    assert told == {
        "stored": 2502,
        "limit": None,
        "buckets": [
            {"id": first, "stored": 2502, "files": 2, "transferred": 2500},
            {"id": second, "stored": 0, "files": 0, "transferred": 0},
        ],
    }
    clock.seconds += 31 * 86_400
    assert alice.ask("DELETE", f"/buckets/{first}/files/{name}").status == 204
    assert usage(alice)["buckets"][0] == {
        **{"id": first, "stored": 2, "files": 1, "transferred": 0}
    }
    assert alice.ask("DELETE", f"/buckets/{first}").status == 204
    assert [bucket["id"] for bucket in usage(alice)["buckets"]] == [second]
    assert ask(alice.bridge, "GET", "/usage").status == 401


def test_usage_tells_the_limit_of_the_user(backend: Backend) -> None:
    with backend.bridge(user_limit=2.5, storage_limit=100) as bridge:
        alice, bob = User(bridge, "alice"), User(bridge, "bob")
        backend.execute("UPDATE users SET storage = 7 WHERE email = 'bob@example.com'")
        assert (usage(alice)["limit"], usage(bob)["limit"]) == (2.5, 7)


def test_refused_and_broken_uploads_are_no_files(alice: User) -> None:
    bucket = alice.bucket(storage=3 * KB)
    assert alice.upload(bucket, DATA).status == 200
    assert alice.upload(bucket, OTHER).status == 413
    assert [each["files"] for each in usage(alice)["buckets"]] == [1]

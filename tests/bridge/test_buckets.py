"""Buckets."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from backends import Backend
from modes import PATIENCE
from plain_client import DATA, Count, Key, Rows, User
from processes import MINUTE

from pymdc.bridge.load import Lane
from pymdc.bridge.routes import buckets
from pymdc.bridge.serving import app
from pymdc.bridge.settings import BATCH, BUCKETS_PAGE, MAX_REMOVALS, REMOVED_AT_ONCE
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.removal import remove_piece
from pymdc.bridge.storage.sqlite import SQLiteDatabase


def test_null_as_a_list_of_keys_is_refused(alice: User) -> None:
    path = f"/buckets/{alice.bucket()}"
    reply = alice.ask("PATCH", path, {"name": "other", "pubkeys": None})
    assert reply.error == (400, "Bucket validation failed")
    shown = alice.ask("GET", path).json
    assert (shown["name"], shown["pubkeys"]) == ("New Bucket", [alice.key.public])
    for dropped in ("text", 5, False):
        assert alice.ask("PATCH", path, {"pubkeys": dropped}).json == shown
    assert alice.ask("PATCH", path, {"pubkeys": []}).json["pubkeys"] == []
    assert alice.ask("POST", "/buckets", {"pubkeys": None}).json["pubkeys"] == [alice.key.public]


def test_list_of_buckets_is_read_in_pages(alice: User, backend: Backend) -> None:
    first = alice.bucket(name="first")
    copy_bucket(backend, first, 2 * BUCKETS_PAGE)
    listed = alice.ask("GET", "/buckets").json
    assert [bucket["name"] for bucket in listed] == ["first"] + 2 * BUCKETS_PAGE * ["copy"]
    assert len({bucket["id"] for bucket in listed}) == 1 + 2 * BUCKETS_PAGE


def test_account_has_at_most_1000_buckets(alice: User, backend: Backend) -> None:
    first = alice.bucket()
    copy_bucket(backend, first, 998)
    assert alice.ask("POST", "/buckets", {}).status == 200
    assert alice.ask("POST", "/buckets", {}).error == (403, "An account has at most 1000 buckets")
    assert User(alice.bridge, "bob").ask("POST", "/buckets", {}).status == 200
    assert alice.ask("DELETE", f"/buckets/{first}").status == 204
    assert alice.ask("POST", "/buckets", {}).status == 200


def test_buckets_of_an_account_list_a_mebibyte_of_keys_in_all(
    alice: User, backend: Backend
) -> None:
    many, refusal = (
        900 * [Key("bob").public],
        "The buckets of the account list too many public keys",
    )
    first, last = alice.bucket(pubkeys=many), alice.bucket()
    copy_bucket(backend, first, 15)
    for reply in (
        alice.ask("POST", "/buckets", {"pubkeys": many}),
        alice.ask("PATCH", f"/buckets/{last}", {"pubkeys": many}),
    ):
        assert reply.error == (403, refusal)
    assert alice.ask("GET", f"/buckets/{last}").json["pubkeys"] == [alice.key.public]
    assert alice.ask("PATCH", f"/buckets/{last}", {"pubkeys": many[:100]}).status == 200
    bob = User(alice.bridge, "bob")
    assert bob.ask("POST", "/buckets", {"pubkeys": many}).status == 200
    stranger = bob.ask("PATCH", f"/buckets/{last}", {"pubkeys": many})
    assert stranger.error == (404, "Bucket not found")


def test_removal_of_a_file_does_not_wait_for_large_buckets(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = alice.bucket(), [alice.bucket() for _ in range(2 * MAX_REMOVALS)]
    file = alice.upload(small, b"abc").json["hash"]
    removing, released = threading.Semaphore(0), threading.Event()

    def remove_slowly(database: SQLiteDatabase, objects: ObjectStore, bucket: str) -> bool:
        removing.release()
        return released.is_set() and remove_piece(database, objects, bucket)

    monkeypatch.setattr(buckets, "remove_piece", remove_slowly)
    with ThreadPoolExecutor(len(large)) as threads:
        removals = threads.map(lambda bucket: alice.ask("DELETE", f"/buckets/{bucket}"), large)
        assert removing.acquire(timeout=PATIENCE)
        assert alice.ask("DELETE", f"/buckets/{small}/files/{file}").status == 204
        released.set()
        assert [reply.status for reply in removals] == len(large) * [204]
    assert [bucket["id"] for bucket in alice.ask("GET", "/buckets").json] == [small]


def copy_bucket(backend: Backend, bucket: str, count: int) -> None:
    backend.execute(
        'INSERT INTO buckets (id, "user", created, name, pubkeys)'
        """ SELECT :id, "user", created, 'copy', pubkeys FROM buckets WHERE id = :bucket""",
        [{"id": f"{number:024x}", "bucket": bucket} for number in range(count)],
    )


def test_large_bucket_is_removed_in_pieces_and_others_are_served_between_them(
    alice: User, bucket: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.execute(
        "INSERT INTO files (bucket, hash, filename, mimetype, size)"
        " VALUES (:bucket, :hash, '', '', 0)",
        [{"bucket": bucket, "hash": f"{number:040x}"} for number in range(3 * BATCH)],
    )
    objects, served = alice.bridge._housekeeper._objects, list[int]()
    delete = objects.delete

    def serve_and_delete(names: Iterable[str]) -> None:
        served.append(alice.ask("GET", "/buckets").status)
        delete(names)

    monkeypatch.setattr(objects, "delete", serve_and_delete)
    assert alice.ask("DELETE", f"/buckets/{bucket}").status == 204
    pieces = 3 if alice.bridge._database.lanes > 1 else 3 * BATCH // REMOVED_AT_ONCE
    assert served == (pieces + 1) * [200], "after each piece, and when nothing is left"


@pytest.mark.parametrize("has_turn", [True, False])
def test_removal_that_takes_long_is_answered_and_goes_on(
    alice: User,
    bucket: str,
    rows: Rows,
    objects: Count,
    monkeypatch: pytest.MonkeyPatch,
    has_turn: bool,
) -> None:
    if has_turn:
        monkeypatch.setattr(app, "REMOVAL_SECONDS", 0)
    else:  # for many others are under way
        monkeypatch.setattr(alice.bridge._housekeeper._load, "removals", Lane(0))
    alice.upload(bucket, DATA)
    assert alice.ask("DELETE", f"/buckets/{bucket}").status == 204
    assert alice.ask("GET", "/buckets").json == []
    end = time.monotonic() + MINUTE / 2  # sooner than the housekeeper looks by itself
    while rows("buckets"):
        assert time.monotonic() < end
    assert (rows("files"), rows("shards"), objects()) == (0, 0, 0)

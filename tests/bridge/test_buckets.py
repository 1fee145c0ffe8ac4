"""Buckets."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest
from plain_client import User

from pymdc.bridge.settings import BUCKETS_PAGE
from pymdc.bridge.storage.objects import ObjectStore


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


def test_list_of_buckets_is_read_in_pages(alice: User, data: Path) -> None:
    first = alice.bucket(name="first")
    copy_bucket(data, first, 2 * BUCKETS_PAGE)
    listed = alice.ask("GET", "/buckets").json
    assert [bucket["name"] for bucket in listed] == ["first"] + 2 * BUCKETS_PAGE * ["copy"]
    assert len({bucket["id"] for bucket in listed}) == 1 + 2 * BUCKETS_PAGE


def test_account_has_at_most_1000_buckets(alice: User, data: Path) -> None:
    first = alice.bucket()
    copy_bucket(data, first, 998)
    assert alice.ask("POST", "/buckets", {}).status == 200
    assert alice.ask("POST", "/buckets", {}).error == (403, "An account has at most 1000 buckets")
    assert User(alice.bridge, "bob").ask("POST", "/buckets", {}).status == 200
    assert alice.ask("DELETE", f"/buckets/{first}").status == 204
    assert alice.ask("POST", "/buckets", {}).status == 200


def copy_bucket(data: Path, bucket: str, count: int) -> None:
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection, connection:
        for number in range(count):
            connection.execute(
                "INSERT INTO buckets (id, user, created, name, pubkeys)"
                " SELECT ?, user, created, 'copy', pubkeys FROM buckets WHERE id = ?",
                [f"{number:024x}", bucket],
            )


def test_large_bucket_is_removed_in_pieces_and_others_are_served_between_them(
    alice: User, bucket: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection, connection:
        rows = [(bucket, f"{number:040x}") for number in range(1200)]
        columns = "(bucket, hash, filename, mimetype, size)"
        connection.executemany(f"INSERT INTO files {columns} VALUES (?, ?, '', '', 0)", rows)
    delete, served = ObjectStore.delete, list[int]()

    def serve_and_delete(store: ObjectStore, names: Iterable[str]) -> None:
        served.append(alice.ask("GET", "/buckets").status)
        delete(store, names)

    monkeypatch.setattr(ObjectStore, "delete", serve_and_delete)
    assert alice.ask("DELETE", f"/buckets/{bucket}").status == 204
    assert served == 4 * [200], "after 500, 500, 200 and 0 files"

"""The database."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing
from pathlib import Path

import pytest
from modes import PATIENCE
from plain_client import User, pull

from pymdc.bridge import Bridge
from pymdc.bridge.storage import sqlite


def test_database_has_a_write_ahead_log(bridge: Bridge, data: Path) -> None:
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_new_database_is_opened_once_nobody_else_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "new.sqlite"
    with ThreadPoolExecutor(1) as threads:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            opened = threads.submit(sqlite.SQLiteDatabase, path)
            with pytest.raises(FutureTimeout):
                opened.result(0.2)
        opened.result(PATIENCE).close()


def test_database_that_another_process_holds_too_long_is_a_503(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    with Bridge(data) as bridge:
        alice = User(bridge, "alice")
        with closing(sqlite3.connect(data / "metadata.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            reply = alice.ask("POST", "/buckets", {})
            assert (reply.error, "retry-after" in {*map(str.lower, reply.headers)}) == (
                (503, "The bridge is busy"),
                True,
            )
        assert alice.ask("POST", "/buckets", {}).status == 200


def spoil(data: Path, table: str) -> None:
    """Overwrite the page of the database at which *table* begins."""
    path = data / "metadata.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        [[size]] = connection.execute("PRAGMA page_size")
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        [[page]] = connection.execute(query, [table])
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


@pytest.mark.parametrize("table", ["users", "uploads", "alembic_version", "ix_shards_object"])
def test_damaged_page_stops_the_start_in_one_line(data: Path, table: str) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        user.upload(user.bucket(), b"abc")
    spoil(data, table)
    told = "is damaged: database disk image is malformed; restore a backup"
    with pytest.raises(OSError, match=told), Bridge(data):
        pass


def test_damaged_page_that_a_request_needs_is_one_line(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        [pointer] = user.pointers(bucket, user.upload(bucket, b"abc").json["hash"]).json
    spoil(data, "public_keys")
    spoil(data, "pointers")
    with Bridge(data) as user.bridge:
        reply = user.ask("GET", "/keys")
        pointer["channel"] = user.bridge.endpoint.replace("http", "ws")
        with pytest.raises(AssertionError, match="Internal error"):
            pull(pointer)
    assert reply.status == 500
    assert [record.exc_info for record in caplog.records] == [None, None]
    for line, what in zip(caplog.messages, ("the GET request", "the channel"), strict=True):
        assert line.startswith(what)
        assert line.endswith("is malformed; restore a backup")

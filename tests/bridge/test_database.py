"""The database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from plain_client import User

from pymdc.bridge import Bridge
from pymdc.bridge.storage import database


def test_database_has_a_write_ahead_log(bridge: Bridge, data: Path) -> None:
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_database_that_another_process_holds_too_long_is_a_503(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
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

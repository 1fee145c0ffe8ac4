"""The database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from pymdc.bridge import Bridge


def test_database_has_a_write_ahead_log(bridge: Bridge, data: Path) -> None:
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from plain_client import Clock, Count, Rows, User

from pymdc.bridge import Bridge

SHARD_SIZE = 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def bridge(data: Path, clock: Clock) -> Iterator[Bridge]:
    with Bridge(data, shard_size=SHARD_SIZE, clock=clock) as running:
        yield running


@pytest.fixture
def alice(bridge: Bridge) -> User:
    return User(bridge, "alice")


@pytest.fixture
def bucket(alice: User) -> str:
    return alice.bucket()


@pytest.fixture
def objects(data: Path) -> Count:
    """Count the objects on disk, half-written ones included."""
    return lambda: sum(path.name != "installation" for path in (data / "shards").iterdir())


@pytest.fixture
def rows(data: Path) -> Rows:
    """Count the rows of a table."""

    def count(table: str) -> int:
        with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    return count

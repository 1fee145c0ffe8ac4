from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from backends import Backend, Embedded
from plain_client import Clock, Count, Rows, User

from pymdc.bridge import Bridge

SHARD_SIZE = 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(tmp_path: Path) -> Backend:
    """Give the database and the store of the test."""
    return Embedded(tmp_path / "data")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give the folder of the bridge, for tests of what is in it."""
    return tmp_path / "data"


@pytest.fixture
def bridge(backend: Backend, clock: Clock) -> Iterator[Bridge]:
    with backend.bridge(shard_size=SHARD_SIZE, clock=clock) as running:
        yield running


@pytest.fixture
def alice(bridge: Bridge) -> User:
    return User(bridge, "alice")


@pytest.fixture
def bucket(alice: User) -> str:
    return alice.bucket()


@pytest.fixture
def objects(backend: Backend) -> Count:
    """Count the objects in the store, half-written ones included."""
    return lambda: len(backend.objects())


@pytest.fixture
def rows(backend: Backend) -> Rows:
    """Count the rows of a table."""
    return backend.rows

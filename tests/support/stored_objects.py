"""Objects in a store, for tests of what the stores do."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from pymdc.bridge.settings import SHARDS
from pymdc.bridge.storage.objects import INSTALLATION, ObjectStore

MiB = 2**20


def views(*blocks: bytes) -> list[memoryview]:
    """Return *blocks* as a store takes them."""
    return [memoryview(block) for block in blocks]


def content(store: ObjectStore, name: str, start: int = 0, size: int = 100_000) -> bytes:
    """Return an object from *start* on, read in pieces of about *size* bytes."""
    with closing(store.open(name, start)) as reader:
        return b"".join(iter(lambda: bytes(reader.read(size)), b""))


def number_of_objects(data: Path) -> int:
    """Return how many objects are in the data folder of a bridge, half-written ones included."""
    return sum(path.name != INSTALLATION for path in (data / SHARDS).iterdir())

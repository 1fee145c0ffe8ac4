"""Objects in a store, for tests of what the stores do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from plain_client import DATA, Reply, User, ask, form, upload_headers

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


def upload_and_do(user: User, bucket: str, data: Path, action: Callable[[], object]) -> Reply:
    """Upload `DATA`; call *action* when the first shard, of 1,000 bytes, is in *data*."""
    body, headers = form(DATA), upload_headers(user.token(bucket, "PUSH"), len(DATA))
    headers["Content-Length"] = str(len(body))

    def sent() -> Iterator[bytes]:
        yield body[:1500]
        while not [*(data / SHARDS).glob("[0-9a-f]*")]:
            pass
        action()
        yield body[1500:]

    return ask(user.bridge, "PUT", f"/buckets/{bucket}/files", sent(), headers)


def number_of_objects(data: Path) -> int:
    """Return how many objects are in the data folder of a bridge, half-written ones included."""
    return sum(path.name != INSTALLATION for path in (data / SHARDS).iterdir())

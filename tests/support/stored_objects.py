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


def upload_in_halves(
    user: User, bucket: str, content: bytes, first: int, between: Callable[[], object]
) -> Reply:
    """Upload *content*; call *between* when the *first* bytes of the body are sent."""
    body = form(content)
    headers = upload_headers(user.token(bucket, "PUSH"), len(content))
    headers["Content-Length"] = str(len(body))

    def sent() -> Iterator[bytes]:
        yield body[:first]
        between()
        yield body[first:]

    return ask(user.bridge, "PUT", f"/buckets/{bucket}/files", sent(), headers)


def upload_and_do(user: User, bucket: str, data: Path, action: Callable[[], object]) -> Reply:
    """Upload `DATA`; call *action* when the first shard, of 1,000 bytes, is in *data*."""

    def between() -> None:
        while not [*(data / SHARDS).glob("[0-9a-f]*")]:
            pass
        action()

    return upload_in_halves(user, bucket, DATA, 1500, between)


def number_of_objects(data: Path) -> int:
    """Return how many objects are in the data folder of a bridge, half-written ones included."""
    return sum(path.name != INSTALLATION for path in (data / SHARDS).iterdir())

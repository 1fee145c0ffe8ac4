"""The objects that the database names, each checked against its hash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import sqlalchemy as sa

from pymdc._crypto.file_hash import FileHash
from pymdc.bridge.errors import StoreError
from pymdc.bridge.settings import BATCH, COPIED_AT_ONCE
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import Shard, batches, buckets, file_shards, files, shards

_COLUMNS = shards.c["hash", "object", "size"]
Read = Callable[[], AbstractContextManager[sa.Connection]]


class DamagedError(Exception):
    """An object is not what the database says."""


def read_object(store: ObjectStore, shard: Shard) -> Iterator[memoryview]:
    """Yield the bytes of an object; `DamagedError` at the end unless they are those of *shard*."""
    shard_hash, size = FileHash(), 0
    try:
        for block in store.blocks(shard.object):
            size += len(block)
            if size > shard.size:
                break
            shard_hash.update(block)
            yield block
    except FileNotFoundError:
        raise DamagedError("missing") from None
    except StoreError:  # which refuses all objects
        raise
    except OSError as error:
        raise DamagedError(f"unreadable: {error.strerror or error}") from error
    if size != shard.size:
        found = "more" if size > shard.size else f"{size:,}"
        raise DamagedError(f"wrong size: {found} instead of {shard.size:,} bytes")
    if shard_hash.hexdigest() != shard.hash:
        raise DamagedError("wrong hash")


def copy_objects(
    source: ObjectStore, target: ObjectStore, copied: Sequence[Shard]
) -> Iterator[tuple[Shard, DamagedError | None]]:
    """Copy objects; yield each with what is wrong with it, so that it was not copied."""

    def copy(shard: Shard) -> DamagedError | None:
        try:
            target.put(shard.object, read_object(source, shard))
        except DamagedError as damaged:
            return damaged
        return None

    # Several at a time: while one waits for the disk, others are read.
    with ThreadPoolExecutor(COPIED_AT_ONCE) as pool:
        yield from zip(copied, pool.map(copy, copied), strict=True)


def copy_installation(source: ObjectStore, target: ObjectStore) -> None:
    """Copy the id of the installation, without which a bridge does not use a store."""
    identity = source.installation()
    if identity is not None:  # else no bridge of this version has used the store yet
        target.set_installation(identity)


def shard_pages(read: Read) -> Iterator[list[Shard]]:
    """Yield all shards in pieces, each read in a transaction of its own that *read* begins."""
    page = sa.select(*_COLUMNS).order_by(shards.c.hash).limit(BATCH)
    last = ""
    while True:
        with read() as connection:
            found = connection.execute(page.where(shards.c.hash > last)).all()
        if not found:
            return
        yield [Shard(*row) for row in found]
        last = found[-1][0]


def object_sizes(connection: sa.Connection) -> Iterator[tuple[str, int]]:
    """Return the name of each object, and its size in bytes."""
    found = connection.execute(sa.select(*shards.c["object", "size"]))
    return ((row.object, row.size) for row in found)


def find_shards(connection: sa.Connection, objects: Sequence[str]) -> list[Shard]:
    """Return the shards of at most `BATCH` objects."""
    these = sa.select(*_COLUMNS).where(shards.c.object.in_(objects))
    return [Shard(*row) for row in connection.execute(these).all()]


def whole_size(connection: sa.Connection) -> int:
    """Return the bytes of all shards."""
    return int(connection.execute(sa.select(sa.func.sum(shards.c.size))).scalar() or 0)


def files_with(connection: sa.Connection, hashes: Sequence[str]) -> dict[str, list[sa.RowMapping]]:
    """Return the files that have the shards *hashes*, by shard."""
    found: dict[str, list[sa.RowMapping]] = {}
    statement = (
        sa.select(
            file_shards.c.shard,
            *files.c["bucket", "filename", "hash", "size"],
            buckets.c.user,
            buckets.c.name.label("bucket_name"),
            buckets.c.number,  # for the order
            files.c.number.label("file_number"),
        )
        .select_from(file_shards.join(files).join(buckets))
        .distinct()
        .order_by(buckets.c.user, buckets.c.number, files.c.number)
    )
    for batch in batches(hashes):
        for row in connection.execute(statement.where(file_shards.c.shard.in_(batch))).mappings():
            found.setdefault(row["shard"], []).append(row)
    return found

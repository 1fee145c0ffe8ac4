"""The rows of an upload: what it reserves, and the file that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import (
    Shard,
    batches,
    buckets,
    file_shards,
    files,
    find_bucket,
    shards,
    uploads,
)
from pymdc.bridge.storage.usage import Limits, add_used, no_room, where_it_fits

_SIZE = sa.bindparam("size", type_=sa.BigInteger)
_NOW = sa.bindparam("now", type_=sa.BigInteger)
_TEXTS = {
    name: sa.bindparam(name, type_=sa.String) for name in ("upload", "hash", "filename", "mimetype")
}
_RESERVE = sa.insert(uploads).from_select(
    ["id", "bucket", "size", "started"], where_it_fits(_TEXTS["upload"], buckets.c.id, _SIZE, _NOW)
)
_RELEASE = sa.delete(uploads).where(uploads.c.id == _TEXTS["upload"])
_NEW_FILE = where_it_fits(
    buckets.c.id, _TEXTS["hash"], _TEXTS["filename"], _TEXTS["mimetype"], _SIZE, _NOW
)
_INSERT_FILE = (
    insert(files)
    .from_select(["bucket", "hash", "filename", "mimetype", "size", "created"], _NEW_FILE)
    .on_conflict_do_nothing()
    .returning(files.c.number)
)
_INSERT_SHARDS = insert(shards).on_conflict_do_nothing()
_INSERT_PARTS = sa.insert(file_shards)


def reserve(
    connection: sa.Connection, limits: Limits, upload: str, bucket: str, size: int, now: int
) -> None:
    """Count *size* bytes as used in *bucket* until *upload* ends; refuse with 413 if too many."""
    values = {"upload": upload, "bucket": bucket, "size": size, "now": now} | limits._asdict()
    if connection.execute(_RESERVE, values).rowcount == 1:
        return
    find_bucket(connection, bucket)
    # Content that the bucket has already takes no room: whether it is that content is known at
    # the end.
    same_size = sa.exists().where(files.c.bucket == bucket, files.c.size == size)
    if not connection.execute(sa.select(same_size)).scalar():
        raise no_room(connection, values)
    row = {"id": upload, "bucket": bucket, "size": 0, "started": now}
    connection.execute(sa.insert(uploads).values(**row))


def release(connection: sa.Connection, upload: str) -> None:
    """End what `reserve` did."""
    connection.execute(_RELEASE, {"upload": upload})


def insert_file(
    connection: sa.Connection,
    objects: ObjectStore,
    limits: Limits,
    upload: str,
    file: dict[str, Any],
    parts: Sequence[Shard],
    now: int,
) -> set[str]:
    """Turn an upload into a *file*, or give its name to the same content; return unneeded objects.

    What refuses, with 404 or 413, has changed nothing but the reservation.
    """
    release(connection, upload)
    values = file | {"upload": upload, "now": now} | limits._asdict()
    number = connection.execute(_INSERT_FILE, values).scalar()
    if number is None:
        _rename_file(connection, values)
    else:
        add_used(connection, file["bucket"], 1, file["size"], now)
        if parts and _insert_shards(connection, number, parts):
            return set()
    return _replace_damaged(connection, objects, parts)


def _rename_file(connection: sa.Connection, values: dict[str, Any]) -> None:
    """Give a new name to content that is stored already; refuse if it is not."""
    find_bucket(connection, values["bucket"])
    this = files.c.bucket == values["bucket"], files.c.hash == values["hash"]
    renamed = sa.update(files).where(*this)
    names = {name: values[name] for name in ("filename", "mimetype")}
    if connection.execute(renamed.values(**names, created=values["now"])).rowcount != 1:
        raise no_room(connection, values)
    # The new objects are not needed; should the bridge be killed before it deletes them, it has
    # to know that they are older than this.
    add_used(connection, values["bucket"], 0, 0, values["now"])


def _insert_shards(connection: sa.Connection, file: int, parts: Sequence[Shard]) -> bool:
    """Insert the shards of a new file; say whether all of them are new."""
    rows = [part._asdict() for part in parts]
    new = connection.execute(_INSERT_SHARDS, rows).rowcount
    connection.execute(
        _INSERT_PARTS,
        [
            {"file": file, "position": position, "shard": part.hash}
            for position, part in enumerate(parts)
        ],
    )
    return bool(new == len(parts))


def _replace_damaged(
    connection: sa.Connection, objects: ObjectStore, parts: Sequence[Shard]
) -> set[str]:
    """Use the new objects for shards whose stored ones are missing or of another size.

    Return the objects that no shard needs: the new ones of the other shards, and the replaced ones.
    """
    new = {part.hash: part.object for part in parts}
    unneeded = {part.object for part in parts}
    for batch in batches([*new]):
        statement = sa.select(shards).where(shards.c.hash.in_(batch))
        for shard in connection.execute(statement).mappings().all():
            stored, replacement = shard["object"], new[shard["hash"]]
            if stored not in unneeded and objects.size(stored) != shard["size"]:
                this = sa.update(shards).where(shards.c.hash == shard["hash"])
                connection.execute(this.values(object=replacement))
                unneeded.add(stored)
                stored = replacement
            unneeded.discard(stored)
    return unneeded

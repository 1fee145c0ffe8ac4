"""The rows of an upload: what it reserves, and the file that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pymdc.bridge.errors import Refused
from pymdc.bridge.settings import UPLOAD_LIFETIME
from pymdc.bridge.storage.database import has_one_writer
from pymdc.bridge.storage.prepared import Prepared, Row
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
from pymdc.bridge.storage.usage import (
    ADD_ONE,
    LOCK_BUCKET,
    Limits,
    add_used,
    lock_limits,
    lock_room,
    no_room,
    where_it_fits,
)

_SIZE = sa.bindparam("size", type_=sa.BigInteger)
_NOW = sa.bindparam("now", type_=sa.BigInteger)
_OBJECT = sa.bindparam("object", type_=sa.String)
_TEXTS = {
    name: sa.bindparam(name, type_=sa.String) for name in ("upload", "hash", "filename", "mimetype")
}
_RESERVE = Prepared(
    sa.insert(uploads).from_select(
        ["id", "bucket", "size", "started"],
        where_it_fits(_TEXTS["upload"], buckets.c.id, _SIZE, _NOW),
    )
)
_RELEASE = Prepared(
    sa.delete(uploads)
    .where(uploads.c.id == _TEXTS["upload"])
    .returning(*uploads.c["started", "bucket"])
)
_STORED = ""  # instead of a bucket: the upload is a file
_NEW_FILE = where_it_fits(
    buckets.c.id, _TEXTS["hash"], _TEXTS["filename"], _TEXTS["mimetype"], _SIZE, _NOW
)
_INSERTED_FILE = (
    insert(files)
    .from_select(["bucket", "hash", "filename", "mimetype", "size", "created"], _NEW_FILE)
    .on_conflict_do_nothing()
    .returning(files.c.number)
)
_INSERT_FILE = Prepared(_INSERTED_FILE)
_SHARD_COLUMNS = ("hash", "object", "size")
_INSERT_SHARDS = Prepared(
    insert(shards)
    .values({name: sa.bindparam(name) for name in _SHARD_COLUMNS})
    .on_conflict_do_nothing()
)
_INSERT_PARTS = Prepared(
    sa.insert(file_shards).values(
        {name: sa.bindparam(name) for name in ("file", "position", "shard")}
    )
)


# On PostgreSQL, to send a statement takes as long as what it does: these do several things at once.
def _lock_and_release() -> Any:
    """Return the statement that locks a bucket, and ends an upload to it."""
    locked = LOCK_BUCKET.cte("locked")
    return (
        sa.delete(uploads)
        .where(uploads.c.id == _TEXTS["upload"], locked.c.user.is_not(None))
        .returning(uploads.c.started, *locked.c["user", "storage"])
    )


def _insert_whole() -> sa.Select[Any]:
    """Return the statement that inserts and counts a file, and the one shard that it has.

    If the shard is stored already, that and the part are left to others.
    """
    file = _INSERTED_FILE.cte("file")
    of_file = sa.select(_TEXTS["hash"], _OBJECT, _SIZE).select_from(file)
    shard = (
        insert(shards)
        .from_select(_SHARD_COLUMNS, of_file)
        .on_conflict_do_nothing()
        .returning(shards.c.hash)
        .cte("shard")
    )
    of_both = sa.select(file.c.number, sa.literal(0), shard.c.hash)
    part = (
        sa.insert(file_shards)
        .from_select(["file", "position", "shard"], of_both.join_from(file, shard, sa.true()))
        .returning(file_shards.c.position)
        .cte("part")
    )
    used = ADD_ONE.where(file.c.number.is_not(None)).returning(buckets.c.id).cte("used")
    is_whole = sa.exists().select_from(part).label("is_whole")
    return sa.select(file.c.number, is_whole).add_cte(used)


_LOCK_AND_RELEASE = Prepared(_lock_and_release())
_INSERT_WHOLE = Prepared(_insert_whole())


def reserve(
    connection: sa.Connection, limits: Limits, upload: str, bucket: str, size: int, now: int
) -> None:
    """Count *size* bytes as used in *bucket* until *upload* ends; refuse with 413 if too many."""
    values = {"upload": upload, "bucket": bucket, "size": size, "now": now} | limits._asdict()
    lock_room(connection, limits, bucket)
    if _RESERVE.count(connection, values) == 1:
        return
    find_bucket(connection, bucket)
    # Content that the bucket has already takes no room: whether it is that content is known at
    # the end.
    same_size = sa.exists().where(files.c.bucket == bucket, files.c.size == size)
    if not connection.execute(sa.select(same_size)).scalar():
        raise no_room(connection, values)
    row = {"id": upload, "bucket": bucket, "size": 0, "started": now}
    connection.execute(sa.insert(uploads).values(**row))


def release(connection: sa.Connection, upload: str) -> bool:
    """End an upload; return False if that has ended already, or if it has become a file."""
    row = _RELEASE.first(connection, {"upload": upload})
    return row is not None and row["bucket"] != _STORED


def insert_file(
    connection: sa.Connection,
    limits: Limits,
    upload: str,
    file: dict[str, Any],
    parts: Sequence[Shard],
    now: int,
) -> tuple[set[str], list[Shard]]:
    """Turn an upload into a *file*, or give its name to the same content.

    Return the objects of *parts* that no shard refers to, and those of their shards that were
    stored already, with the objects that they have. If there are such shards, `release` has to
    follow: until then the objects of *parts* are kept, since some may have to be put in use.
    What refuses, with 404, 408 or 413, has changed nothing but the reservation.
    """
    reserved = _end_reservation(connection, limits, upload, file["bucket"])
    if reserved is None or now - reserved["started"] > UPLOAD_LIFETIME:
        raise Refused(408, f"The upload took longer than {UPLOAD_LIFETIME // 3_600_000} hours")
    values = file | {"upload": upload, "now": now} | limits._asdict()
    row = _insert_row(connection, values, parts)
    if row is None:
        _rename_file(connection, values)
        stored = _stored_shards(connection, parts)
        _keep_objects(connection, values, stored)
        return {part.object for part in parts}, stored
    if row["is_whole"]:
        return set(), []
    stored = _insert_shards(connection, parts) if parts else []
    if parts:
        _INSERT_PARTS.count_all(
            connection,
            [
                {"file": row["number"], "position": position, "shard": part.hash}
                for position, part in enumerate(parts)
            ],
        )
    _keep_objects(connection, values, stored)
    inserted = {part.hash: part.object for part in parts}
    for shard in stored:
        del inserted[shard.hash]
    return {part.object for part in parts}.difference(inserted.values()), stored


def _end_reservation(
    connection: sa.Connection, limits: Limits, upload: str, bucket: str
) -> Row | None:
    """Lock the room of a bucket, and return the row of an upload that ends; None if it has."""
    values = {"upload": upload, "bucket": bucket}
    if not has_one_writer(connection):
        row = _LOCK_AND_RELEASE.first(connection, values)
        if row is not None:
            lock_limits(connection, limits, row)
            return row
    return _RELEASE.first(connection, values)


def _insert_row(
    connection: sa.Connection, values: dict[str, Any], parts: Sequence[Shard]
) -> Row | None:
    """Insert the row of a file, and count it; None if the file is there, or can't be.

    If *is_whole* in the row that this returns, its shards are inserted as well.
    """
    if len(parts) == 1 and not has_one_writer(connection):
        return _INSERT_WHOLE.first(connection, values | {"object": parts[0].object})
    row = _INSERT_FILE.first(connection, values)
    if row is None:
        return None
    add_used(connection, values["bucket"], 1, values["size"], values["now"])
    return {"number": row["number"], "is_whole": not parts}


def replace_object(connection: sa.Connection, stored: Shard, new: str) -> bool:
    """Use a *new* object for a shard that still has the *stored* one; return whether it had."""
    this = shards.c.hash == stored.hash, shards.c.object == stored.object
    replaced = sa.update(shards).where(*this).values(object=new)
    return bool(connection.execute(replaced).rowcount == 1)


def _keep_objects(
    connection: sa.Connection, values: dict[str, Any], stored: Sequence[Shard]
) -> None:
    """Let the objects of an upload be those of an upload under way, if shards are *stored*."""
    if stored:
        row = {"id": values["upload"], "bucket": _STORED, "size": 0, "started": values["now"]}
        connection.execute(sa.insert(uploads).values(**row))


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


def _insert_shards(connection: sa.Connection, parts: Sequence[Shard]) -> list[Shard]:
    """Insert the shards of a new file, and return those that are stored already.

    Those are locked, so that no removal deletes them before the file refers to them.
    """
    missing = {part.hash: part for part in parts}
    stored: list[Shard] = []
    while missing:
        rows = [missing[shard_hash]._asdict() for shard_hash in sorted(missing)]
        if _INSERT_SHARDS.count_all(connection, rows) == len(rows):
            break
        found = _stored_shards(connection, [*missing.values()], lock=True)
        stored += (shard for shard in found if shard.object != missing[shard.hash].object)
        # A removal may have deleted one after the statement that did not insert it.
        for shard in found:
            del missing[shard.hash]
    return stored


def _stored_shards(
    connection: sa.Connection, parts: Sequence[Shard], *, lock: bool = False
) -> list[Shard]:
    found: list[Shard] = []
    for batch in batches(sorted({part.hash for part in parts})):
        statement = sa.select(*shards.c["hash", "object", "size"])
        statement = statement.where(shards.c.hash.in_(batch)).order_by(shards.c.hash)
        if lock:
            statement = statement.with_for_update(read=True, key_share=True)
        found += (Shard(*row) for row in connection.execute(statement).all())
    return found

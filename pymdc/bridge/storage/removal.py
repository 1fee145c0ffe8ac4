"""The removal of files, and of buckets in pieces that let other requests in between."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import (
    BATCH,
    batches,
    buckets,
    file_shards,
    files,
    invitations,
    nonce_floors,
    old_nonces,
    public_keys,
    shards,
    used_nonces,
    users,
)
from pymdc.bridge.storage.usage import add_used


def remove_files(
    connection: sa.Connection, bucket: str, hashes: Sequence[str], now: int | None
) -> list[str]:
    """Delete the rows of at most `BATCH` files; return the objects that no file needs now.

    *now* is None if the bucket itself is being removed.
    """
    these = sa.and_(files.c.bucket == bucket, files.c.hash.in_(hashes))
    joined = file_shards.join(files)
    parts = sa.select(file_shards.c.shard).select_from(joined).where(these).distinct()
    unneeded = connection.execute(parts).scalars().all()
    deleted = sa.delete(files).where(these).returning(files.c.size)
    add_used(connection, bucket, -sum(connection.execute(deleted).scalars()), now)
    needed = sa.exists().where(file_shards.c.shard == shards.c.hash)
    delete = sa.delete(shards).where(~needed).returning(shards.c.object)
    objects: list[str] = []
    for batch in batches(unneeded):
        objects += connection.execute(delete.where(shards.c.hash.in_(batch))).scalars()
    return objects


def finish_removal(database: Database, objects: ObjectStore, bucket: str) -> None:
    """Delete the files of a bucket that is marked as removed, and then the bucket."""
    this = buckets.c.id == bucket
    some = sa.select(files.c.hash).where(files.c.bucket == bucket).limit(BATCH)
    hashes: Sequence[str] = [""]
    while hashes:
        # Not durable: what a power cut brings back is still marked, and is removed at the start.
        with database.write(durable=False) as connection:
            hashes = connection.execute(some).scalars().all()
            unneeded = remove_files(connection, bucket, hashes, None) if hashes else []
        objects.delete(unneeded)
    objects.sync()
    with database.write(durable=False) as connection:
        connection.execute(sa.delete(buckets).where(this))


def finish_removals(database: Database, objects: ObjectStore) -> None:
    """Finish the removals that were broken off when the bridge was killed."""
    removed = sa.select(buckets.c.id).where(buckets.c.removed.is_not(None))
    with database.read() as connection:
        pending = connection.execute(removed).scalars().all()
    for bucket in pending:
        finish_removal(database, objects, bucket)


def remove_user(database: Database, objects: ObjectStore, email: str, now: int) -> bool:
    """Remove a user with all keys, buckets and files; return False if there is no such user.

    The user is disabled first. If the removal is broken off, the next bridge finishes that of the
    buckets, and the user stays disabled.
    """
    mine, owned = users.c.email == email, buckets.c.user == email
    while True:
        with database.write() as connection:
            if not connection.execute(sa.update(users).where(mine).values(disabled=True)).rowcount:
                return False
            connection.execute(sa.update(buckets).where(owned).values(removed=now))
        finish_removals(database, objects)
        with database.write() as connection:
            # A request that was accepted before may have added a bucket.
            if not connection.execute(sa.select(sa.exists().where(owned))).scalar():
                _delete_user(connection, email)
                return True


def _delete_user(connection: sa.Connection, email: str) -> None:
    # The nonces of the user's keys are kept: a recorded request must not work if the user returns.
    for nonces in (used_nonces, old_nonces, nonce_floors):
        connection.execute(sa.delete(nonces).where(nonces.c.owner == email))
    used = sa.update(invitations).where(invitations.c.email == email)
    connection.execute(used.values(email=""))
    connection.execute(sa.delete(public_keys).where(public_keys.c.user == email))
    connection.execute(sa.delete(users).where(users.c.email == email))


def file_parts(connection: sa.Connection, bucket: str, file_hash: str) -> Sequence[sa.RowMapping]:
    """Return the hash and the size of each shard of a file, in order."""
    joined = file_shards.join(files).join(shards)
    statement = sa.select(shards.c.hash, shards.c.size).select_from(joined)
    statement = statement.where(files.c.bucket == bucket, files.c.hash == file_hash)
    return connection.execute(statement.order_by(file_shards.c.position)).mappings().all()

"""The removal of files; that of buckets and accounts is done in pieces, between other requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import sqlalchemy as sa

from pymdc.bridge.settings import BATCH, REMOVED_AT_ONCE
from pymdc.bridge.storage.accounts import forget_account
from pymdc.bridge.storage.database import Database, has_one_writer
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import (
    batches,
    buckets,
    file_shards,
    files,
    lock_bucket,
    lock_user,
    shards,
    transfers,
    users,
)
from pymdc.bridge.storage.usage import add_used


def remove_files(
    connection: sa.Connection, bucket: str, numbers: Sequence[int], now: int | None
) -> list[str]:
    """Delete the rows of at most `BATCH` files of a bucket; return the objects of no use now.

    *now* is None if the bucket itself is being removed. The caller has locked the bucket.
    """
    parts = sa.select(file_shards.c.shard).where(file_shards.c.file.in_(numbers)).distinct()
    unneeded = sorted(connection.execute(parts).scalars())
    deleted = sa.delete(files).where(files.c.number.in_(numbers)).returning(files.c.size)
    sizes = connection.execute(deleted).scalars().all()
    add_used(connection, bucket, -len(sizes), -sum(sizes), now)
    return _remove_shards(connection, unneeded)


def _remove_shards(connection: sa.Connection, hashes: Sequence[str]) -> list[str]:
    """Delete those of some shards, in order, that no file needs; return their objects."""
    needed = sa.exists().where(file_shards.c.shard == shards.c.hash)
    delete = sa.delete(shards).where(~needed).returning(shards.c.object)
    objects: list[str] = []
    for batch in batches(hashes):
        these = shards.c.hash.in_(batch)
        if not has_one_writer(connection):
            # Else an upload could begin to need one while it is being deleted. Only the next
            # statement sees what was committed until the locks were there.
            lock = sa.select(shards.c.hash).where(these).order_by(shards.c.hash).with_for_update()
            connection.execute(lock)
        objects += connection.execute(delete.where(these)).scalars()
    return objects


def remove_piece(database: Database, objects: ObjectStore, bucket: str) -> bool:
    """Delete some files of a bucket that is marked as removed, or at last the bucket itself.

    Return whether that was all.
    """
    this = buckets.c.id == bucket
    some = sa.select(files.c.number).where(files.c.bucket == bucket).order_by(files.c.number)
    # What a power cut brings back is still marked, and is removed again. But a bridge outlasts the
    # end of a server: it would delete objects that an upload has found in rows that came back.
    with database.write(durable=not has_one_writer(database.engine)) as connection:
        lock_bucket(connection, bucket)
        # The others wait for SQLite's one writer; a server has more.
        size = REMOVED_AT_ONCE if has_one_writer(connection) else BATCH
        numbers = connection.execute(some.limit(size)).scalars().all()
        unneeded = remove_files(connection, bucket, numbers, None) if numbers else []
    objects.delete(unneeded)
    if numbers:
        return False
    objects.sync()
    with database.write(durable=False) as connection:
        connection.execute(sa.delete(transfers).where(transfers.c.bucket == bucket))
        connection.execute(sa.delete(buckets).where(this))
    return True


def remove_account_piece(database: Database, objects: ObjectStore, email: str) -> bool:
    """Delete a piece of a bucket of an account that is marked as removed, or at last the account.

    Return whether that was all. An account that is not marked is left alone.
    """
    owned = sa.select(buckets.c.id).where(buckets.c.user == email).limit(1).scalar_subquery()
    marked = sa.select(owned).where(users.c.email == email, users.c.removed.is_not(None))
    with database.write(durable=False) as connection:
        lock_user(connection, email)
        row = connection.execute(marked).first()
        if row is None:
            return True  # somebody else was faster, and the address may be registered again
        [bucket] = row
        if bucket is None:
            forget_account(connection, email)
            return True
        # A request that was under way may have created it after the account was marked.
        this = sa.update(buckets).where(buckets.c.id == bucket, buckets.c.removed.is_(None))
        connection.execute(this.values(removed=0))
    remove_piece(database, objects, bucket)
    return False


def finish_account_removal(database: Database, objects: ObjectStore, email: str) -> None:
    """Delete all pieces of an account that is marked as removed."""
    while not remove_account_piece(database, objects, email):
        pass


def removals_to_finish(database: Database, objects: ObjectStore) -> Iterator[Callable[[], bool]]:
    """Yield a function for each bucket or account that is marked as removed.

    It deletes a piece, and returns whether that was the last one.
    """
    with database.read() as connection:
        marked = sa.select(buckets.c.id).where(buckets.c.removed.is_not(None))
        removed_buckets = connection.execute(marked).scalars().all()
        marked = sa.select(users.c.email).where(users.c.removed.is_not(None))
        removed_users = connection.execute(marked).scalars().all()
    for bucket in removed_buckets:
        yield partial(remove_piece, database, objects, bucket)
    for email in removed_users:
        yield partial(remove_account_piece, database, objects, email)

"""The removal of files; that of buckets and accounts is done in pieces, between other requests."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from pymdc.bridge.storage.accounts import forget_account
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import BATCH, batches, buckets, file_shards, files, shards, users
from pymdc.bridge.storage.usage import add_used


def remove_files(connection: sa.Connection, bucket: str, hashes: Sequence[str]) -> list[str]:
    """Delete the rows of at most `BATCH` files; return the objects that no file needs now."""
    these = sa.and_(files.c.bucket == bucket, files.c.hash.in_(hashes))
    joined = file_shards.join(files)
    parts = sa.select(file_shards.c.shard).select_from(joined).where(these).distinct()
    unneeded = connection.execute(parts).scalars().all()
    size = connection.execute(sa.select(sa.func.sum(files.c.size)).where(these)).scalar() or 0
    connection.execute(sa.delete(files).where(these))
    add_used(connection, bucket, -size)
    needed = sa.exists().where(file_shards.c.shard == shards.c.hash)
    delete = sa.delete(shards).where(~needed).returning(shards.c.object)
    objects: list[str] = []
    for batch in batches(unneeded):
        objects += connection.execute(delete.where(shards.c.hash.in_(batch))).scalars()
    return objects


def finish_removal(database: Database, objects: ObjectStore, bucket: str) -> None:
    """Delete the files of a bucket that is marked as removed, and then the bucket."""
    some = sa.select(files.c.hash).where(files.c.bucket == bucket).limit(BATCH)
    while True:
        with database.write(durable=False) as connection:
            hashes = connection.execute(some).scalars().all()
            unneeded = remove_files(connection, bucket, hashes) if hashes else []
            if not hashes:
                connection.execute(sa.delete(buckets).where(buckets.c.id == bucket))
        objects.delete(unneeded)
        if not hashes:
            return


def finish_account_removal(database: Database, objects: ObjectStore, email: str) -> None:
    """Delete the buckets of an account that is marked as removed, and then the account."""
    owned = sa.select(buckets.c.id).where(buckets.c.user == email).limit(1)
    while True:
        with database.write() as connection:
            bucket = connection.execute(owned).scalar()
            if bucket is None:
                forget_account(connection, email)
                return
            # A request that was under way may have created it after the account was marked.
            this = sa.update(buckets).where(buckets.c.id == bucket, buckets.c.removed.is_(None))
            connection.execute(this.values(removed=0))
        finish_removal(database, objects, bucket)


def finish_removals(database: Database, objects: ObjectStore) -> None:
    """Finish the removals that were broken off when the bridge was killed."""
    with database.read() as connection:
        marked = sa.select(buckets.c.id).where(buckets.c.removed.is_not(None))
        removed_buckets = connection.execute(marked).scalars().all()
        marked = sa.select(users.c.email).where(users.c.removed.is_not(None))
        removed_users = connection.execute(marked).scalars().all()
    for bucket in removed_buckets:
        finish_removal(database, objects, bucket)
    for email in removed_users:
        finish_account_removal(database, objects, email)


def file_parts(connection: sa.Connection, bucket: str, file_hash: str) -> Sequence[sa.RowMapping]:
    """Return the hash and the size of each shard of a file, in order."""
    joined = file_shards.join(files).join(shards)
    statement = sa.select(shards.c.hash, shards.c.size).select_from(joined)
    statement = statement.where(files.c.bucket == bucket, files.c.hash == file_hash)
    return connection.execute(statement.order_by(file_shards.c.position)).mappings().all()

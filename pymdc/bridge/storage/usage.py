"""How many bytes buckets hold and have sent, and what they may."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from pymdc.bridge.errors import Refused
from pymdc.bridge.storage.database import INSERTS
from pymdc.bridge.storage.tables import (
    buckets,
    delete_expired,
    files,
    pointers,
    transfers,
    uploads,
    users,
)

_GB = 10**9
_USED = sa.func.coalesce(sa.func.sum(buckets.c.used), 0)
_RESERVED = sa.func.coalesce(sa.func.sum(uploads.c.size), 0)
_OF_BUCKET = buckets.c.id == sa.bindparam("bucket")
_OF_USER = buckets.c.user == sa.bindparam("user")


class Limits(NamedTuple):
    """How many GB may be stored; None is without limit. A user may have a limit of his own."""

    everybody: float | None = None
    each_user: float | None = None


def stored_bytes(connection: sa.Connection) -> int:
    """Return how many bytes the files in all buckets have."""
    return int(connection.execute(sa.select(_USED)).scalar_one())


def check_storage(
    connection: sa.Connection, limits: Limits, bucket: sa.RowMapping, size: int
) -> None:
    """Refuse with 413 if *size* more bytes are too many for the bucket, its user or the bridge."""
    values = {"bucket": bucket["id"], "user": bucket["user"]}
    _check(connection, _OF_BUCKET, values, bucket["storage"], size, "The bucket")
    own = sa.select(users.c.storage).where(users.c.email == bucket["user"])
    limit = connection.execute(own).scalar()
    _check(connection, _OF_USER, values, limit or limits.each_user, size, "The account")
    _check(connection, sa.true(), values, limits.everybody, size, "The bridge")


def reserve(connection: sa.Connection, upload: str, bucket: str, size: int, now: int) -> None:
    """Count *size* bytes as used until the *upload* ends."""
    row = {"id": upload, "bucket": bucket, "size": size, "started": now}
    connection.execute(sa.insert(uploads).values(**row))


def release(connection: sa.Connection, upload: str) -> None:
    """End what `reserve` did."""
    connection.execute(sa.delete(uploads).where(uploads.c.id == upload))


def add_used(connection: sa.Connection, bucket: str, size: int) -> None:
    """Count *size* bytes more, or less if negative, in *bucket*."""
    statement = sa.update(buckets).where(buckets.c.id == bucket)
    connection.execute(statement.values(used=buckets.c.used + size))


def has_file_of_size(connection: sa.Connection, bucket: str, size: int) -> bool:
    """Say whether *bucket* has a file of *size* bytes, whose upload again would take no room."""
    this = sa.exists().where(files.c.bucket == bucket, files.c.size == size)
    return bool(connection.execute(sa.select(this)).scalar())


def spend_transfer(connection: sa.Connection, bucket: sa.RowMapping, month: str, size: int) -> None:
    """Count *size* bytes as pulled in *month*; refuse with 403 if the bucket may not send them."""
    row = INSERTS[connection.dialect.name](transfers).values(
        bucket=bucket["id"], month=month, size=size
    )
    added = row.on_conflict_do_update(
        index_elements=["bucket", "month"], set_={"size": transfers.c.size + row.excluded.size}
    ).returning(transfers.c.size)
    total, limit = connection.execute(added).scalar_one(), bucket["transfer"]
    if limit is not None and total > limit * _GB:
        raise Refused(
            403,
            f"The bucket may not send {size} bytes more in {month} (UTC):"
            f" {total - size} of {round(limit * _GB)} are sent",
        )


def give_back_transfer(connection: sa.Connection, now: int) -> None:
    """Delete the pointers that have expired, and count what they did not send no longer."""
    unsent: dict[tuple[str, str], int] = {}
    for pointer in delete_expired(connection, pointers, now):
        spent = pointer["bucket"], pointer["month"]
        unsent[spent] = unsent.get(spent, 0) + pointer["size"]
    for (bucket, month), size in unsent.items():
        this = sa.update(transfers).where(transfers.c.bucket == bucket, transfers.c.month == month)
        connection.execute(this.values(size=transfers.c.size - size))


def _check(
    connection: sa.Connection,
    which: sa.ColumnElement[bool],
    values: dict[str, str],
    limit: float | None,
    size: int,
    whose: str,
) -> None:
    if limit is None:
        return
    stored = sa.select(_USED).where(which).scalar_subquery()
    coming = sa.select(_RESERVED).where(uploads.c.bucket == buckets.c.id, which).scalar_subquery()
    used = connection.execute(sa.select(stored + coming), values).scalar_one()
    if used + size > limit * _GB:
        raise Refused(
            413,
            f"{whose} has no room for {size} bytes more: {used} of {round(limit * _GB)} are used",
        )

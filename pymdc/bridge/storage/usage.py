"""How many bytes buckets hold and have sent, and what they may."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from pymdc.bridge.errors import Refused
from pymdc.bridge.storage.database import INSERTS
from pymdc.bridge.storage.tables import (
    buckets,
    check_bucket,
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
_OTHERS = uploads.c.id != sa.bindparam("upload")
_OF_USER = buckets.c.user == sa.bindparam("user")
# A bucket, its user's own limit, and what the other uploads to the bucket have reserved.
_HOLDER = (
    sa.select(
        buckets,
        users.c.storage.label("own_limit"),
        users.c.disabled,
        sa.select(_RESERVED)
        .where(uploads.c.bucket == buckets.c.id, _OTHERS)
        .correlate(buckets)
        .scalar_subquery()
        .label("reserved"),
    )
    .join(users)
    .where(buckets.c.id == sa.bindparam("bucket"), buckets.c.removed.is_(None))
)


def _taken(which: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return a query for the bytes in *which* buckets, with those that uploads have reserved."""
    reserved = sa.select(_RESERVED).where(uploads.c.bucket == buckets.c.id, which, _OTHERS)
    return sa.select(sa.select(_USED).where(which).scalar_subquery() + reserved.scalar_subquery())


_TAKEN_BY_USER, _TAKEN_BY_ALL = _taken(_OF_USER), _taken(sa.true())
_RESERVE = sa.insert(uploads)
_RELEASE = sa.delete(uploads).where(uploads.c.id == sa.bindparam("upload"))
_ADD_USED = (
    sa.update(buckets)
    .where(buckets.c.id == sa.bindparam("bucket"))
    .values(
        used=buckets.c.used + sa.bindparam("size"),
        changed=sa.func.coalesce(sa.bindparam("now"), buckets.c.changed),
    )
)


class Limits(NamedTuple):
    """How many GB may be stored; None is without limit. A user may have a limit of his own."""

    everybody: float | None = None
    each_user: float | None = None


def find_holder(connection: sa.Connection, bucket: str, upload: str) -> sa.RowMapping:
    """Return a bucket, with what `check_storage` needs for *upload*; refuse as `find_bucket`."""
    row = connection.execute(_HOLDER, {"bucket": bucket, "upload": upload}).mappings().first()
    return check_bucket(row)


def check_storage(
    connection: sa.Connection, limits: Limits, holder: sa.RowMapping, upload: str, size: int
) -> None:
    """Refuse with 413 if *size* bytes are too many for the bucket, its user or the bridge."""
    _check("The bucket", holder["used"] + holder["reserved"], holder["storage"], size)
    own, values = holder["own_limit"], {"user": holder["user"], "upload": upload}
    for whose, limit, taken in (
        ("The account", limits.each_user if own is None else own, _TAKEN_BY_USER),
        ("The bridge", limits.everybody, _TAKEN_BY_ALL),
    ):
        if limit is not None:
            _check(whose, connection.execute(taken, values).scalar_one(), limit, size)


def reserve(connection: sa.Connection, upload: str, bucket: str, size: int, now: int) -> None:
    """Count *size* bytes as used until the *upload* ends."""
    connection.execute(_RESERVE, {"id": upload, "bucket": bucket, "size": size, "started": now})


def release(connection: sa.Connection, upload: str) -> None:
    """End what `reserve` did."""
    connection.execute(_RELEASE, {"upload": upload})


def add_used(connection: sa.Connection, bucket: str, size: int, now: int | None) -> None:
    """Count *size* bytes more, or less if negative, in *bucket*."""
    connection.execute(_ADD_USED, {"bucket": bucket, "size": size, "now": now})


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


def _check(whose: str, used: int, limit: float | None, size: int) -> None:
    if limit is not None and used + size > limit * _GB:
        raise Refused(
            413,
            f"{whose} has no room for {size} bytes more: {used} of {round(limit * _GB)} are used",
        )

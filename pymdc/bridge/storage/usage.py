"""How many bytes buckets hold and have sent, and what they may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pymdc.bridge.errors import Refused
from pymdc.bridge.storage.database import has_one_writer, lock_name
from pymdc.bridge.storage.prepared import Prepared, Row
from pymdc.bridge.storage.tables import (
    buckets,
    delete_expired,
    pointers,
    total,
    transfers,
    uploads,
    users,
)

_GB = 10**9
_BUCKET = sa.bindparam("bucket", type_=sa.String)
_UPLOAD = sa.bindparam("upload", type_=sa.String)
_SIZE = sa.bindparam("size", type_=sa.BigInteger)
_FILES = sa.bindparam("files", type_=sa.BigInteger)
_NOW = sa.bindparam("now", type_=sa.BigInteger)


class Limits(NamedTuple):
    """How many GB may be stored; None is without limit. A user may have a limit of his own."""

    everybody: float | None = None
    each_user: float | None = None


def stored_bytes(connection: sa.Connection) -> int:
    """Return how many bytes the files in all buckets have."""
    return int(connection.execute(sa.select(total(buckets.c.used))).scalar_one())


def _taken(other: Any, which: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """Return the bytes in *which* buckets, with those that other uploads have reserved."""
    used = sa.select(total(other.c.used)).where(which)
    reserved = sa.select(total(uploads.c.size)).where(
        uploads.c.bucket == other.c.id, uploads.c.id != _UPLOAD, which
    )
    return used.scalar_subquery() + reserved.scalar_subquery()


def _limits() -> dict[str, tuple[sa.ColumnElement[Any], sa.ColumnElement[int]]]:
    """Return, by whose it is, each limit in GB and the bytes that are taken of it."""
    other = buckets.alias()
    # PostgreSQL has to be told the type of a value that may be NULL.
    each_user, of_all = (
        sa.cast(sa.bindparam(name), sa.Float) for name in ("each_user", "everybody")
    )
    of_user = sa.func.coalesce(users.c.storage, each_user)
    return {
        "The bucket": (buckets.c.storage, _taken(other, other.c.id == buckets.c.id)),
        "The account": (of_user, _taken(other, other.c.user == buckets.c.user)),
        "The bridge": (of_all, _taken(other, sa.true())),
    }


_LIMITS = _limits()
_FITS = sa.and_(
    *(
        # In this order: what is taken need not be added up where there is no limit.
        sa.or_(limit.is_(None), taken + _SIZE <= limit * _GB)
        for limit, taken in _LIMITS.values()
    )
)
_THERE = sa.and_(buckets.c.id == _BUCKET, buckets.c.removed.is_(None))
LOCK_BUCKET = (
    sa.select(buckets.c.user, users.c.storage)
    .join(users)
    .where(buckets.c.id == _BUCKET)
    .with_for_update(of=buckets, key_share=True)
)
_LOCK_BUCKET = Prepared(LOCK_BUCKET)
_EXPLANATION = (
    sa.select(*(column for pair in _LIMITS.values() for column in pair)).join(users).where(_THERE)
)


def _add_used(number: Any) -> sa.Update:
    return (
        sa.update(buckets)
        .where(buckets.c.id == _BUCKET)
        .values(
            used=buckets.c.used + _SIZE,
            files=buckets.c.files + number,
            changed=sa.func.coalesce(_NOW, buckets.c.changed),
        )
    )


ADD_ONE = _add_used(1)
_ADD_USED = Prepared(_add_used(_FILES))


_MONTH = sa.bindparam("month", type_=sa.String)
_TRANSFER = insert(transfers).values(bucket=_BUCKET, month=_MONTH, size=_SIZE)
_SPEND = Prepared(
    _TRANSFER.on_conflict_do_update(
        index_elements=["bucket", "month"],
        set_={"size": transfers.c.size + _TRANSFER.excluded.size},
    ).returning(transfers.c.size)
)
_ADD_TRANSFER = Prepared(
    sa.update(transfers)
    .where(transfers.c.bucket == _BUCKET, transfers.c.month == _MONTH)
    .values(size=transfers.c.size + _SIZE)
)


def where_it_fits(*columns: Any) -> sa.Select[Any]:
    """Return a query for *columns* of a bucket that may be used and has room for an upload.

    It has the parameters *bucket*, *upload*, *size*, *everybody* and *each_user*.
    """
    return (
        sa.select(*columns).select_from(buckets.join(users)).where(_THERE, ~users.c.disabled, _FITS)
    )


def lock_room(connection: sa.Connection, limits: Limits, bucket: str) -> None:
    """Lock what an upload to *bucket* counts for, so that two can't have the same room.

    Locks are taken in this order everywhere: the bucket, what has a limit, files, shards by hash.
    """
    if has_one_writer(connection):
        return
    lock_limits(connection, limits, _LOCK_BUCKET.first(connection, {"bucket": bucket}))


def lock_limits(connection: sa.Connection, limits: Limits, row: Row | None) -> None:
    """Lock what has a limit besides the bucket, given the *row* that `LOCK_BUCKET` returned."""
    if row is not None and (limits.each_user is not None or row["storage"] is not None):
        lock_name(connection, f"room of {row['user']}")
    if limits.everybody is not None:
        lock_name(connection, "room of all")


def no_room(connection: sa.Connection, values: dict[str, Any]) -> Refused:
    """Return the refusal of an upload that does not fit, given the parameters above."""
    size, columns = values["size"], iter(connection.execute(_EXPLANATION, values).one())
    for whose, limit, used in zip(_LIMITS, columns, columns, strict=True):
        if limit is not None and used + size > limit * _GB:
            text = f"{used} of {round(limit * _GB)} are used"
            return Refused(413, f"{whose} has no room for {size} bytes more: {text}")
    # Something was removed since then.
    return Refused(413, f"There was no room for {size} bytes more")


def add_used(
    connection: sa.Connection, bucket: str, number: int, size: int, now: int | None
) -> None:
    """Count a *number* of files more in *bucket*, and their *size* in bytes; less if negative."""
    values = {"bucket": bucket, "files": number, "size": size, "now": now}
    _ADD_USED.count(connection, values)


def usage_of_user(
    connection: sa.Connection, email: str, month: str
) -> tuple[float | None, Sequence[sa.RowMapping]]:
    """Return a user's own limit in GB, and *id*, *stored*, *files* and *transferred* of buckets."""
    limit = connection.execute(sa.select(users.c.storage).where(users.c.email == email)).scalar()
    this_month = sa.and_(transfers.c.bucket == buckets.c.id, transfers.c.month == month)
    statement = (
        sa.select(
            buckets.c.id,
            buckets.c.used.label("stored"),
            buckets.c.files,
            sa.func.coalesce(transfers.c.size, 0).label("transferred"),
        )
        .outerjoin_from(buckets, transfers, this_month)
        .where(buckets.c.user == email, buckets.c.removed.is_(None))
        .order_by(buckets.c.number)
    )
    return limit, connection.execute(statement).mappings().all()


def spend_transfer(connection: sa.Connection, bucket: Row, month: str, size: int) -> None:
    """Count *size* bytes as pulled in *month*; refuse with 403 if the bucket may not send them."""
    spent = _SPEND.first(connection, {"bucket": bucket["id"], "month": month, "size": size})
    assert spent is not None
    total, limit = spent["size"], bucket["transfer"]
    if limit is not None and total > limit * _GB:
        raise Refused(
            403,
            f"The bucket may not send {size} bytes more in {month} (UTC):"
            f" {total - size} of {round(limit * _GB)} are sent",
        )


def give_back_transfer(connection: sa.Connection, now: int) -> int:
    """Delete pointers that have expired, and count what they did not send no longer.

    Return how many were deleted; as long as there are any, there may be more.
    """
    expired = delete_expired(connection, pointers, now)
    unsent: dict[tuple[str, str], int] = {}
    for pointer in expired:
        spent = pointer["bucket"], pointer["month"]
        unsent[spent] = unsent.get(spent, 0) + pointer["size"]
    for (bucket, month), size in sorted(unsent.items()):
        add_transfer(connection, bucket, month, -size)
    return len(expired)


def add_transfer(connection: sa.Connection, bucket: str, month: str, size: int) -> None:
    """Count *size* bytes more as pulled in *month*, or less if negative."""
    _ADD_TRANSFER.count(connection, {"bucket": bucket, "month": month, "size": size})

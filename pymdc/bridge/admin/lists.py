"""What users and buckets hold, as rows for lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import sqlalchemy as sa

from pymdc.bridge.admin.storage import CommandError
from pymdc.bridge.storage.tables import buckets, public_keys, total, transfers, users

_KEPT = buckets.c.removed.is_(None)


def user_rows(connection: sa.Connection, email: str | None = None) -> Sequence[sa.RowMapping]:
    """Return all users or one, with their counts of keys, buckets and files, and bytes *used*."""
    owned = sa.and_(buckets.c.user == users.c.email, _KEPT)
    keys = sa.select(sa.func.count()).where(public_keys.c.user == users.c.email)
    statement = sa.select(
        *users.c["email", "created", "disabled", "removed", "storage"],
        users.c.activation.is_(None).label("activated"),
        keys.scalar_subquery().label("keys"),
        sa.select(sa.func.count()).where(owned).scalar_subquery().label("buckets"),
        sa.select(total(buckets.c.files)).where(owned).scalar_subquery().label("files"),
        sa.select(total(buckets.c.used)).where(owned).scalar_subquery().label("used"),
    ).order_by(users.c.email)
    if email is not None:
        statement = statement.where(users.c.email == email.lower())
    return connection.execute(statement).mappings().all()


def bucket_rows(
    connection: sa.Connection, email: str | None = None, bucket: str | None = None
) -> Sequence[sa.RowMapping]:
    """Return the buckets, with their files, bytes *used*, and bytes *sent* in this month (UTC)."""
    this_month = sa.and_(transfers.c.bucket == buckets.c.id, transfers.c.month == month())
    statement = (
        sa.select(
            *buckets.c["id", "user", "name", "created", "storage", "transfer", "files", "used"],
            sa.func.coalesce(transfers.c.size, 0).label("sent"),
        )
        .outerjoin_from(buckets, transfers, this_month)
        .where(_KEPT)
        .order_by(buckets.c.user, buckets.c.number)
    )
    if email is not None:
        statement = statement.where(buckets.c.user == email.lower())
    if bucket is not None:
        statement = statement.where(buckets.c.id == bucket)
    return connection.execute(statement).mappings().all()


def month() -> str:
    """Return this month in UTC, such as ``2026-11``."""
    return datetime.now(timezone.utc).strftime("%Y-%m")


def find_user(connection: sa.Connection, email: str) -> sa.RowMapping:
    """Return the row of a user; `CommandError` if there is none."""
    for row in user_rows(connection, email):
        return row
    raise CommandError(f"there is no user {email}; users list shows all")

"""Quotas, proven keys, disabled users, new passwords, invitations, times of files."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from pymdc._crypto.secp256k1 import point

revision = "0002"
down_revision = "0001"

_FALSE = sa.false()
_KEYED: dict[str, Any] = {"sqlite_with_rowid": False}


def upgrade() -> None:
    """Add the columns and tables, and fill in what follows from the older ones."""
    _users_and_keys()
    _usage()
    for table in ("used_nonces", "tokens", "shards", "file_shards"):
        with op.batch_alter_table(table, recreate="always", table_kwargs=_KEYED):
            pass  # it is only stored in another way
    op.create_table(
        "invitations",
        sa.Column("code", sa.String, primary_key=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("email", sa.String),
    )


def _users_and_keys() -> None:
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("disabled", sa.Boolean, nullable=False, server_default=_FALSE))
        users.add_column(sa.Column("storage", sa.Float))
        users.add_column(sa.Column("mailed", sa.BigInteger))
        users.add_column(sa.Column("removed", sa.BigInteger))
    op.create_table(
        "resets",
        sa.Column("token", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.email"), nullable=False, index=True),
        sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    )
    keys = sa.table("public_keys", sa.column("number"), sa.column("key"), sa.column("point"))
    op.add_column("public_keys", sa.Column("point", sa.String))
    op.add_column(
        "public_keys", sa.Column("proven", sa.Boolean, nullable=False, server_default=_FALSE)
    )
    connection = op.get_bind()
    for number, key in connection.execute(sa.select(keys.c.number, keys.c.key)).all():
        this = sa.update(keys).where(keys.c.number == number)
        connection.execute(this.values(point=point(bytes.fromhex(key)).hex()))
    with op.batch_alter_table("public_keys") as public_keys:
        public_keys.alter_column("point", nullable=False)
    op.create_index("ix_public_keys_point", "public_keys", ["point"])


def _usage() -> None:
    op.add_column("files", sa.Column("created", sa.BigInteger))
    for columns in (["bucket"], ["bucket", "filename"], ["bucket", "size"]):
        op.create_index("_".join(("ix_files", *columns)), "files", columns)
    op.add_column("buckets", sa.Column("used", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("buckets", sa.Column("changed", sa.BigInteger))
    op.add_column("buckets", sa.Column("removed", sa.BigInteger))
    op.execute(
        "UPDATE buckets SET used ="
        " (SELECT coalesce(sum(size), 0) FROM files WHERE files.bucket = buckets.id)"
    )
    op.create_table(
        "transfers",
        sa.Column("bucket", sa.String, primary_key=True),
        sa.Column("month", sa.String, primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        **_KEYED,
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("bucket", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        **_KEYED,
    )
    op.drop_table("pointers")  # they are good for five minutes
    op.create_table(
        "pointers",
        sa.Column("token", sa.String, primary_key=True),
        sa.Column("shard", sa.String, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False, index=True),
        sa.Column("bucket", sa.String, nullable=False),
        sa.Column("month", sa.String, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        **_KEYED,
    )

"""The tables, and the queries that several modules need.

Where only one of two simultaneous requests may succeed, the row count of one statement decides.
Times are whole milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import sqlalchemy as sa

from pymdc.bridge.errors import Refused
from pymdc.bridge.settings import BATCH

metadata = sa.MetaData()
_key = partial(sa.Column, primary_key=True)
_column = partial(sa.Column, nullable=False)
_flag = partial(sa.Column, type_=sa.Boolean, nullable=False, server_default=sa.false())
_numbered = partial(sa.Column, "number", sa.Integer, primary_key=True)  # keeps the order


def _table(name: str, *columns: sa.schema.SchemaItem, **options: Any) -> sa.Table:
    return sa.Table(name, metadata, *columns, **options)


# Without row numbers a table is its own index: half as many pages are written.
_keyed_table = partial(_table, sqlite_with_rowid=False)


users = _table(
    "users",
    _key("email", sa.String),
    _column("password", sa.String),
    _column("created", sa.BigInteger),
    sa.Column("activation", sa.String, unique=True),  # NULL once it is used
    _flag("disabled"),
    sa.Column("storage", sa.Float),  # GB for all buckets together; NULL is the bridge's setting
    sa.Column("mailed", sa.BigInteger),  # when the last mail to this address was written
    sa.Column("removed", sa.BigInteger),  # when; its buckets are being removed
)
# Tokens for setting a new password; the token itself is only in the mail.
resets = _table(
    "resets",
    _key("token", sa.String),  # SHA-256 of the token
    _column("user", sa.ForeignKey("users.email"), index=True),
    _column("expires", sa.BigInteger, index=True),
)
public_keys = _table(
    "public_keys",
    _numbered(),
    _column("key", sa.String, unique=True),
    _column("user", sa.ForeignKey("users.email"), index=True),
    _column("point", sa.String, index=True),  # the same for each form of a key
    _flag("proven"),  # whether the key itself signed its registration
)
# The owner of a nonce is a user's e-mail address, or the point of a key.
used_nonces = _keyed_table(
    "used_nonces", _key("owner", sa.String), _key("nonce", sa.Float), _key("r", sa.String)
)
# Written by earlier versions, which refused a used nonce whatever was signed with it.
old_nonces = _table("nonces", _key("owner", sa.String), _key("nonce", sa.Float))
nonce_floors = _table("nonce_floors", _key("owner", sa.String), _column("floor", sa.Float))
buckets = _table(
    "buckets",
    _numbered(),
    _column("id", sa.String, unique=True),
    _column("user", sa.ForeignKey("users.email"), index=True),
    _column("created", sa.BigInteger),
    sa.Column("name", sa.String),
    sa.Column("storage", sa.Float),
    sa.Column("transfer", sa.Float),
    _column("pubkeys", sa.JSON),
    _column("used", sa.BigInteger, server_default="0"),  # bytes of its files
    _column("files", sa.BigInteger, server_default="0"),  # their number: to count them takes long
    sa.Column("changed", sa.BigInteger),  # when a file was added or removed last
    sa.Column("removed", sa.BigInteger),  # when; its files are being removed
)
# Bytes that were pulled out of a bucket in a calendar month (UTC), such as 2026-11.
transfers = _keyed_table(
    "transfers", _key("bucket", sa.String), _key("month", sa.String), _column("size", sa.BigInteger)
)
# Uploads that have begun: their bytes count as used until they end.
uploads = _keyed_table(
    "uploads",
    _key("id", sa.String),
    _column("bucket", sa.String),  # no index: there are few
    _column("size", sa.BigInteger),
    _column("started", sa.BigInteger),
)
invitations = _table(
    "invitations",
    _key("code", sa.String),
    _column("created", sa.BigInteger),
    sa.Column("email", sa.String),  # who used it
)
tokens = _keyed_table(
    "tokens",
    _key("token", sa.String),
    _column("bucket", sa.String),  # no foreign key: a token may outlive its bucket
    _column("operation", sa.String),
    _column("expires", sa.BigInteger, index=True),
)
pointers = _keyed_table(
    "pointers",
    _key("token", sa.String),
    _column("shard", sa.String),
    _column("expires", sa.BigInteger, index=True),
    # The transfer that counted when the pointer was made; it is given back if the pointer expires.
    _column("bucket", sa.String),
    _column("month", sa.String),
    _column("size", sa.BigInteger),
)
files = _table(
    "files",
    _numbered(),
    _column("bucket", sa.ForeignKey("buckets.id", ondelete="CASCADE")),
    _column("hash", sa.String),
    _column("filename", sa.String),
    _column("mimetype", sa.String),
    _column("size", sa.BigInteger),
    sa.Column("created", sa.BigInteger),  # NULL if an earlier version stored it
    sa.UniqueConstraint("bucket", "hash"),
    # A bucket may have very many files: none of these queries may read them all.
    sa.Index("ix_files_bucket", "bucket"),  # in the order of their numbers
    sa.Index("ix_files_bucket_filename", "bucket", "filename"),
    sa.Index("ix_files_bucket_size", "bucket", "size"),
)
shards = _keyed_table(
    "shards",
    _key("hash", sa.String),
    _column("object", sa.String, index=True),
    _column("size", sa.BigInteger),
)
file_shards = _keyed_table(
    "file_shards",
    _key("file", sa.ForeignKey("files.number", ondelete="CASCADE")),
    _key("position", sa.Integer),
    _column("shard", sa.ForeignKey("shards.hash"), index=True),
)


class Shard(NamedTuple):
    """A row of `shards`: its hash, the name of its object, and its size in bytes."""

    hash: str
    object: str
    size: int


# Statements that many requests need are built once: building one costs as much as running it.
_BUCKET = (
    sa.select(buckets, users.c.disabled)
    .join(users)
    .where(buckets.c.id == sa.bindparam("id"), buckets.c.removed.is_(None))
)
_REDEEM = {
    table: sa.delete(table).where(table.c.token == sa.bindparam("its")).returning(table)
    for table in (tokens, pointers, resets)
}
_FIND = {tokens: sa.select(tokens).where(tokens.c.token == sa.bindparam("its"))}
_USERS_BUCKET = sa.select(buckets).where(
    buckets.c.id == sa.bindparam("id"),
    buckets.c.removed.is_(None),
    buckets.c.user == sa.bindparam("user"),
)


def find_bucket(connection: sa.Connection, bucket: str, user: str = "") -> sa.RowMapping:
    """Return a bucket, of *user* if given; refuse with 404 if there is none.

    Refuses whoever is not its user with 403 if that user is disabled.
    """
    statement, values = _USERS_BUCKET if user else _BUCKET, {"id": bucket, "user": user}
    row = connection.execute(statement, values).mappings().first()
    if row is None:
        raise Refused(404, "Bucket not found")
    if not user and row["disabled"]:
        raise disabled()
    return row


def disabled() -> Refused:
    """Return the refusal of everything that a disabled user owns or asks for."""
    return Refused(403, "User account is disabled")


def objects_in_use(connection: sa.Connection, objects: Sequence[str]) -> set[str]:
    """Return those of *objects* that a shard refers to."""
    found: set[str] = set()
    for batch in batches(objects):
        statement = sa.select(shards.c.object).where(shards.c.object.in_(batch))
        found.update(connection.execute(statement).scalars())
    return found


def batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield *values* in pieces that a statement can take as parameters."""
    for start in range(0, len(values), BATCH):
        yield values[start : start + BATCH]


def delete_expired(connection: sa.Connection, table: sa.Table, now: int) -> Sequence[sa.RowMapping]:
    """Delete tokens that expired before *now*, and return their rows.

    There are few at a time, so that this does not take long; each call may add half as many.
    """
    some = sa.select(table.c.token).where(table.c.expires <= now).limit(2 * BATCH)
    statement = sa.delete(table).where(table.c.token.in_(some)).returning(table)
    return connection.execute(statement).mappings().all()


def find_token(
    connection: sa.Connection, table: sa.Table, token: str, now: int
) -> sa.RowMapping | None:
    """Return the row of *token*; None as `redeem_token` does."""
    row = connection.execute(_FIND[table], {"its": token}).mappings().first()
    return row if row is not None and row["expires"] > now else None


def redeem_token(
    connection: sa.Connection, table: sa.Table, token: str, now: int
) -> sa.RowMapping | None:
    """Delete *token* and return its row; None if there is no such token, or if it has expired."""
    row = connection.execute(_REDEEM[table], {"its": token}).mappings().first()
    return row if row is not None and row["expires"] > now else None

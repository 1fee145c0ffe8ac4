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
from pymdc.bridge.storage.database import has_one_writer
from pymdc.bridge.storage.prepared import Prepared, Row

metadata = sa.MetaData()
# PostgreSQL compares bytes then: keys are in the same order everywhere, and it takes less time.
_Text = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_key = partial(sa.Column, primary_key=True)
_column = partial(sa.Column, nullable=False)
_flag = partial(sa.Column, type_=sa.Boolean, nullable=False, server_default=sa.false())
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite counts on in such a key alone
_numbered = partial(sa.Column, "number", _Number, primary_key=True)  # keeps the order


def _table(name: str, *columns: sa.schema.SchemaItem, **options: Any) -> sa.Table:
    return sa.Table(name, metadata, *columns, **options)


# Without row numbers a table is its own index: half as many pages are written.
_keyed_table = partial(_table, sqlite_with_rowid=False)


def _ordered_indexes(table: str, *columns: str) -> Iterator[sa.Index]:
    """Yield an index that keeps rows in the order of their numbers, for each kind of database."""
    name = "_".join(("ix", table, *columns))
    yield sa.Index(name, *columns).ddl_if(dialect="sqlite")  # each of its indexes does
    yield sa.Index(f"{name}_number", *columns, "number").ddl_if(dialect="postgresql")


users = _table(
    "users",
    _key("email", _Text),
    _column("password", _Text),
    _column("created", sa.BigInteger),
    sa.Column("activation", _Text, unique=True),  # NULL once it is used
    _flag("disabled"),
    sa.Column("storage", sa.Float),  # GB for all buckets together; NULL is the bridge's setting
    sa.Column("mailed", sa.BigInteger),  # when the last mail to this address was written
    sa.Column("removed", sa.BigInteger),  # when; its buckets are being removed
)
# Tokens for setting a new password; the token itself is only in the mail.
resets = _table(
    "resets",
    _key("token", _Text),  # SHA-256 of the token
    _column("user", sa.ForeignKey("users.email"), index=True),
    _column("expires", sa.BigInteger, index=True),
)
public_keys = _table(
    "public_keys",
    _numbered(),
    _column("key", _Text, unique=True),
    _column("user", sa.ForeignKey("users.email"), index=True),
    _column("point", _Text, index=True),  # the same for each form of a key
    _flag("proven"),  # whether the key itself signed its registration
)
# The owner of a nonce is a user's e-mail address, or the point of a key.
used_nonces = _keyed_table(
    "used_nonces", _key("owner", _Text), _key("nonce", sa.Float), _key("r", _Text)
)
# Written by earlier versions, which refused a used nonce whatever was signed with it.
old_nonces = _table("nonces", _key("owner", _Text), _key("nonce", sa.Float))
nonce_floors = _table("nonce_floors", _key("owner", _Text), _column("floor", sa.Float))
buckets = _table(
    "buckets",
    _numbered(),
    _column("id", _Text, unique=True),
    _column("user", sa.ForeignKey("users.email"), index=True),
    _column("created", sa.BigInteger),
    sa.Column("name", _Text),
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
    "transfers", _key("bucket", _Text), _key("month", _Text), _column("size", sa.BigInteger)
)
# Uploads that have begun: their bytes count as used until they end.
uploads = _keyed_table(
    "uploads",
    _key("id", _Text),
    # No index: there are few. Empty if it has become a file, and its objects are still needed.
    _column("bucket", _Text),
    _column("size", sa.BigInteger),
    _column("started", sa.BigInteger),
)
invitations = _table(
    "invitations",
    _key("code", _Text),
    _column("created", sa.BigInteger),
    sa.Column("email", _Text),  # who used it
)
tokens = _keyed_table(
    "tokens",
    _key("token", _Text),
    _column("bucket", _Text),  # no foreign key: a token may outlive its bucket
    _column("operation", _Text),
    _column("expires", sa.BigInteger, index=True),
)
pointers = _keyed_table(
    "pointers",
    _key("token", _Text),
    _column("shard", _Text),
    _column("expires", sa.BigInteger, index=True),
    # The transfer that counted when the pointer was made; it is given back if the pointer expires.
    _column("bucket", _Text),
    _column("month", _Text),
    _column("size", sa.BigInteger),
)
files = _table(
    "files",
    _numbered(),
    _column("bucket", sa.ForeignKey("buckets.id", ondelete="CASCADE")),
    _column("hash", _Text),
    _column("filename", _Text),
    _column("mimetype", _Text),
    _column("size", sa.BigInteger),
    sa.Column("created", sa.BigInteger),  # NULL if an earlier version stored it
    sa.UniqueConstraint("bucket", "hash"),
    # A bucket may have very many files: none of these queries may read them all.
    *_ordered_indexes("files", "bucket"),
    sa.Index("ix_files_bucket_filename", "bucket", "filename").ddl_if(dialect="sqlite"),
    sa.Index("ix_files_bucket_size", "bucket", "size"),
)
# PostgreSQL refuses a row of an index with more than 2,704 bytes; a name may have 4,096.
_NAME_START: Any = sa.func.substr(
    files.c.filename, sa.literal_column("1"), sa.literal_column("200")
)
sa.Index("ix_files_bucket_filename_number", files.c.bucket, _NAME_START, files.c.number).ddl_if(
    dialect="postgresql"
)
# One row: which installation the database and the store belong to.
installation = _table(
    "installation",
    _key("id", _Text),
    _flag("stored"),  # whether the store has it too
    sa.Column("swept", sa.BigInteger),  # when objects that no shard refers to were deleted last
)
shards = _keyed_table(
    "shards",
    _key("hash", _Text),
    _column("object", _Text, index=True),
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
_SHOWN = buckets.c["id", "user", "created", "name", "storage", "transfer", "pubkeys"]
_BUCKET = Prepared(
    sa.select(*_SHOWN, users.c.disabled)
    .join(users)
    .where(buckets.c.id == sa.bindparam("id"), buckets.c.removed.is_(None))
)
_LOCK_BUCKET = (
    sa.select(buckets.c.id)
    .where(buckets.c.id == sa.bindparam("id"))
    .with_for_update(key_share=True)
)
_LOCK_USER = (
    sa.select(users.c.email)
    .where(users.c.email == sa.bindparam("email"))
    .with_for_update(key_share=True)
)
_REDEEM = {
    table: Prepared(sa.delete(table).where(table.c.token == sa.bindparam("its")).returning(table))
    for table in (tokens, pointers, resets)
}
_FIND = {tokens: Prepared(sa.select(tokens).where(tokens.c.token == sa.bindparam("its")))}
_USERS_BUCKET = Prepared(
    sa.select(*_SHOWN).where(
        buckets.c.id == sa.bindparam("id"),
        buckets.c.removed.is_(None),
        buckets.c.user == sa.bindparam("user"),
    )
)


def find_bucket(connection: sa.Connection, bucket: str, user: str = "") -> Row:
    """Return a bucket, of *user* if given; refuse with 404 if there is none.

    Refuses whoever is not its user with 403 if that user is disabled.
    """
    statement, values = _USERS_BUCKET if user else _BUCKET, {"id": bucket, "user": user}
    row = statement.first(connection, values)
    if row is None:
        raise Refused(404, "Bucket not found")
    if not user and row["disabled"]:
        raise disabled()
    return row


def has_name(name: str) -> sa.ColumnElement[bool]:
    """Return the condition that a file has a *name*, by which it is found in the index."""
    return sa.and_(files.c.filename == name, name[:200] == _NAME_START)


def lock_bucket(connection: sa.Connection, bucket: str) -> None:
    """Let no other transaction change a bucket, or add or remove its files."""
    if not has_one_writer(connection):
        connection.execute(_LOCK_BUCKET, {"id": bucket})


def lock_user(connection: sa.Connection, email: str) -> None:
    """Let no other transaction change a user, or add a bucket or a key for that user."""
    if not has_one_writer(connection):
        connection.execute(_LOCK_USER, {"email": email})


def disabled() -> Refused:
    """Return the refusal of everything that a disabled user owns or asks for."""
    return Refused(403, "User account is disabled")


def total(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Return the sum of a column of whole numbers; 0 if there are no rows."""
    # The sum of such a column is no whole number to PostgreSQL.
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


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


def find_token(connection: sa.Connection, table: sa.Table, token: str, now: int) -> Row | None:
    """Return the row of *token*; None as `redeem_token` does."""
    row = _FIND[table].first(connection, {"its": token})
    return row if row is not None and row["expires"] > now else None


def redeem_token(connection: sa.Connection, table: sa.Table, token: str, now: int) -> Row | None:
    """Delete *token* and return its row; None if there is no such token, or if it has expired."""
    row = _REDEEM[table].first(connection, {"its": token})
    return row if row is not None and row["expires"] > now else None

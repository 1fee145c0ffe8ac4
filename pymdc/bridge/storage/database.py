"""What the bridge knows: its tables, and the transactions on them.

Where two requests at once must not both win, one statement and its row count decide.
Times are whole milliseconds since 1970.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pymdc.bridge.errors import Refused

TOKEN_LIFETIME = 300_000
BATCH = 500  # below the number of parameters that a statement may have

_tables = sa.MetaData()
_key = partial(sa.Column, primary_key=True)
_column = partial(sa.Column, nullable=False)
_numbered = partial(sa.Column, "number", sa.Integer, primary_key=True)  # keeps the order


def _table(name: str, *columns: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(name, _tables, *columns)


users = _table(
    "users",
    _key("email", sa.String),
    _column("password", sa.String),
    _column("created", sa.BigInteger),
    sa.Column("activation", sa.String, unique=True),  # none when it has been used
)
public_keys = _table(
    "public_keys",
    _numbered(),
    _column("key", sa.String, unique=True),
    _column("user", sa.ForeignKey("users.email"), index=True),
)
# The owner of a nonce is a user, by e-mail, or a key, by the point that it is.
used_nonces = _table(
    "used_nonces", _key("owner", sa.String), _key("nonce", sa.Float), _key("r", sa.String)
)
# Written by older bridges, by which a nonce was used up whatever was signed with it.
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
)
tokens = _table(
    "tokens",
    _key("token", sa.String),
    _column("bucket", sa.String),  # no foreign key: a token may outlive its bucket
    _column("operation", sa.String),
    _column("expires", sa.BigInteger, index=True),
)
pointers = _table(
    "pointers",
    _key("token", sa.String),
    _column("shard", sa.String),
    _column("expires", sa.BigInteger, index=True),
)
files = _table(
    "files",
    _numbered(),
    _column("bucket", sa.ForeignKey("buckets.id", ondelete="CASCADE")),
    _column("hash", sa.String),
    _column("filename", sa.String),
    _column("mimetype", sa.String),
    _column("size", sa.BigInteger),
    sa.UniqueConstraint("bucket", "hash"),
)
shards = _table(
    "shards",
    _key("hash", sa.String),
    _column("object", sa.String, index=True),
    _column("size", sa.BigInteger),
)
file_shards = _table(
    "file_shards",
    _key("file", sa.ForeignKey("files.number", ondelete="CASCADE")),
    _key("position", sa.Integer),
    _column("shard", sa.ForeignKey("shards.hash"), index=True),
)

# Statements that many requests need are built once; to build one costs as much as to run it.
_BUCKET = sa.select(buckets).where(buckets.c.id == sa.bindparam("id"))
_USERS_BUCKET = _BUCKET.where(buckets.c.user == sa.bindparam("user"))

# An INSERT that has ``on_conflict_do_nothing`` and ``on_conflict_do_update``, by dialect.
INSERTS: dict[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


class Database:
    """Transactions on the database at *url*, in which missing tables are made."""

    def __init__(self, url: str | sa.URL) -> None:
        # Passwords and tokens stay out of the log: parameters, and rows, which it has at DEBUG.
        self._engine = sa.create_engine(
            url, hide_parameters=True, logging_name="pymdc", max_overflow=-1
        )
        logging.getLogger("sqlalchemy.engine.Engine.pymdc").addFilter(_no_rows)
        self._turn = threading.Lock()
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        # Kept, because to get a connection from the pool costs more than a statement.
        self._writing = self._engine.connect()
        self._reading: list[sa.Connection] = []
        with self.write() as connection:
            _tables.create_all(connection)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Begin a transaction that only reads."""
        try:
            connection = self._reading.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            with connection.begin():
                _begin_sqlite(connection, "BEGIN")
                yield connection
        finally:
            self._reading.append(connection)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Begin a transaction that writes; an exception that leaves it undoes it."""
        # SQLite has one writer: within a process they wait in line instead of trying again.
        with self._turn, self._writing.begin():
            _begin_sqlite(self._writing, "BEGIN IMMEDIATE")
            yield self._writing

    def close(self) -> None:
        """Close every connection."""
        for connection in (self._writing, *self._reading):
            connection.close()
        self._engine.dispose()


def insert_new(connection: sa.Connection, table: sa.Table, **values: object) -> bool:
    """Insert a row unless a unique key forbids it, and say whether it is there now by this."""
    statement = INSERTS[connection.dialect.name](table).values(**values).on_conflict_do_nothing()
    return bool(connection.execute(statement).rowcount == 1)


def find_bucket(connection: sa.Connection, bucket: str, user: str = "") -> sa.RowMapping:
    """Return a bucket, *user*'s where one is given; 404 when there is none."""
    statement, values = _USERS_BUCKET if user else _BUCKET, {"id": bucket, "user": user}
    row = connection.execute(statement, values).mappings().first()
    if row is None:
        raise Refused(404, "Bucket not found")
    return row


def named(connection: sa.Connection, objects: Sequence[str]) -> set[str]:
    """Return those of *objects* in which a shard is."""
    found: set[str] = set()
    for start in range(0, len(objects), BATCH):
        batch = shards.c.object.in_(objects[start : start + BATCH])
        found.update(connection.execute(sa.select(shards.c.object).where(batch)).scalars())
    return found


def issue(
    connection: sa.Connection, table: sa.Table, now: int, rows: Sequence[dict[str, Any]]
) -> None:
    """Insert tokens, and clear away those that ended before *now*."""
    connection.execute(sa.delete(table).where(table.c.expires <= now))
    if rows:
        connection.execute(sa.insert(table), rows)


def spend(connection: sa.Connection, table: sa.Table, token: str, now: int) -> sa.RowMapping | None:
    """Take *token* away and return what it was for; None if there was none, or it was too old."""
    statement = sa.delete(table).where(table.c.token == token).returning(table)
    row = connection.execute(statement).mappings().first()
    return row if row is not None and row["expires"] > now else None


def _no_rows(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # else sqlite3 begins transactions by rules of its own
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin_sqlite(connection: sa.Connection, statement: str) -> None:
    # Neither by SQLAlchemy nor at an event of its: that costs ten times as much as the statement.
    if connection.dialect.name == "sqlite":
        connection.connection.cursor().execute(statement)

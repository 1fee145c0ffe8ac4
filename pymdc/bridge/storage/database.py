"""The seam between the bridge and its database, which is SQLite or PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import sqlalchemy as sa

# This one is understood by SQLite as well.
from sqlalchemy.dialects.postgresql import insert


class Database(Protocol):
    """Transactions on a database.

    The methods raise `UnavailableError` if the database does not answer.
    """

    engine: sa.Engine
    #: How many threads may query it at the same time and gain by it.
    lanes: int

    def read(self) -> AbstractContextManager[sa.Connection]:
        """Run the block with a connection that only reads.

        On PostgreSQL, each statement sees what is committed by then.
        """

    def write(self, *, durable: bool = True) -> AbstractContextManager[sa.Connection]:
        """Run the block in a transaction that writes; an exception rolls it back.

        What is not *durable* may be lost in a power cut: nonces, and what is good for minutes.
        """

    def write_once(self) -> AbstractContextManager[sa.Connection]:
        """Run the block, in which one statement writes, as `write` does what is not durable.

        On PostgreSQL, each statement is a transaction of its own, which saves two round trips.
        """

    def exclusive(self, task: str) -> AbstractContextManager[bool]:
        """Keep other bridges from a *task* while the block runs; give False if one is at it."""

    def check(self) -> None:
        """Raise if the database does not answer, or can't be written."""

    def close(self) -> None:
        """Close every connection."""


def insert_new(connection: sa.Connection, table: sa.Table, **values: object) -> bool:
    """Insert a row unless a unique key forbids it; return whether it was inserted."""
    statement = insert(table).values(**values).on_conflict_do_nothing()
    return bool(connection.execute(statement).rowcount == 1)


def has_one_writer(connection: sa.Connection) -> bool:
    """Say whether nobody else writes meanwhile, so that nothing has to be locked."""
    return connection.dialect.name == "sqlite"


def lock_name(connection: sa.Connection, name: str) -> None:
    """Let one transaction at a time go on that locks *name*, until it ends."""
    if not has_one_writer(connection):
        connection.execute(_LOCK_NAME, {"name": name})


_LOCK_NAME = sa.select(
    sa.func.pg_advisory_xact_lock(
        sa.func.hashtextextended(sa.bindparam("name", type_=sa.String), 0)
    )
)

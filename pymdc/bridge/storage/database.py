"""The seam between the bridge and its database, which is SQLite or PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import sqlalchemy as sa

# This one is understood by SQLite as well.
from sqlalchemy.dialects.postgresql import insert

from pymdc.bridge.storage.prepared import TRANSLATE


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


def make_engine(
    url: sa.URL, translate: Callable[[BaseException | None], None], **options: Any
) -> sa.Engine:
    """Return an engine; *translate* raises what the bridge says of an error of the driver.

    Neither parameters nor rows are logged: they contain passwords and tokens.
    """

    def prepare(_connection: object, record: Any) -> None:
        record.info[TRANSLATE] = translate

    def handle_error(context: sa.engine.ExceptionContext) -> None:
        translate(context.original_exception)

    engine = sa.create_engine(url, hide_parameters=True, logging_name="pymdc", **options)
    logging.getLogger("sqlalchemy.engine.Engine.pymdc").addFilter(_is_not_debug)
    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "handle_error", handle_error)
    return engine


def insert_new(connection: sa.Connection, table: sa.Table, **values: object) -> bool:
    """Insert a row unless a unique key forbids it; return whether it was inserted."""
    statement = insert(table).values(**values).on_conflict_do_nothing()
    return bool(connection.execute(statement).rowcount == 1)


def has_one_writer(bind: sa.Connection | sa.Engine) -> bool:
    """Say whether nobody else writes meanwhile, so that nothing has to be locked."""
    return bind.dialect.name == "sqlite"


def lock_key(name: str) -> sa.ColumnElement[int]:
    """Return the number of PostgreSQL's advisory lock *name*."""
    return sa.func.hashtextextended(sa.literal(f"pymdc bridge: {name}", sa.String), 0)


def lock_name(connection: sa.Connection, name: str) -> None:
    """Let one transaction at a time go on that locks *name*, until it ends."""
    if not has_one_writer(connection):
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(lock_key(name))))


def _is_not_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG

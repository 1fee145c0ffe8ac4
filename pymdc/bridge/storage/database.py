"""The database: its engine, and the transactions on it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pymdc.bridge.storage.tables import metadata

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
            metadata.create_all(connection)

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

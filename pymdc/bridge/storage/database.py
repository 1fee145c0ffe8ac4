"""The database: its engine and its transactions."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pymdc.bridge.errors import DamagedDatabaseError
from pymdc.bridge.settings import BUSY_SECONDS
from pymdc.bridge.storage.schema import check_schema, prepare_schema

# By dialect: an INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``.
INSERTS: dict[str, Callable[[sa.Table], Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
_PROBE = sa.text("SELECT version_num FROM alembic_version")


class Database:
    """Transactions on the database at *url*; its tables are created or brought forward.

    With *fsync*, what a durable transaction wrote outlasts a power cut.
    An *existing* database is neither created nor brought forward, but refused with
    `OtherSchemaError` if it is not of this version: a bridge of another one may be using it.
    """

    def __init__(self, url: str | sa.URL, *, fsync: bool = False, existing: bool = False) -> None:
        # Neither parameters nor rows are logged: they contain passwords and tokens.
        self._engine = sa.create_engine(
            url, hide_parameters=True, logging_name="pymdc", max_overflow=-1
        )
        logging.getLogger("sqlalchemy.engine.Engine.pymdc").addFilter(_is_not_debug)
        self._write_lock = threading.Lock()
        sa.event.listen(self._engine, "handle_error", _tell_damage)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
        # Connections are kept: getting one from the pool costs more than a statement.
        self._writer = self._engine.connect()
        self._durable_writer = self._writer
        self._idle_readers: list[sa.Connection] = []
        try:
            if existing:
                with self.read() as connection:
                    check_schema(connection)
            else:
                self._prepare_schema()
            if fsync:
                self._durable_writer = self._engine.connect()
                _on_sqlite(self._durable_writer, "PRAGMA synchronous=FULL")
                # What a bridge that was killed has committed is shown from now on: it must last.
                _on_sqlite(self._durable_writer, "PRAGMA wal_checkpoint")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Run the block in a transaction that only reads."""
        try:
            connection = self._idle_readers.pop()
        except IndexError:
            connection = self._engine.connect()
        try:
            with connection.begin():
                _on_sqlite(connection, "BEGIN")
                yield connection
        finally:
            self._idle_readers.append(connection)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """Run the block in a transaction that writes; an exception rolls it back.

        What is not *durable* may be lost in a power cut: nonces, and what is good for minutes.
        """
        writer = self._durable_writer if durable else self._writer
        # SQLite has one writer: with the lock, the others wait instead of polling.
        with self._write_lock, writer.begin():
            _on_sqlite(writer, "BEGIN IMMEDIATE")
            yield writer

    def check(self) -> None:
        """Raise if the database does not answer, or can't be written.

        It does not wait for whoever is writing.
        """
        path = self._engine.url.database
        if path and not os.access(path, os.W_OK):
            raise OSError(f"{path} can't be written")
        with self.read() as connection:
            connection.execute(_PROBE)

    def close(self) -> None:
        """Close every connection."""
        for connection in (self._writer, self._durable_writer, *self._idle_readers):
            connection.close()
        self._engine.dispose()

    def _prepare_schema(self) -> None:
        path = self._engine.url.database
        # A step may replace a table, whose rows must not take others with them.
        _on_sqlite(self._writer, "PRAGMA foreign_keys=OFF")
        with self.write() as connection:
            prepare_schema(connection, Path(path) if path else None)
        _on_sqlite(self._writer, "PRAGMA foreign_keys=ON")


def insert_new(connection: sa.Connection, table: sa.Table, **values: object) -> bool:
    """Insert a row unless a unique key forbids it; return whether it was inserted."""
    statement = INSERTS[connection.dialect.name](table).values(**values).on_conflict_do_nothing()
    return bool(connection.execute(statement).rowcount == 1)


def is_locked(error: Exception) -> bool:
    """Say whether another process wrote to the database for longer than a transaction waits."""
    return "database is locked" in str(error)


def _tell_damage(context: sa.engine.ExceptionContext) -> None:
    """Say of a damaged database which one it is, instead of which statement found it."""
    error, engine = context.original_exception, context.engine
    if "malformed" in str(error) and engine is not None:
        raise DamagedDatabaseError(f"{engine.url.database} is damaged: {error}; restore a backup")


def _is_not_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # else sqlite3 begins transactions by itself
    busy = f"busy_timeout={round(BUSY_SECONDS * 1000)}"  # first: the next setting may have to wait
    for setting in (busy, "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _on_sqlite(connection: sa.Connection, statement: str) -> None:
    """Execute *statement* if the database is SQLite."""
    # Not through SQLAlchemy or its events: that takes ten times as long as the statement.
    if connection.dialect.name == "sqlite":
        connection.connection.cursor().execute(statement).close()

"""The database in a file: SQLite."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pymdc.bridge.errors import DamagedDatabaseError
from pymdc.bridge.settings import BUSY_SECONDS, LOCKED_PAUSE
from pymdc.bridge.storage.database import make_engine
from pymdc.bridge.storage.disk import sync_folder
from pymdc.bridge.storage.schema import NEWEST, check_schema, prepare_schema

_PROBE = sa.text("SELECT version_num FROM alembic_version")
_log = logging.getLogger("pymdc.bridge")


class SQLiteDatabase:
    """Transactions on the SQLite database *path*; its tables are created or brought forward.

    With *fsync*, what a durable transaction wrote outlasts a power cut.
    A *temporary* one is removed when the bridge stops, and waits for the disk at no time.
    An *existing* database is neither created nor brought forward, but refused with
    `OtherSchemaError` if it is not of this version: a bridge of another one may be using it.
    """

    lanes = 1

    def __init__(
        self, path: Path, *, fsync: bool = False, temporary: bool = False, existing: bool = False
    ) -> None:
        self._path = path
        url = sa.URL.create("sqlite", database=str(path))
        self.engine = make_engine(url, partial(_tell_damage, path), max_overflow=-1)
        self._write_lock = threading.Lock()
        prepare = partial(_prepare, temporary=temporary)
        sa.event.listen(self.engine, "connect", prepare)
        # Connections are kept: getting one from the pool costs more than a statement.
        self._writer = self.engine.connect()
        self._durable_writer = self._writer
        self._idle_readers: list[sa.Connection] = []
        try:
            if existing:
                with self.read() as connection:
                    check_schema(connection)
            else:
                self._prepare_schema()
            if fsync:
                self._durable_writer = self.engine.connect()
                _execute(self._durable_writer, "PRAGMA synchronous=FULL")
                # What a bridge that was killed has committed is shown from now on: it must last.
                _execute(self._durable_writer, "PRAGMA wal_checkpoint")
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Run the block in a transaction that only reads."""
        try:
            connection = self._idle_readers.pop()
        except IndexError:
            connection = self.engine.connect()
        try:
            with connection.begin():
                _execute(connection, "BEGIN")
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
            _execute(writer, "BEGIN IMMEDIATE")
            yield writer

    @contextmanager
    def write_once(self) -> Iterator[sa.Connection]:
        """Run the block, in which one statement writes, in a transaction that is not durable."""
        with self.write(durable=False) as connection:
            yield connection

    @contextmanager
    def exclusive(self, task: str) -> Iterator[bool]:
        """Give True: several bridges may do at once what they do to a file."""
        yield True

    def check(self) -> None:
        """Raise if the database does not answer, or can't be written.

        It does not wait for whoever is writing.
        """
        if not os.access(self._path, os.W_OK):
            raise OSError(f"{self._path} can't be written")
        with self.read() as connection:
            connection.execute(_PROBE)

    def close(self) -> None:
        """Close every connection."""
        for connection in (self._writer, self._durable_writer, *self._idle_readers):
            connection.close()
        self.engine.dispose()

    def _prepare_schema(self) -> None:
        # A step may replace a table, whose rows must not take others with them.
        _execute(self._writer, "PRAGMA foreign_keys=OFF")
        with self.write() as connection:
            prepare_schema(connection, partial(_copy, self._path))
        _execute(self._writer, "PRAGMA foreign_keys=ON")


def is_locked(error: Exception) -> bool:
    """Say whether another process wrote to the database for longer than a transaction waits."""
    return "database is locked" in str(error)


def _copy(path: Path) -> None:
    """Copy the file *path* to ``NAME.before-NUMBER`` beside it."""
    copy = path.with_name(f"{path.name}.before-{NEWEST}")
    part = copy.with_name(f"{copy.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600, exist_ok=False)
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(part)) as target:
            source.backup(target)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
    _log.warning("the database is copied to %s before it is brought forward", copy)


def _tell_damage(path: Path, error: BaseException | None) -> None:
    """Say of a damaged database which one it is, instead of which statement found it."""
    if "malformed" in str(error):
        raise DamagedDatabaseError(f"{path} is damaged: {error}; restore a backup")


def _prepare(connection: Any, _record: object, temporary: bool) -> None:
    connection.isolation_level = None  # else sqlite3 begins transactions by itself
    connection.execute(f"PRAGMA busy_timeout={round(BUSY_SECONDS * 1000)}").close()
    if temporary:
        connection.execute("PRAGMA synchronous=OFF").close()  # also for the first pages of the log
    _keep_log(connection)
    if not temporary:
        connection.execute("PRAGMA synchronous=NORMAL").close()
    connection.execute("PRAGMA foreign_keys=ON").close()


def _keep_log(connection: Any) -> None:
    """Give a new database its write-ahead log; another bridge may be doing the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:  # SQLite does not wait here as it does elsewhere
            if not is_locked(error) or time.monotonic() > deadline:
                raise
            time.sleep(LOCKED_PAUSE)
        else:
            return


def _execute(connection: sa.Connection, statement: str) -> None:
    """Execute *statement*, but not through SQLAlchemy: that takes ten times as long."""
    connection.connection.cursor().execute(statement).close()

"""What a bridge stores in, whether a bridge runs on it or not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa

from pymdc.bridge.settings import CLIENT, DATABASE, LOCK, SHARDS
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.disk import check_owner, lock, private
from pymdc.bridge.storage.installation import CLOSED, IMPORTING, check_store
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.schema import EmptyDatabaseError, OtherSchemaError
from pymdc.bridge.storage.servers import open_postgres, shown_url
from pymdc.bridge.storage.sqlite import SQLiteDatabase
from pymdc.bridge.storage.stores import open_store
from pymdc.bridge.storage.tables import installation

_BRIDGES = sa.text(
    "SELECT count(*) > 0 FROM pg_stat_activity"
    f" WHERE datname = current_database() AND application_name = '{CLIENT}'"
)


class CommandError(Exception):
    """Why a command could not be done, in one line; *status* is the exit status."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Storage:
    """The data folder *path*, the database and the objects, opened when they are needed.

    *database_url* and *store_url* say where they are, if not in the folder.
    """

    def __init__(
        self,
        path: Path,
        database_url: str | None = None,
        database_password: str | None = None,
        store_url: str | None = None,
    ) -> None:
        self.path = path
        self.has_file = database_url is None  # the database is a file in the folder
        self.has_shards = store_url is None  # the objects are in the folder
        self._database_url = database_url
        self._database_password = database_password
        self._store_url = store_url
        self._database: Database | None = None

    @property
    def place(self) -> str:
        """Where the database is, for people: a folder, or a URL without its password."""
        return str(self.path) if self._database_url is None else shown_url(self._database_url)

    @property
    def database(self) -> Database:
        """The database, which has to exist, and to be complete."""
        if self._database is None:
            database = self._open()
            with database.read() as connection:
                found = connection.execute(sa.select(installation.c.id)).scalar()
            if found is not None and found.startswith(IMPORTING):
                database.close()
                raise CommandError(
                    f"an import into {self.place} is not complete: give admin import again"
                )
            self._database = database
        return self._database

    def _open(self) -> Database:
        if self._database_url is not None:
            try:
                return self._open_server(self._database_url, existing=True)
            except EmptyDatabaseError as error:
                raise CommandError(f"{self.place} can't be used: {error}") from None
        path = self.path / DATABASE
        try:  # not `exists`, which is false for files that others may not see
            check_owner(self.path)
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise CommandError(
                f"{path} is missing: --data or PYMDC_BRIDGE_DATA says where the bridge stores"
            ) from None
        return _open_file(path, existing=True)

    def create_database(self) -> None:
        """Open the database, and make its tables if it is empty.

        A file is created; the caller has locked its folder.
        """
        if self._database_url is None:
            path = self.path / DATABASE
            is_new = not path.exists() or not path.stat().st_size
            path.touch(mode=0o600)
            self._database = _open_file(path, existing=not is_new)
        else:
            try:
                self._database = self._open_server(self._database_url, existing=True)
            except EmptyDatabaseError:
                self._database = self._open_server(self._database_url, existing=False)

    @cached_property
    def objects(self) -> ObjectStore:
        """The objects, which have to be those of the database."""
        opened = self.open_objects()
        if not (self.has_file and self.has_shards):
            with self.database.read() as connection:
                row = connection.execute(sa.select(installation)).first()
            if row is not None and row.stored:
                check_store(row.id.removeprefix(CLOSED), opened)
        return opened

    def open_objects(self) -> ObjectStore:
        """Return the store, whatever database it belongs to."""
        return open_store(self._store_url, self.path / SHARDS, fsync=True)

    def may_be_served(self) -> bool:
        """Say whether a bridge runs on it, or whether nobody knows for sure."""
        return not self.has_file or self.is_served()

    def is_served(self) -> bool:
        """Say whether a bridge runs on it."""
        if self._database_url is not None:
            with self.database.read() as connection:
                return bool(connection.execute(_BRIDGES).scalar())
        try:
            with open(self.path / LOCK, "rb") as file:
                return not lock(file)
        except FileNotFoundError:
            return False

    @contextmanager
    def unserved(self) -> Iterator[None]:
        """Keep bridges from starting while the block runs; raise `CommandError` if one runs.

        On a server they are not kept from starting.
        """
        if self._database_url is not None:
            if self.is_served():
                raise CommandError(f"a bridge is running on {self.place}: stop it first")
            yield
            return
        with open(self.path / LOCK, "ab", opener=private) as file:
            if not lock(file):
                raise CommandError(f"a bridge is running on {self.path}: stop it first")
            yield

    def close(self) -> None:
        """Close the database if it is open."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _open_server(self, url: str, *, existing: bool) -> Database:
        return open_postgres(url, self._database_password, existing=existing, command=True)


def need_folder(storage: Storage, instead: str) -> None:
    """Refuse a command that is for a bridge with a folder; *instead* says what to do."""
    if not (storage.has_file and storage.has_shards):
        raise CommandError(f"this is for a bridge that has all in its folder; {instead}")


def one_line(fault: object) -> str:
    """Return what a database says, a text or an error, in one line."""
    said = getattr(fault, "orig", fault)
    # PostgreSQL also says what the row contains, which may be the hash of a password.
    first = getattr(getattr(said, "diag", None), "message_primary", None)
    return " ".join(str(first or said).split())


def _open_file(path: Path, *, existing: bool) -> SQLiteDatabase:
    try:
        return SQLiteDatabase(path, fsync=True, existing=existing)
    except OtherSchemaError as error:
        raise CommandError(f"{path} can't be used: {error}") from None
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise CommandError(f"{path} can't be used as a database") from error

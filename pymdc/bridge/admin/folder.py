"""The data folder of a bridge, whether a bridge runs on it or not."""

from __future__ import annotations

import sqlite3
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa

from pymdc.bridge.settings import DATABASE, LOCK, SHARDS
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.disk import check_owner, lock
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.schema import OtherSchemaError
from pymdc.bridge.storage.servers import open_postgres
from pymdc.bridge.storage.sqlite import SQLiteDatabase
from pymdc.bridge.storage.stores import open_store


class CommandError(Exception):
    """Why a command could not be done, in one line; *status* is the exit status."""

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class DataFolder:
    """The folder *path*: its database and its objects, which are opened when they are needed.

    *database* and *store* are the URLs of those that are elsewhere.
    """

    def __init__(
        self,
        path: Path,
        database: str | None = None,
        database_password: str | None = None,
        store: str | None = None,
    ) -> None:
        self.path = path
        self._database, self._password, self._store = database, database_password, store

    @property
    def has_all(self) -> bool:
        """Whether the database and the objects are in the folder."""
        return self._database is None and self._store is None

    @cached_property
    def database(self) -> Database:
        """The database, which has to exist."""
        if self._database is not None:
            return open_postgres(self._database, self._password, existing=True)
        path = self.path / DATABASE
        try:  # not `exists`, which is false for files that others may not see
            check_owner(self.path)
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise CommandError(
                f"{path} is missing: --data or PYMDC_BRIDGE_DATA says where the bridge stores"
            ) from None
        try:
            return SQLiteDatabase(path, fsync=True, existing=True)
        except OtherSchemaError as error:
            raise CommandError(f"{path} can't be used: {error}") from None
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            raise CommandError(f"{path} can't be used as a database") from error

    @cached_property
    def objects(self) -> ObjectStore:
        """The objects."""
        return open_store(self._store, self.path / SHARDS, fsync=True)

    def is_served(self) -> bool:
        """Say whether a bridge runs on the folder."""
        try:
            with open(self.path / LOCK, "rb") as file:
                return not lock(file)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the database if it is open."""
        if "database" in vars(self):
            vars(self).pop("database").close()


def one_line(fault: object) -> str:
    """Return what SQLite says, a text or an error, in one line."""
    return " ".join(str(getattr(fault, "orig", fault)).split())

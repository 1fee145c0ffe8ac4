"""What the bridge stands on, for tests that know no file of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pymdc.bridge import Bridge
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.sqlite import SQLiteDatabase

Values = Mapping[str, object]
OBJECT = re.compile(r"[0-9a-f]{32}(#[0-9]+)?")  # the name of one, or of a half-written one


class Backend(ABC):
    """A database and a store of a test's own; in *data*, a bridge keeps what else it needs."""

    knows_what_is_free = True

    def __init__(self, data: Path, engine: sa.Engine) -> None:
        self.data = data
        self._engine = engine

    def bridge(self, **settings: Any) -> Bridge:
        """Return a bridge on this back end."""
        return Bridge(self.data, **settings)

    def options(self) -> list[str]:
        """Return the options of a program for this back end."""
        return ["--data", str(self.data)]

    def data_of(self, bridge: str) -> Path:
        """Return the data folder of one of several bridges."""
        return self.data

    @abstractmethod
    def open_database(self) -> Database:
        """Open the database, as a bridge does."""

    def execute(self, statement: str, values: Values | Sequence[Values] = ()) -> list[Any]:
        """Execute SQL and return its rows; *values* are those of ``:name``, or a list of such."""
        with self._engine.begin() as connection:
            result = connection.execute(sa.text(statement), values or None)
            return [*result] if result.returns_rows else []

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        [[count]] = self.execute(f"SELECT count(*) FROM {table}")
        return int(count)

    def transferred(self) -> int:
        """Return how many bytes count as sent."""
        [[total]] = self.execute("SELECT sum(size) FROM transfers")
        return int(total or 0)

    @abstractmethod
    def objects(self) -> list[str]:
        """Return the names of all objects, half-written ones included, in their order."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the bytes of an object."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Store an object, or replace it, behind the bridge's back."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove an object behind the bridge's back."""


class Embedded(Backend):
    """SQLite and a folder."""

    def __init__(self, data: Path) -> None:
        url = sa.URL.create("sqlite", database=str(data / "metadata.sqlite"))
        super().__init__(data, sa.create_engine(url, poolclass=sa.NullPool))
        self._shards = data / "shards"

    def open_database(self) -> Database:
        self.data.mkdir(exist_ok=True)
        return SQLiteDatabase(self.data / "metadata.sqlite")

    def objects(self) -> list[str]:
        return sorted(path.name for path in self._shards.iterdir() if OBJECT.fullmatch(path.name))

    def read(self, name: str) -> bytes:
        return (self._shards / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self._shards / name).write_bytes(content)

    def remove(self, name: str) -> None:
        (self._shards / name).unlink()

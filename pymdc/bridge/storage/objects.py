"""The bytes of the shards, as objects in a folder."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pymdc.bridge.settings import BATCH, OBJECT_BLOCK, SET_ASIDE
from pymdc.bridge.storage.disk import FULL, DiskFullError, free_bytes, sync_folder, sync_path

_NAME = re.compile(r"[0-9a-f]{32}")
_UPLOAD_DIGITS = 24  # of a name; the others are its place in the upload
_HALF_WRITTEN = re.compile(r"[0-9a-f]{32}#[0-9]+")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_log = logging.getLogger("pymdc.bridge")


def new_upload() -> str:
    """Return the id of a new upload."""
    return secrets.token_hex(_UPLOAD_DIGITS // 2)


def object_name(upload: str, position: int) -> str:
    """Return the name of an object of *upload*."""
    return f"{upload}{position:08x}"


def upload_of(name: str) -> str:
    """Return the id of the upload that stored an object."""
    return name[:_UPLOAD_DIGITS]


class StoredObject(NamedTuple):
    """An object: its name, its size in bytes, when it was stored in milliseconds since 1970."""

    name: str
    size: int
    stored_at: int


def open_store(url: str | None, folder: Path | None, *, fsync: bool) -> ObjectStore:
    assert folder
    return ObjectStore(folder, fsync=fsync)


class ObjectStore:
    """Objects in *folder*, which is created if missing; only the user of the process may read them.

    With *fsync*, `put` returns when the bytes are on the disk, and `sync` when the names are.
    The methods block, so call them on a thread.
    """

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self._folder = folder
        self._prefix = os.path.join(folder, "")
        self._set_aside = folder.with_name(SET_ASIDE)
        self._fsync = fsync
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def check(self) -> None:
        """Raise OSError if no object can be stored."""
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise OSError(f"{self._folder} can't be written")

    def names(self) -> Iterator[list[str]]:
        """Yield the names of all objects, in batches."""
        with os.scandir(self._folder) as entries:
            names = (entry.name for entry in entries if _NAME.fullmatch(entry.name))
            while batch := list(islice(names, BATCH)):
                yield batch

    def entries(self) -> Iterator[list[StoredObject]]:
        for names in self.names():
            yield [StoredObject(name, self.size(name) or 0, self.stored_at(name)) for name in names]

    def free(self) -> int | None:
        return free_bytes(self._folder)

    def installation(self) -> str | None:
        with suppress(FileNotFoundError):
            return (self._folder / "installation").read_text("ascii")
        return None

    def set_installation(self, id: str) -> None:
        (self._folder / "installation").write_text(id, "ascii")

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None if it is missing."""
        with suppress(FileNotFoundError):
            return (self._folder / name).stat().st_size
        return None

    def stored_at(self, name: str) -> int:
        """Return when an object was stored, in whole milliseconds since 1970."""
        return (self._folder / name).stat().st_mtime_ns // 1_000_000

    def put(self, name: str, blocks: Iterable[memoryview]) -> None:
        """Store *blocks* as one object; raise `DiskFullError` if there is no room.

        What *blocks* raises is raised, and nothing is stored.
        """
        path = f"{self._prefix}{name}"  # a Path takes longer than the system calls
        part = f"{path}#1"
        try:
            self._write(part, blocks)
            os.replace(part, path)
        except Exception as error:
            with suppress(OSError):
                os.unlink(part)
            if isinstance(error, OSError) and error.errno in FULL:
                raise DiskFullError(f"there is no room for {path}") from error
            raise

    def _write(self, path: str, blocks: Iterable[memoryview]) -> None:
        descriptor = os.open(path, _NEW, 0o600)
        try:
            for block in blocks:
                data = block
                while data:
                    data = data[os.write(descriptor, data) :]
            if self._fsync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self) -> None:
        """Wait until the names of all objects that are stored are on the disk."""
        if self._fsync:
            sync_folder(self._folder)

    def read(self, name: str, start: int, size: int) -> memoryview:
        """Return *size* bytes of an object from *start* on, or fewer at its end."""
        with open(self._folder / name, "rb", 0) as file:
            file.seek(start)
            return memoryview(file.read(size))

    def blocks(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of an object, in blocks."""
        with open(self._folder / name, "rb", 0) as file:
            while block := file.read(OBJECT_BLOCK):
                yield memoryview(block)

    def delete_half_written(self) -> None:
        """Delete what each interrupted `put` left; no other process may use the folder."""
        for path in self._folder.glob("*#*"):
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink()

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; log those that cannot be deleted, which only waste space."""
        for name in names:
            try:
                (self._folder / name).unlink(missing_ok=True)
            except OSError as error:
                _log.error("the object %s was not deleted: %s", name, error.strerror)

    def set_aside(self, names: Iterable[str]) -> Path:
        """Move objects into a folder of their own, and return it."""
        self._set_aside.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            (self._folder / name).replace(self._set_aside / name)
        if self._fsync:
            sync_path(self._set_aside)
        return self._set_aside

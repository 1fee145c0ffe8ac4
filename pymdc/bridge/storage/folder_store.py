"""The bytes of the shards, as files in a folder."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pymdc.bridge.settings import BATCH, OBJECT_BLOCK, SET_ASIDE
from pymdc.bridge.storage.disk import FULL, DiskFullError, free_bytes, sync_folder, sync_path
from pymdc.bridge.storage.objects import INSTALLATION, StoredObject, is_object_name

_HALF_WRITTEN = re.compile(rf"([0-9a-f]{{32}}|{INSTALLATION})#[0-9]+")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_log = logging.getLogger("pymdc.bridge")


class FolderReader:
    """Reads the file *path* from *position* on.

    It is open only while it is read: ten thousand clients may be reading as many files.
    """

    def __init__(self, path: str, position: int) -> None:
        self._path = path
        self._position = position

    def read(self, size: int) -> memoryview:
        """Return the next bytes, at most *size*, at least one; nothing at the end."""
        with open(self._path, "rb", 0) as file:
            file.seek(self._position)
            block = file.read(size)
        self._position += len(block)
        return memoryview(block)

    def close(self) -> None:
        """Do nothing: no file is open."""


class FolderStore:
    """Objects in *folder*, which is created if missing; only the user of the process may read them.

    With *fsync*, `put` returns when the bytes are on the disk, and `sync` when the names are.
    If its disk is not mounted any more, `put` stores nothing below it, and raises.
    """

    is_remote = False

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self._folder = folder
        self._prefix = os.path.join(folder, "")
        self._set_aside = folder.with_name(SET_ASIDE)
        self._fsync = fsync
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._place = self._find_place()
        self._identity = self.installation()

    def check(self) -> None:
        """Raise OSError if no object can be stored."""
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise OSError(f"{self._folder} can't be written")
        self._check_place()

    def free(self) -> int:
        """Return how many bytes are free on the disk."""
        return free_bytes(self._folder)

    def names(self) -> Iterator[list[str]]:
        """Yield the names of all objects, in batches."""
        with os.scandir(self._folder) as entries:
            names = (entry.name for entry in entries if is_object_name(entry.name))
            while batch := list(islice(names, BATCH)):
                yield batch

    def entries(self) -> Iterator[list[StoredObject]]:
        """Yield all objects, in batches."""
        for names in self.names():
            entries = []
            for name in names:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found = (self._folder / name).stat()
                    entries.append(StoredObject(name, found.st_size, _milliseconds(found)))
            yield entries

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None if it is missing."""
        with suppress(FileNotFoundError):
            return (self._folder / name).stat().st_size
        return None

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Return the sizes of several objects."""
        return [self.size(name) for name in names]

    def stored_at(self, name: str) -> int:
        """Return when an object was stored, in whole milliseconds since 1970."""
        return _milliseconds((self._folder / name).stat())

    def put(self, name: str, blocks: Iterable[memoryview]) -> None:
        """Store *blocks* as one object; raise `DiskFullError` if there is no room.

        What *blocks* raises is raised, and nothing is stored.
        """
        self._check_place()
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

    def _find_place(self) -> tuple[int, int]:
        found = os.stat(self._prefix)
        return found.st_dev, found.st_ino

    def _check_place(self) -> None:
        """Raise OSError if the folder is another one than it was, and not of this installation."""
        place = self._find_place()
        if place == self._place:
            return
        if self.installation() != self._identity:
            raise OSError(f"{self._folder} is another folder by now: is its disk not mounted?")
        self._place = place

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

    def open(self, name: str, start: int = 0) -> FolderReader:
        """Return a reader of an object from *start* on."""
        return FolderReader(f"{self._prefix}{name}", start)

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

    def set_aside(self, names: Iterable[str]) -> str:
        """Move objects into a folder of their own, and return it."""
        self._set_aside.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            (self._folder / name).replace(self._set_aside / name)
        if self._fsync:
            sync_path(self._set_aside)
        return str(self._set_aside)

    def installation(self) -> str | None:
        """Return the id of the installation; None if there is none."""
        with suppress(FileNotFoundError):
            return (self._folder / INSTALLATION).read_text(encoding="ascii")
        return None

    def set_installation(self, identity: str) -> None:
        """Store the id of the installation; no other process may do so meanwhile."""
        (self._folder / f"{INSTALLATION}#1").unlink(missing_ok=True)  # a killed one has left it
        self.put(INSTALLATION, [memoryview(identity.encode("ascii"))])
        self._identity = identity
        self.sync()


def _milliseconds(found: os.stat_result) -> int:
    return found.st_mtime_ns // 1_000_000

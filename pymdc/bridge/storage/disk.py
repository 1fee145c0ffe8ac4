"""The disk: what a power cut leaves on it, how much room it has, and who may use its files."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

import sqlalchemy as sa

from pymdc.bridge.settings import RESERVE

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]

CAN_LOCK = fcntl is not None
FULL = (errno.ENOSPC, errno.EDQUOT)
_INDEX_PIECE = 32 * 1024  # bytes by which SQLite extends the index of its log
_CANNOT_SYNC = (errno.EINVAL, errno.EBADF)  # some file systems do not sync folders

T = TypeVar("T")


class DiskFullError(OSError):
    """The disk is full to the last byte."""


def private(path: str, flags: int) -> int:
    """Open a file; only its owner may read it if it is new. This is an *opener* for `open`."""
    return os.open(path, flags, 0o600)


def lock(file: IO[bytes], *, shared: bool = False, wait: bool = False) -> bool:
    """Lock *file* until it is closed; return False if that would take waiting, or is impossible."""
    if fcntl is None:
        return False
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_owner(folder: Path) -> None:
    """Refuse to work as root on the folder of another user, who could not use the files.

    Other users are refused by the system.
    """
    owner = folder.stat().st_uid
    if hasattr(os, "geteuid") and os.geteuid() == 0 and owner != 0:
        raise OSError(f"{folder} belongs to user {owner}: run this as that user, not as root")


def sync_folder(folder: Path) -> None:
    """Wait until the names in *folder* are on the disk; do nothing where that can't be asked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder of another user; and Windows opens none
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def sync_path(folder: Path) -> None:
    """Wait until *folder* itself, and the names in it, are on the disk."""
    for place in (folder, *folder.absolute().parents):
        sync_folder(place)


def free_bytes(folder: Path) -> int:
    """Return how many bytes the disk has left for files in *folder*."""
    return shutil.disk_usage(folder).free


class Reserve:
    """A file in *folder* that is cut, piece by piece, when the disk is full to the last byte.

    So there is room for the transactions that make room, whoever filled the disk. It has *full*
    bytes when nothing is cut.
    """

    def __init__(self, folder: Path, full: int = RESERVE) -> None:
        self._path = folder / "reserve"
        self._full = full

    def run(self, function: Callable[[], T], share: float) -> T:
        """Run *function*; while the disk is too full for its transactions, with more room.

        *share* is how much of the reserve may be used up for that. Raises `DiskFullError` if that
        does not suffice.
        """
        while True:
            try:
                return function()
            except (sa.exc.OperationalError, sqlite3.OperationalError) as error:
                if not self._is_full(error):
                    raise
                if not self._give(share):
                    raise DiskFullError("the disk is full") from error

    def fill(self) -> None:
        """Make the file as large as it should be, if the disk has room for it."""
        size = self._size()
        if size >= self._full or free_bytes(self._path.parent) < 2 * self._full:
            return
        with suppress(OSError):
            with open(self._path, "ab", opener=private) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._full)
                else:
                    file.write(bytes(self._full - size))

    def _give(self, share: float) -> bool:
        size, least = self._size(), round((1 - share) * self._full)
        if size <= least:
            return False
        os.truncate(self._path, max(least, size - RESERVE // 8))
        return True

    def _is_full(self, error: Exception) -> bool:
        # SQLite says the second where it can't extend the index of its log.
        text, free = str(error), free_bytes(self._path.parent)
        return "disk is full" in text or ("disk I/O error" in text and free < _INDEX_PIECE)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

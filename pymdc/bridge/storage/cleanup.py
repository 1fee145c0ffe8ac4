"""Deletes objects without a row, which uploads leave if their process is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import objects_in_use

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None  # type: ignore[assignment]


@contextmanager
def cleaned_and_locked(folder: Path, database: Database, objects: ObjectStore) -> Iterator[None]:
    """Delete the *objects* without a row, then share a lock on *folder* while the block runs.

    Nothing is deleted while another bridge has the lock: the shards of its uploads have no rows
    yet.
    """
    with open(folder / "serving", "wb") as file:
        if _try_lock(file):
            _delete_orphans(database, objects)
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _delete_orphans(database: Database, objects: ObjectStore) -> None:
    objects.delete_half_written()
    for names in objects.names():
        with database.read() as connection:
            used = objects_in_use(connection, names)
        objects.delete({*names} - used)

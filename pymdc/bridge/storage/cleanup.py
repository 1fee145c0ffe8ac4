"""Objects that no row names: an upload left them that ended with its process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.objects import Shards
from pymdc.bridge.storage.tables import named

try:
    import fcntl
except ImportError:  # there is no such lock on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def serving(folder: Path, database: Database, shards: Shards) -> Iterator[None]:
    """Sweep *shards*, then serve from *folder* in the block.

    Not while another bridge serves from it: the shards of its uploads have no rows yet.
    """
    with open(folder / "serving", "wb") as file:
        if _alone(file):
            _sweep(database, shards)
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _alone(file: IO[bytes]) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sweep(database: Database, shards: Shards) -> None:
    shards.delete_half_written()
    for names in shards.names():
        with database.read() as connection:
            kept = named(connection, names)
        shards.delete({*names} - kept)

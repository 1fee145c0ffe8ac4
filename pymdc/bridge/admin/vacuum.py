"""``vacuum``: the database without the room that deleted rows left."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from pymdc._text import size_text
from pymdc.bridge.admin.buckets import database_size
from pymdc.bridge.admin.output import Report
from pymdc.bridge.admin.storage import CommandError, Storage
from pymdc.bridge.settings import BUSY_SECONDS, DATABASE, VACUUM_PAUSE, VACUUM_TRIES


def vacuum(storage: Storage) -> Report:
    """Give the room that deleted rows left in the database back to the disk.

    Needs free room for two copies of the database. Requests wait meanwhile, about 1.5 seconds for
    each 100 MB that remain.
    """
    if not storage.has_file:
        raise CommandError("vacuum is for the file of a bridge; PostgreSQL does it by itself")
    assert storage.database  # it exists and is of this version
    storage.close()
    before, begun = database_size(storage), time.monotonic()
    path = storage.path / DATABASE
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        for _ in range(VACUUM_TRIES):
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                break
            time.sleep(VACUUM_PAUSE)
    after, seconds = database_size(storage), time.monotonic() - begun
    value = {"before": before, "after": after, "freed": before - after}
    text = (
        f"The database had {size_text(before)} and has {size_text(after)}:"
        f" {size_text(max(before - after, 0))} freed, in {seconds:.1f} s."
    )
    return Report(value | {"seconds": round(seconds, 3)}, text)

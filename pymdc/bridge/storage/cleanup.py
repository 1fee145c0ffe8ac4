"""What a bridge that was killed has left in its folder: objects without a row, uploads and mails.

Objects without a row that are younger than the last change in the database are not deleted, unless
the database knows the upload that stored them: if an older database was put back, they may belong
to a newer one. So may those of an upload that was under way during a backup, which sets *started*
to 0 in its copy of the database.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from pymdc.bridge.settings import BACKUP_LOCK, LOCK, OUTBOX, TOKEN_LIFETIME
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.disk import CAN_LOCK, lock, private
from pymdc.bridge.storage.objects import ObjectStore, upload_of
from pymdc.bridge.storage.prepared import Prepared
from pymdc.bridge.storage.tables import (
    buckets,
    files,
    objects_in_use,
    pointers,
    tokens,
    uploads,
    users,
)

# When something was written last, in milliseconds.
_CHANGES = sa.union_all(
    *(
        sa.select(sa.func.max(column).label("change"))
        for column in (
            *(table.c.created for table in (users, buckets, files)),
            *(buckets.c.changed, buckets.c.removed, users.c.removed, uploads.c.started),
            *(table.c.expires - TOKEN_LIFETIME for table in (tokens, pointers)),
        )
    )
).subquery()
_LAST_CHANGE = Prepared(sa.select(sa.func.max(_CHANGES.c.change).label("change")))
_DELETE_UPLOADS = Prepared(sa.delete(uploads))
_log = logging.getLogger("pymdc.bridge")


@contextmanager
def kept_from_backups(folder: Path) -> Iterator[None]:
    """Keep a backup or an export from being written into *folder* while the block runs.

    It would replace the database. Raises OSError if one is being written.
    """
    try:
        file = open(folder / BACKUP_LOCK, "rb")  # noqa: SIM115  # closed below
    except FileNotFoundError:
        yield
        return
    with file:
        if not lock(file, shared=True) and CAN_LOCK:
            raise OSError(f"a backup or an export into {folder} is being written")
        yield


class FolderLock:
    """The lock that bridges share on their *folder*, and that a command needs for itself.

    A bridge that *is_alone* keeps the others out until it shares the lock. Before that it may clean
    up: the shards of other bridges' uploads have no rows yet.
    """

    def __init__(self, folder: Path) -> None:
        self._file = open(folder / LOCK, "ab", opener=private)  # noqa: SIM115  # see `close`
        self.is_alone = lock(self._file)
        if not self.is_alone:
            self.share()

    def share(self) -> None:
        """Share the lock. A command may have it in between."""
        lock(self._file, shared=True, wait=True)

    def close(self) -> None:
        """Give the lock back."""
        self._file.close()


def delete_half_written_mails(folder: Path) -> None:
    """Delete what a bridge that was killed has left in the outbox; no other bridge may use it."""
    for mail in (folder / OUTBOX).glob("*.part"):
        mail.unlink()


def clean(database: Database, objects: ObjectStore) -> None:
    """Delete the *objects* without a row; no other bridge may use either.

    The caller has checked that the objects are those of the database.
    """
    with database.read() as connection:
        last_change = _LAST_CHANGE.one(connection, {})["change"] or 0
        known = connection.execute(sa.select(*uploads.c["id", "started"])).all()
    broken_off = {upload for upload, started in known if started}
    backed_up = {upload for upload, started in known if not started}
    objects.delete_half_written()
    young: list[str] = []
    for names in objects.names():
        with database.read() as connection:
            orphans = {*names} - objects_in_use(connection, names)
        young += (
            name
            for name in orphans
            if upload_of(name) in backed_up
            or (objects.stored_at(name) > last_change and upload_of(name) not in broken_off)
        )
        objects.delete(orphans.difference(young))
    objects.sync()
    with database.write(durable=False) as connection:
        _DELETE_UPLOADS.count(connection, {})
    if young:
        _log.warning(
            "%d objects in the store are newer than the database, and no file needs them:"
            " they are set aside in %s."
            " If an older database was put back, the newer one needs them; else delete the folder.",
            len(young),
            objects.set_aside(young),
        )

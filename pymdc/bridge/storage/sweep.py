"""The sweep of a store that several bridges use: objects that no shard refers to are deleted.

Those of an upload under way stay, whatever the clocks say: its reservation ends in the transaction
that writes its shards, or later. Only objects older than `ORPHAN_AGE` are deleted, since an upload
may put an object in use a little later; it is refused if it takes longer than `UPLOAD_LIFETIME`.

They have to be as much older than the last sweep that the database knows, too. If an older database
was put back by mistake, the newer one may need what is in the store: its objects stay for a day.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from pymdc.bridge.settings import ORPHAN_AGE, SWEEP_SECONDS
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.installation import check_still
from pymdc.bridge.storage.objects import ObjectStore, upload_of
from pymdc.bridge.storage.tables import installation, objects_in_use, uploads

_log = logging.getLogger("pymdc.bridge")


def sweep(
    database: Database, objects: ObjectStore, now: int, is_over: Callable[[], bool]
) -> int | None:
    """Delete the orphans, unless a bridge has done so within a day, or is at it.

    Return how many were deleted; None if none were looked for. It ends early once *is_over* is
    true.
    """
    with database.exclusive("sweep") as mine:
        if not mine:
            return None
        with database.read() as connection:
            last = connection.execute(sa.select(installation.c.swept)).scalar()
        if last is not None and now - SWEEP_SECONDS * 1000 < last <= now:
            return None
        check_still(database, objects)
        number, before = 0, min(now, last or 0) - ORPHAN_AGE
        for entries in objects.entries():
            if is_over():
                return number
            old = [entry.name for entry in entries if entry.stored_at < before]
            orphans = {*old} - _needed(database, old)
            objects.delete(orphans)
            number += len(orphans)
        with database.write() as connection:
            connection.execute(sa.update(installation).values(swept=now))
        if number:
            _log.info("%d objects that no file needs were deleted", number)
        return number


def _needed(database: Database, names: Sequence[str]) -> set[str]:
    """Return those of *names* that an upload under way or a shard may need."""
    with database.read() as connection:
        # In this order: an upload that ends in between has its shards by then.
        under_way = {*connection.execute(sa.select(uploads.c.id)).scalars()}
        in_use = objects_in_use(connection, names)
    return in_use | {name for name in names if upload_of(name) in under_way}

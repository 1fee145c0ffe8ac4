"""``close`` and ``reopen``: whether a bridge may start, on what has moved elsewhere."""

from __future__ import annotations

import sqlalchemy as sa

from pymdc.bridge.admin.output import Report
from pymdc.bridge.admin.storage import CommandError, Storage
from pymdc.bridge.storage.database import lock_name
from pymdc.bridge.storage.installation import CLOSED
from pymdc.bridge.storage.tables import installation


def close(storage: Storage) -> Report:
    """Keep bridges from starting on what is about to move, or has moved; stop them first.

    Nothing is deleted; `reopen` undoes it.
    """
    assert storage.database  # it exists, before anything is made in its folder
    with storage.unserved():
        closed = _set(storage, is_closed=True)
        if not storage.has_file and storage.is_served():  # one was started meanwhile
            _set(storage, is_closed=False)
            raise CommandError(f"a bridge is running on {storage.place}: stop it first")
    text = f"Closed {storage.place}: no bridge starts on it until admin reopen."
    return Report({"closed": True, "changed": closed}, text)


def reopen(storage: Storage) -> Report:
    """Let bridges start again on what `close` has closed."""
    opened = _set(storage, is_closed=False)
    return Report({"closed": False, "changed": opened}, f"Bridges may start on {storage.place}.")


def is_closed(storage: Storage) -> bool:
    """Say whether no bridge may start."""
    with storage.database.read() as connection:
        found = connection.execute(sa.select(installation.c.id)).scalar()
    return found is not None and found.startswith(CLOSED)


def _set(storage: Storage, *, is_closed: bool) -> bool:
    """Close or open it; say whether it was not so before."""
    with storage.database.write() as connection:
        lock_name(connection, "installation")
        found = connection.execute(sa.select(installation.c.id)).scalar()
        if found is None:
            raise CommandError(f"no bridge has started on {storage.place} yet")
        if found.startswith(CLOSED) == is_closed:
            return False
        new = f"{CLOSED}{found}" if is_closed else found.removeprefix(CLOSED)
        connection.execute(sa.update(installation).values(id=new))
    return True

"""Which installation a database and a store belong to.

An id stands in a row of the database and in an object of the store. If they differ, or if one is
missing, the bridge must not start: with an empty database, or with that of another installation, no
shard would refer to the objects, and they would be deleted.

Before the id in the row may stand why no bridge may use it at all: `CLOSED` or `IMPORTING`.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from pymdc.bridge.errors import UnavailableError
from pymdc.bridge.storage.database import Database, lock_name
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.prepared import Prepared, Row
from pymdc.bridge.storage.tables import installation, users

CLOSED = "closed:"  # then the id
IMPORTING = "importing:"  # then the id, a colon, and the id of what is imported
_REASONS = {
    CLOSED: "it was closed, since it has moved elsewhere; admin reopen opens it again",
    IMPORTING: "an import into it is not complete; give admin import again",
}
_ROW = Prepared(sa.select(*installation.c["id", "stored"]))
_IDENTITY = sa.bindparam("identity", type_=sa.String)
_INSERT = Prepared(sa.insert(installation).values(id=_IDENTITY, stored=False))
_STORED = Prepared(sa.update(installation).values(stored=True))
_HAS_USERS = Prepared(sa.select(sa.exists(sa.select(users.c.email)).label("has_users")))


def check_installation(database: Database, objects: ObjectStore) -> None:
    """Raise OSError unless a bridge may start, on a database and a store that belong together.

    A new pair is given an id.
    """
    with database.read() as connection:
        row = _ROW.first(connection, {})
    if fault := _closed(row):
        raise OSError(fault)
    if row is None or not row["stored"]:
        _begin(database, objects)
    else:
        check_store(row["id"], objects)


def check_store(identity: str, objects: ObjectStore) -> None:
    """Raise OSError unless the *objects* are those of the database with the id *identity*."""
    _compare(identity, objects.installation())


def check_still(database: Database, objects: ObjectStore) -> None:
    """Raise OSError unless the database and the store of a running bridge belong together still."""
    with database.read() as connection:
        row = _ROW.first(connection, {})
    if row is None:
        raise OSError("the database is another one by now: it has no id")
    check_store(row["id"], objects)


def check_open(connection: sa.Connection) -> None:
    """Raise `UnavailableError` if no bridge may use the database.

    For each new connection of a bridge that runs: the commands see only those that are connected.
    """
    if fault := _closed(_ROW.first(connection, {})):
        raise UnavailableError(fault)


def _closed(row: Row | None) -> str | None:
    """Return why no bridge may use the database with this row; None if one may."""
    for prefix, reason in _REASONS.items():
        if row is not None and row["id"].startswith(prefix):
            return f"no bridge may use this database: {reason}"
    return None


def _compare(identity: str, stored: str | None) -> None:
    if stored != identity:
        found = (
            f"it lacks the id {identity}"
            if stored is None
            else f"its id is {stored}, not {identity}"
        )
        raise OSError(
            f"the store is not that of the database: {found};"
            " --data, --database and --store say where they are"
        )


def _begin(database: Database, objects: ObjectStore) -> None:
    """Give a new pair an id; first the row is written, then the object, then that both are."""
    with database.write() as connection:
        lock_name(connection, "installation")
        if _ROW.first(connection, {}) is None:
            _INSERT.count(connection, {"identity": _id_of_new(connection, objects)})
    with database.write() as connection:
        lock_name(connection, "installation")
        row = _ROW.one(connection, {})
        stored = objects.installation()
        if stored is None and not row["stored"]:  # else another bridge has stored it, elsewhere
            objects.set_installation(row["id"])
            objects.sync()
        else:
            _compare(row["id"], stored)
        _STORED.count(connection, {})


def _id_of_new(connection: sa.Connection, objects: ObjectStore) -> str:
    """Return the id for a database without one.

    One with users is of an earlier version, and was put back if the store has an id already.
    """
    stored = objects.installation()
    if _HAS_USERS.one(connection, {})["has_users"]:
        return stored or secrets.token_hex(16)
    if stored is not None:
        raise OSError(f"the database is new, but the store belongs to another: its id is {stored}")
    if any(objects.names()):
        raise OSError("the database is empty, but files are in the store: bring the database back")
    return secrets.token_hex(16)

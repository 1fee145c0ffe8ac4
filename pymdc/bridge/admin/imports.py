"""``import``: an empty database and an empty store out of a folder, that of a bridge or a backup.

First the database says that an import has begun, so that no bridge starts on it. Then the objects
are copied, and last all rows in one transaction, which also says that the import is complete.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pymdc._text import count_text, size_text
from pymdc.bridge.admin.backup import Copying
from pymdc.bridge.admin.closing_down import is_closed
from pymdc.bridge.admin.damage import Damage
from pymdc.bridge.admin.export import counts_text
from pymdc.bridge.admin.objects import object_sizes, whole_size
from pymdc.bridge.admin.output import Progress, Report
from pymdc.bridge.admin.restore import in_use
from pymdc.bridge.admin.rows import copy_rows, first_filled, shown_rows, snapshot, texts_with_nul
from pymdc.bridge.admin.storage import CommandError, Storage
from pymdc.bridge.admin.verify import file_faults
from pymdc.bridge.settings import BACKUP_ROUNDS, DATABASE, LOCK, OUTBOX
from pymdc.bridge.storage.database import lock_name
from pymdc.bridge.storage.disk import check_owner
from pymdc.bridge.storage.installation import CLOSED, IMPORTING
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import buckets, files, installation, shards, users


def import_(
    storage: Storage, directory: Path, prepare: bool, force: bool, replace_nul: bool
) -> Report:
    """Fill an empty database and an empty store with a bridge's folder, a backup or an export.

    An import that was broken off goes on: objects that are there are not copied again. With
    --prepare nothing but objects is copied, which may be repeated while a bridge serves the folder.
    Each object is checked against its hash when it is copied; if one is damaged, nothing is
    imported, except with --force.
    """
    begun = time.monotonic()
    with ExitStack() as undo:
        source = undo.enter_context(closing(Storage(directory)))
        origin = _check_source(source, prepare, storage, replace_nul)
        undo.enter_context(in_use(directory))
        if not prepare and (directory / LOCK).exists():
            undo.enter_context(source.unserved())
        undo.enter_context(_reserved(storage))
        if not undo.enter_context(storage.database.exclusive("import")):
            raise CommandError(f"another import into {storage.place} is running")
        objects, identity = _claim(storage, origin)
        copying = undo.enter_context(closing(Copying(source, objects, "Imported")))
        for _ in range(BACKUP_ROUNDS):
            if copying.bring(source.database.read):
                break
        with snapshot(source.database) as connection:
            damage = copying.damage(connection)
            value = _counts(connection) | {"copied": copying.copied, "copied_size": copying.size}
            value["there"] = value["objects"] - len(damage) - copying.copied
            if prepare:
                objects.sync()
                return _prepared(storage, source, value, damage, begun)
            if damage and not force:
                return damage.refusal(directory, "No rows are imported", "imports")
            _compare_objects(connection, objects, damage)
            # Not later: once the rows are there, a bridge may start, and store objects of its own.
            copying.delete_unneeded(connection)
            objects.sync()
            value["rows"] = _write_rows(storage, connection, identity, replace_nul)
        value |= {"closed": is_closed(source), "seconds": round(time.monotonic() - begun, 3)}
        text = _text(storage, directory, value, damage)
        return Report(value | {"damaged": damage.json()}, text, not damage)


def _check_source(source: Storage, prepare: bool, target: Storage, replace_nul: bool) -> str:
    """Return the id of the source; raise `CommandError` unless it can be imported."""
    directory = source.path
    try:
        (directory / DATABASE).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CommandError(
            f"{directory} is no folder of a bridge, a backup or an export: it has no {DATABASE}"
        ) from None
    in_folder = target.has_file or target.has_shards
    if in_folder and target.path.resolve() == directory.resolve():
        raise CommandError(
            f"{directory} is where to import to, too: --database and --store, or --data, say where"
        )
    if not prepare and source.is_served():
        raise CommandError(
            f"a bridge is running on {directory}: stop it first; --prepare copies objects meanwhile"
        )
    with source.database.read() as connection:
        if faults := file_faults(connection):
            raise CommandError(f"the database in {directory} is damaged: {shown_rows(faults)}")
        found = connection.execute(sa.select(installation.c.id)).scalar() or ""
        refused = [] if target.has_file or replace_nul else texts_with_nul(connection)
    if refused:
        raise CommandError(
            f"PostgreSQL stores no NUL, which is in {shown_rows(refused)}:"
            " --replace-nul puts U+FFFD in its place"
        )
    origin = found.removeprefix(CLOSED)
    stored = source.objects.installation()
    if (stored or "") != origin:
        raise CommandError(
            f"the objects in {directory} are not those of its database: their id is {stored}"
        )
    return origin


@contextmanager
def _reserved(storage: Storage) -> Iterator[None]:
    """Open the target, and keep bridges from starting in its folder; refuse if one runs."""
    if storage.has_file or storage.has_shards:
        storage.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_owner(storage.path)
    with ExitStack() as undo:
        if storage.has_file:
            undo.enter_context(storage.unserved())
        storage.create_database()
        if not storage.has_file:
            undo.enter_context(storage.unserved())
        yield


def _claim(storage: Storage, origin: str) -> tuple[ObjectStore, str]:
    """Let the target say that *origin* is being imported; return its store and its own id.

    Raises `CommandError` unless it is empty, or the beginning of the same import.
    """
    objects = storage.open_objects()
    with storage.database.write() as connection:
        lock_name(connection, "installation")
        found = connection.execute(sa.select(installation.c.id)).scalar()
        stored = objects.installation()
        if table := first_filled(connection):
            raise CommandError(
                f"the database {storage.place} is not empty: it has {table.replace('_', ' ')};"
                " if an import was broken off there, it had written all rows before"
            )
        if found is not None and found.startswith(IMPORTING):
            identity, _, begun = found.removeprefix(IMPORTING).partition(":")
            if begun != origin:
                raise CommandError(f"the import of another bridge into {storage.place} was begun")
            if stored not in (None, identity):
                raise CommandError("the import was begun with another store")
        else:
            if any(objects.names()):
                raise CommandError("the store is not empty: it has objects")
            if stored not in (None, found):
                raise CommandError(f"the store belongs to another database: its id is {stored}")
            if found is not None and found.startswith(CLOSED):
                raise CommandError(f"{storage.place} is closed: admin reopen opens it")
            # Another one than before, if a bridge began with another store.
            identity = stored or secrets.token_hex(16)
            connection.execute(sa.delete(installation))
            row = {"id": f"{IMPORTING}{identity}:{origin}", "stored": True}
            connection.execute(sa.insert(installation).values(**row))
    if stored is None:
        objects.set_installation(identity)
    return objects, identity


def _compare_objects(connection: sa.Connection, objects: ObjectStore, damage: Damage) -> None:
    """Raise `CommandError` unless the store lists each object with its size."""
    listed = {entry.name: entry.size for page in objects.entries() for entry in page}
    damaged = {*damage.objects()}
    for name, size in object_sizes(connection):
        if listed.get(name) != size and name not in damaged:
            raise CommandError(f"the store does not list the object {name}: give the command again")


def _write_rows(
    storage: Storage, source: sa.Connection, identity: str, replace_nul: bool
) -> dict[str, int]:
    """Write all rows, and that the import is complete, in one transaction; return the counts."""
    with storage.database.write() as connection, closing(Progress("Imported")) as progress:
        lock_name(connection, "installation")
        found = connection.execute(sa.select(installation.c.id)).scalar_one()
        if not found.startswith(f"{IMPORTING}{identity}:") or first_filled(connection):
            raise CommandError(f"{storage.place} was changed meanwhile; nothing is imported")
        rows = copy_rows(source, connection, progress, replace_nul=replace_nul)
        connection.execute(sa.update(installation).values(id=identity))
    return rows


def _counts(connection: sa.Connection) -> dict[str, Any]:
    tables = {"users": users, "buckets": buckets, "files": files, "objects": shards}
    count = sa.select(sa.func.count())
    counts = {
        name: connection.execute(count.select_from(table)).scalar_one()
        for name, table in tables.items()
    }
    return counts | {"size": whole_size(connection)}


def _prepared(
    storage: Storage, source: Storage, value: dict[str, Any], damage: Damage, begun: float
) -> Report:
    value["seconds"] = round(time.monotonic() - begun, 3)
    lines = [f"Prepared {storage.place}: {_copied_text(value)}"]
    if damage:
        lines += [f"{count_text(len(damage), 'object')} cannot be used:", *damage.lines()]
    lines.append(f"Stop the bridge on {source.path}, and import without --prepare.")
    return Report(value | {"damaged": damage.json()}, "\n".join(lines), not damage)


def _text(storage: Storage, source: Path, value: dict[str, Any], damage: Damage) -> str:
    copied = _copied_text(value)
    lines = [
        f"Imported {source} into {storage.place}: {counts_text(value)}.",
        f"{copied[0].upper()}{copied[1:]}",
    ]
    if damage:
        lines += [f"Without {count_text(len(damage), 'object')}:", *damage.lines()]
    if mails := len([*(source / OUTBOX).glob("*.eml")]):
        lines.append(f"Left in {source / OUTBOX}: {count_text(mails, 'mail')}.")
    if not value["closed"] and (source / LOCK).exists():
        lines.append(
            f"A bridge could still start on {source}: admin close --data {source} prevents it."
        )
    return "\n".join(lines)


def _copied_text(value: dict[str, Any]) -> str:
    return (
        f"copied {count_text(value['copied'], 'object')}, {size_text(value['copied_size'])},"
        f" in {value['seconds']:.1f} s; {value['there']:,} were there."
    )

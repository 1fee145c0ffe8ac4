"""``export``: all that a bridge has, whatever it stands on, in the format of a backup.

The database is read in one snapshot. An object that the snapshot names may be deleted before it is
copied: then a later snapshot is taken, which does not name it.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pymdc._text import count_text, size_text
from pymdc.bridge.admin.backup import Copying, check_directory, locked, replaced_database
from pymdc.bridge.admin.closing_down import is_closed
from pymdc.bridge.admin.damage import Damage
from pymdc.bridge.admin.objects import whole_size
from pymdc.bridge.admin.output import Progress, Report
from pymdc.bridge.admin.rows import copy_rows, snapshot
from pymdc.bridge.admin.storage import CommandError, Storage
from pymdc.bridge.settings import BACKUP_ROUNDS, DATABASE, EXPORT_ROUNDS, SHARDS
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.sqlite import SQLiteDatabase
from pymdc.bridge.storage.tables import installation


def export(storage: Storage, directory: Path) -> Report:
    """Copy a bridge into a folder, which is then that of a bridge; also while bridges serve.

    What is in the folder already is not copied again. The export before stays valid until this one
    is complete. Each object is checked against its hash when it is copied.
    """
    begun = time.monotonic()
    check_directory(storage, directory)
    target = FolderStore(directory / SHARDS, fsync=True)
    if (directory / DATABASE).exists() and target.installation() == storage.objects.installation():
        raise CommandError(f"{directory} is a backup; an export needs a folder of its own")
    with locked(directory), closing(Copying(storage, target, "Exported")) as copying:
        for _ in range(BACKUP_ROUNDS):
            if copying.bring(storage.database.read):
                break
        for _ in range(EXPORT_ROUNDS):
            with snapshot(storage.database) as connection:
                copying.bring(lambda: nullcontext(connection))
                damage = copying.damage(connection)
                if damage and _is_outdated(storage, copying, damage):
                    continue
                value = _save(storage, connection, directory, target)
                value["deleted"] = copying.delete_unneeded(connection)
            break
        else:
            raise CommandError(
                "files are deleted before they can be copied: stop the bridges first"
            )
    value |= {"copied": copying.copied, "copied_size": copying.size, "closed": is_closed(storage)}
    value["seconds"] = round(time.monotonic() - begun, 3)
    text = _text(storage, directory, value, damage)
    return Report(value | {"damaged": damage.json()}, text, not damage)


def _is_outdated(storage: Storage, copying: Copying, damage: Damage) -> bool:
    """Say whether a row of *damage* was deleted meanwhile."""
    with storage.database.read() as connection:
        return len(copying.damage(connection)) < len(damage)


def _save(
    storage: Storage, connection: sa.Connection, directory: Path, target: FolderStore
) -> dict[str, Any]:
    """Put the snapshot of *connection* into *directory*; return counts."""
    identity = _identity(storage, target)
    try:
        with replaced_database(directory) as new, closing(Progress("Exported")) as progress:
            with closing(SQLiteDatabase(new, temporary=True)) as database:
                with database.write() as copy:
                    rows = copy_rows(connection, copy, progress)
                    row = {"id": identity, "stored": True}
                    copy.execute(sa.insert(installation).values(**row))
                    size = whole_size(copy)
            with closing(sqlite3.connect(new)) as copied:
                copied.execute("PRAGMA journal_mode=DELETE")  # else it is not one file
    except sa.exc.OperationalError as error:
        raise CommandError(f"{directory} can't be written: {error.orig}") from None
    return {"users": rows["users"], "buckets": rows["buckets"], "files": rows["files"]} | {
        "objects": rows["shards"],
        "size": size,
        "rows": rows,
    }


def _identity(storage: Storage, target: FolderStore) -> str:
    """Return the id of the export, which is another one than that of the bridge."""
    identity = target.installation()
    if identity is None or identity == storage.objects.installation():  # of a broken-off backup
        identity = secrets.token_hex(16)
        target.set_installation(identity)
    target.sync()  # the names of the objects are on the disk; their bytes are already
    return identity


def _text(storage: Storage, directory: Path, value: dict[str, Any], damage: Damage) -> str:
    lines = [
        f"Exported {storage.place} to {directory}: {counts_text(value)}.",
        f"Copied {count_text(value['copied'], 'object')}, {size_text(value['copied_size'])},"
        f" and deleted {value['deleted']:,}, in {value['seconds']:.1f} s.",
    ]
    if damage:
        lines.append(f"{count_text(len(damage), 'object')} could not be copied:")
        lines += damage.lines()
    if not value["closed"]:
        lines.append("It is not closed: what is stored there from now on is not in the export.")
    return "\n".join(lines)


def counts_text(value: dict[str, Any]) -> str:
    """Return how much there is, for people."""
    kinds = "users", "buckets", "files", "objects"
    counts = (count_text(value[kind], kind[:-1]) for kind in kinds)
    return f"{', '.join(counts)}, {size_text(value['size'])}"

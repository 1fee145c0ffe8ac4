"""``backup``: the database and its objects, consistent, while a bridge runs.

A bridge deletes an object after the transaction that deletes its row. While the backup holds the
database's write lock, no row is deleted, and so every object stays that a snapshot taken under the
lock names. Most objects are copied before, without the lock; under the lock only those that have
come meanwhile.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pymdc._text import count_text, size_text
from pymdc.bridge.admin.damage import Damage
from pymdc.bridge.admin.objects import (
    DamagedError,
    Read,
    copy_installation,
    copy_objects,
    find_shards,
    object_sizes,
    whole_size,
)
from pymdc.bridge.admin.output import Progress, Report
from pymdc.bridge.admin.storage import CommandError, Storage, need_folder, one_line
from pymdc.bridge.settings import (
    BACKUP_FEW,
    BACKUP_LOCK,
    BACKUP_ROUNDS,
    BACKUP_SMALL,
    DATABASE,
    LOCK,
    SHARDS,
)
from pymdc.bridge.storage.disk import DiskFullError, lock, private, sync_file, sync_folder
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import Shard, batches, files, objects_in_use, shards, users

_NEW = "new"
_OURS = {DATABASE, _NEW, SHARDS, BACKUP_LOCK, "lost+found"}
_EXPECTED = "expected an empty folder, an earlier backup or export"


def backup(storage: Storage, directory: Path) -> Report:
    """Bring the backup in a folder up to date, also while the bridge serves.

    The first backup copies everything, each further one only what is new. The backup before stays
    valid until this one is complete.
    """
    need_folder(
        storage, "admin export writes the same; or use pg_dump, and then copy what is in the store"
    )
    try:
        return _backup(storage, directory)
    except DiskFullError:
        raise CommandError("the disk of the backup is full; the backup before is kept") from None


def _backup(storage: Storage, directory: Path) -> Report:
    begun = time.monotonic()
    check_directory(storage, directory)
    target = FolderStore(directory / SHARDS, fsync=True)
    with locked(directory), closing(Copying(storage, target, "Copied")) as copying:
        for _ in range(BACKUP_ROUNDS):
            if copying.bring(storage.database.read):
                break
        with storage.database.read() as connection:
            with storage.database.write():
                begin = time.monotonic()
                # The snapshot of *connection* begins here, with its first statement.
                copying.bring(lambda: nullcontext(connection))
                held = time.monotonic() - begin
            copy_installation(storage.objects, target)
            target.sync()  # their names are on the disk; their bytes are already
            _save_database(connection, directory)
            damage = copying.damage(connection)
            value = _counts(connection)
            value["deleted"] = copying.delete_unneeded(connection)
    value |= {"copied": copying.copied, "copied_size": copying.size}
    value |= {"lock_seconds": round(held, 3), "seconds": round(time.monotonic() - begun, 3)}
    text = _text(storage, directory, value, damage)
    return Report(value | {"damaged": damage.json()}, text, not damage)


class Copying:
    """Copies objects into another store, which no bridge uses; *doing* is for the progress."""

    def __init__(self, storage: Storage, target: ObjectStore, doing: str) -> None:
        self.copied = self.size = 0  # objects, bytes
        self._source = storage.objects
        self._target = target
        self._target.delete_half_written()
        # The sizes of the objects that are copied, or cannot be.
        self._done = {entry.name: entry.size for page in target.entries() for entry in page}
        self._faults: dict[Shard, DamagedError] = {}
        self._progress = Progress(doing)

    def bring(self, read: Read) -> bool:
        """Copy the objects that the backup does not have; say whether they were few."""
        copied, size = self.copied, self.size
        with read() as connection:
            sizes = object_sizes(connection)
            missing = {name: size for name, size in sizes if self._done.get(name) != size}
        whole = self.size + sum(missing.values())
        for names in batches([*missing]):
            with read() as connection:
                found = find_shards(connection, names)
            faults = self._copy(found, whole)
            # An object that is deleted or replaced has lost its row before.
            with read() as connection:
                found = find_shards(connection, [shard.object for shard in faults])
            self._faults |= {shard: faults[shard] for shard in found}
            self._done.update((shard.object, shard.size) for shard in found)
        return self.copied - copied <= BACKUP_FEW and self.size - size <= BACKUP_SMALL

    def damage(self, connection: sa.Connection) -> Damage:
        """Return the objects that could not be copied, if the database names them still."""
        damage = Damage()
        for names in batches([shard.object for shard in self._faults]):
            for shard in find_shards(connection, names):
                damage.add(shard, self._faults[shard])
        damage.find_files(connection)
        return damage

    def delete_unneeded(self, connection: sa.Connection) -> int:
        """Delete the objects that only an earlier backup needed; return their number."""
        number = 0
        for names in self._target.names():
            unneeded = {*names} - objects_in_use(connection, names)
            self._target.delete(unneeded)
            number += len(unneeded)
        return number

    def close(self) -> None:
        """End the display of the progress."""
        self._progress.close()

    def _copy(self, found: Sequence[Shard], whole: int) -> dict[Shard, DamagedError]:
        """Copy objects, of *whole* bytes in all; return those that could not be copied."""
        faults: dict[Shard, DamagedError] = {}
        for shard, fault in copy_objects(self._source, self._target, found):
            if fault is not None:
                faults[shard] = fault
                continue
            self._done[shard.object] = shard.size
            self.copied += 1
            self.size += shard.size
            self._progress.show(self.size, whole)
        return faults


def _counts(connection: sa.Connection) -> dict[str, Any]:
    count = sa.select(sa.func.count())
    return {
        "files": connection.execute(count.select_from(files)).scalar_one(),
        "objects": connection.execute(count.select_from(shards)).scalar_one(),
        "size": whole_size(connection),
    }


def check_directory(storage: Storage, directory: Path) -> None:
    """Create *directory*; refuse one that is not for backups of this bridge."""
    assert storage.database  # else there is nothing to copy
    ours, theirs = storage.path.resolve(), directory.resolve()
    in_folder = storage.has_file or storage.has_shards
    if in_folder and (ours == theirs or ours in theirs.parents or theirs in ours.parents):
        raise CommandError(f"{directory} and the data folder have to be apart")
    try:
        directory.mkdir(mode=0o700, exist_ok=True)  # not its parents: its disk may not be mounted
    except FileNotFoundError:
        raise CommandError(f"{directory.parent} is missing; is a disk not mounted?") from None
    except FileExistsError:
        raise CommandError(f"{directory} is not a folder") from None
    names = set(os.listdir(directory))
    if LOCK in names:
        raise _is_served(directory)
    if DATABASE not in names and names - _OURS:
        raise CommandError(f"{directory} is neither empty nor a backup; {_EXPECTED}")
    if DATABASE in names and not _have_users_in_common(storage, directory / DATABASE):
        raise CommandError(
            f"{directory} is a backup of other users, and would be replaced:"
            " use another folder, or move that backup away"
        )


def _have_users_in_common(storage: Storage, earlier: Path) -> bool:
    """Say whether the bridge has a user of an *earlier* backup, or the backup has no users.

    If not, it is the backup of another bridge, or this bridge has lost its data.
    """
    # Immutable, else SQLite would create files beside it.
    url = f"{earlier.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(url, uri=True)) as backed_up:
            had = set(backed_up.execute("SELECT email, created FROM users"))
    except sqlite3.DatabaseError as error:
        raise CommandError(f"{earlier} can't be read: {error}") from error
    with storage.database.read() as connection:
        has = connection.execute(sa.select(*users.c["email", "created"])).all()
    return not had or any(tuple(row) in had for row in has)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep bridges and other backups out of *directory* while the block runs."""
    with open(directory / BACKUP_LOCK, "ab", opener=private) as file:
        if not lock(file):
            raise CommandError(f"another backup or restore is using {directory}")
        if (directory / LOCK).exists():  # a bridge was started there since it was checked
            raise _is_served(directory)
        yield


def _is_served(directory: Path) -> CommandError:
    return CommandError(f"{directory} is the data folder of a bridge; {_EXPECTED}")


def _save_database(connection: sa.Connection, directory: Path) -> None:
    """Put the snapshot of *connection* into *directory*, in place of the one before."""
    source: Any = connection.connection.driver_connection
    with replaced_database(directory) as new, closing(sqlite3.connect(new)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # else it is not one file
        with target:  # an upload that was under way may be a file by the time this is put back
            target.execute("UPDATE uploads SET started = 0")
        fault = str(target.execute("PRAGMA quick_check(1)").fetchone()[0])
        if fault != "ok":
            raise CommandError(
                f"the database is damaged: {one_line(fault)}; the backup before is kept"
            )


@contextmanager
def replaced_database(directory: Path) -> Iterator[Path]:
    """Give a new file; after the block it is put in place of the database in *directory*."""
    staging = directory / _NEW
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o700)
    new = staging / DATABASE
    try:
        new.touch(mode=0o600, exist_ok=False)
        yield new
        sync_file(new)
        for end in ("-wal", "-shm", "-journal"):  # of a command that was killed there
            (directory / f"{DATABASE}{end}").unlink(missing_ok=True)
        new.replace(directory / DATABASE)
    except sqlite3.OperationalError as error:
        raise CommandError(f"{new} can't be written: {error}; the backup before is kept") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_folder(directory)


def _text(storage: Storage, directory: Path, value: dict[str, Any], damage: Damage) -> str:
    lines = [
        f"Backup of {storage.path} in {directory}: {count_text(value['files'], 'file')},"
        f" {count_text(value['objects'], 'object')}, {size_text(value['size'])}.",
        f"Copied {count_text(value['copied'], 'new object')}, {size_text(value['copied_size'])},"
        f" and deleted {value['deleted']:,}, in {value['seconds']:.1f} s;"
        f" requests waited for {value['lock_seconds']:.2f} s.",
    ]
    if damage:
        lines.append(f"{count_text(len(damage), 'object')} could not be copied:")
        lines += damage.lines()
    return "\n".join(lines)

"""``restore``: a data folder out of a backup."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pymdc._text import count_text, size_text
from pymdc.bridge.admin.damage import Damage
from pymdc.bridge.admin.objects import copy_installation, copy_objects, shard_pages, whole_size
from pymdc.bridge.admin.output import Progress, Report
from pymdc.bridge.admin.storage import CommandError, Storage, need_folder, one_line
from pymdc.bridge.settings import BACKUP_LOCK, DATABASE, LOCK, SHARDS
from pymdc.bridge.storage.disk import (
    DiskFullError,
    check_owner,
    lock,
    private,
    sync_file,
    sync_folder,
)
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.schema import OtherSchemaError, check_schema
from pymdc.bridge.storage.tables import files

_STAGING = "restoring"
_MAY_BE_THERE = {LOCK, "lost+found"}
# What is good for minutes, and once: it may have been used after the backup.
_SHORT_LIVED = ("tokens", "pointers")


def restore(storage: Storage, directory: Path, force: bool) -> Report:
    """Fill an empty data folder with a backup, after each of its objects has been checked.

    With --force also if objects are missing or damaged: the files that need them are then lost
    until they are uploaded again, and the others are whole.
    """
    need_folder(storage, "admin import fills others")
    begun = time.monotonic()
    try:
        (directory / DATABASE).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CommandError(f"{directory} is no complete backup: it has no {DATABASE}") from None
    with _reserved(storage.path), in_use(directory):
        staging = storage.path / _STAGING
        staging.mkdir(mode=0o700)
        try:
            value, damage = _stage(directory, staging)
            if damage and not force:
                return damage.refusal(directory, "Nothing is restored", "restores")
            _put_in_place(staging, storage.path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    value["seconds"] = round(time.monotonic() - begun, 3)
    lines = [
        f"Restored {storage.path}: {count_text(value['files'], 'file')},"
        f" {count_text(value['objects'], 'object')}, {size_text(value['size'])},"
        f" in {value['seconds']:.1f} s."
    ]
    if damage:
        lines += [f"Without {count_text(len(damage), 'object')}:", *damage.lines()]
    return Report(value | {"damaged": damage.json()}, "\n".join(lines), not damage)


@contextmanager
def _reserved(path: Path) -> Iterator[None]:
    """Keep bridges out of the data folder *path* while the block runs; it has to be empty."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_owner(path)
    with open(path / LOCK, "ab", opener=private) as file:
        if not lock(file):
            raise CommandError(f"a bridge is running on {path}: stop it first")
        names = set(os.listdir(path)) - _MAY_BE_THERE
        if _STAGING in names and DATABASE not in names:  # a restore was broken off
            for name in names & {_STAGING, SHARDS}:
                shutil.rmtree(path / name)
            names -= {_STAGING, SHARDS}
        if names:
            raise CommandError(
                f"{path} is not empty: move away what is there ({min(names)}), then restore"
            )
        path.chmod(0o700)
        yield


@contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """Keep backups out of *directory* while the block runs."""
    try:
        file = open(directory / BACKUP_LOCK, "rb")  # noqa: SIM115  # closed below
    except FileNotFoundError:  # it was copied, without the lock
        yield
        return
    with file:
        if not lock(file, shared=True):
            raise CommandError(f"a backup into {directory} is running")
        yield


def _stage(directory: Path, staging: Path) -> tuple[dict[str, Any], Damage]:
    """Copy the whole backup into *staging*, and check it; return counts and the damage."""
    copy = staging / DATABASE
    shutil.copyfile(directory / DATABASE, copy)
    copy.chmod(0o600)
    source = FolderStore(directory / SHARDS, fsync=False)
    target = FolderStore(staging / SHARDS, fsync=True)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(copy)))
    damage = Damage()
    try:
        with engine.begin() as connection, closing(Progress("Restored")) as progress:
            _check_database(connection)
            size, whole, number = 0, whole_size(connection), 0
            for page in shard_pages(engine.connect):
                for shard, fault in copy_objects(source, target, page):
                    if fault:
                        damage.add(shard, fault)
                    else:
                        size, number = size + shard.size, number + 1
                        progress.show(size, whole)
            damage.find_files(connection)
            for table in _SHORT_LIVED:
                connection.execute(sa.text(f"DELETE FROM {table}"))
            count = sa.select(sa.func.count()).select_from(files)
            found = {"files": connection.execute(count).scalar_one()}
    except DiskFullError:
        raise CommandError("the disk is full; nothing is restored") from None
    finally:
        engine.dispose()
    copy_installation(source, target)
    target.sync()
    sync_file(copy)
    return found | {"objects": number, "size": size}, damage


def _check_database(connection: sa.Connection) -> None:
    try:
        check_schema(connection, older=True)
        fault = str(connection.execute(sa.text("PRAGMA integrity_check(1)")).scalar())
    except OtherSchemaError as error:
        raise CommandError(f"the database of the backup can't be used: {error}") from None
    except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
        raise CommandError(
            f"the database of the backup can't be used: {one_line(error)}"
        ) from error
    if fault != "ok":
        raise CommandError(f"the database of the backup is damaged: {one_line(fault)}")


def _put_in_place(staging: Path, path: Path) -> None:
    """Move what is staged to its place, the database last."""
    (staging / SHARDS).rename(path / SHARDS)
    sync_folder(path)
    if (path / DATABASE).exists():
        shutil.rmtree(path / SHARDS)
        raise CommandError(f"a bridge was started on {path} meanwhile: stop it, and remove {path}")
    (staging / DATABASE).rename(path / DATABASE)
    sync_folder(path)

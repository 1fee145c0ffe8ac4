"""``verify``: every object against its hash, objects that nobody needs, and sums."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from contextlib import closing, suppress
from typing import Any

import sqlalchemy as sa

from pymdc._text import count_text, printable, size_text
from pymdc.bridge.admin.damage import Damage
from pymdc.bridge.admin.objects import DamagedError, read_object, shard_pages, whole_size
from pymdc.bridge.admin.output import Progress, Report
from pymdc.bridge.admin.storage import Storage, one_line
from pymdc.bridge.settings import VERIFY_PAUSE
from pymdc.bridge.storage.database import has_one_writer
from pymdc.bridge.storage.objects import upload_of
from pymdc.bridge.storage.tables import (
    Shard,
    buckets,
    file_shards,
    files,
    objects_in_use,
    shards,
    uploads,
)

_FILES_SIZE = sa.func.coalesce(
    sa.select(sa.func.sum(files.c.size)).where(files.c.bucket == buckets.c.id).scalar_subquery(), 0
)
_FILES = (
    sa.select(sa.func.count())
    .select_from(files)
    .where(files.c.bucket == buckets.c.id)
    .scalar_subquery()
)
_MISCOUNTED = sa.and_(
    buckets.c.removed.is_(None), sa.or_(buckets.c.used != _FILES_SIZE, buckets.c.files != _FILES)
)


def verify(storage: Storage, repair: bool) -> Report:
    """Check each object against its hash; find missing and unneeded objects, and wrong sums.

    --repair sets wrong and unneeded objects aside, in a folder of their own, and corrects sums.
    A file whose object is missing or set aside is whole again once anybody uploads the same
    content.
    """
    begun = time.monotonic()
    suspects = _objects_without_row(storage)
    damage, checked = _check_objects(storage)
    orphans = _orphans(storage, suspects, begun)
    with storage.database.read() as connection:
        faults = _database_faults(connection)
        miscounted = connection.execute(sa.select(buckets.c.id).where(_MISCOUNTED)).scalars().all()
        damage.find_files(connection)
    value: dict[str, Any] = checked | {
        "damaged": damage.json(),
        "orphans": [{"object": name, "size": size} for name, size in orphans.items()],
        "database": faults,
        "miscounted": miscounted,
        "set_aside": 0,
        "seconds": round(time.monotonic() - begun, 3),
    }
    sound = not (damage or orphans or faults or miscounted)
    text = _text(value, damage)
    if repair and not sound:
        value["set_aside"], place = _repair(storage, [*damage.objects(), *orphans])
        text += f"\n{_repair_text(value, place)}"
    return Report(value, text, sound)


def _check_objects(storage: Storage) -> tuple[Damage, dict[str, int]]:
    """Read all objects; return those that are damaged, and how many there are."""
    damage, number, size = Damage(), 0, 0
    with storage.database.read() as connection:
        whole = whole_size(connection)
    with closing(Progress("Verified")) as progress:
        for page in shard_pages(storage.database.read):
            for shard in page:
                number, size = number + 1, size + shard.size
                try:
                    deque(read_object(storage.objects, shard), maxlen=0)
                except DamagedError as damaged:
                    if _is_needed(storage, shard):
                        damage.add(shard, damaged)
                progress.show(size, whole)
    return damage, {"objects": number, "size": size}


def _is_needed(storage: Storage, shard: Shard) -> bool:
    """Say whether the object was not deleted or replaced meanwhile: its row goes first."""
    this = sa.exists().where(shards.c.hash == shard.hash, shards.c.object == shard.object)
    with storage.database.read() as connection:
        return bool(connection.execute(sa.select(this)).scalar())


def _objects_without_row(storage: Storage) -> set[str]:
    """Return the objects without a row that belong to no upload on its way."""
    found: set[str] = set()
    for names in storage.objects.names():
        found |= _without_row(storage, names)
    if not (found and storage.may_be_served()):
        return found
    with storage.database.read() as connection:
        on_their_way = {*connection.execute(sa.select(uploads.c.id)).scalars()}
    return {name for name in found if upload_of(name) not in on_their_way}


def _without_row(storage: Storage, names: Collection[str]) -> set[str]:
    with storage.database.read() as connection:
        return {*names} - objects_in_use(connection, [*names])


def _orphans(storage: Storage, suspects: set[str], begun: float) -> dict[str, int]:
    """Return those *suspects* that are there still, and their sizes."""
    if suspects and storage.may_be_served():
        time.sleep(max(0.0, begun + VERIFY_PAUSE - time.monotonic()))
    sizes = {name: storage.objects.size(name) for name in sorted(_without_row(storage, suspects))}
    return {name: size for name, size in sizes.items() if size is not None}


def _database_faults(connection: sa.Connection) -> list[str]:
    """Return what SQLite finds wrong, and files whose shards do not add up to their size."""
    faults = file_faults(connection) if has_one_writer(connection) else []
    parts = sa.select(sa.func.sum(shards.c.size)).select_from(file_shards.join(shards))
    sum_of_parts = parts.where(file_shards.c.file == files.c.number).scalar_subquery()
    wrong = sa.select(files).where(files.c.size != sa.func.coalesce(sum_of_parts, 0))
    for file in connection.execute(wrong).mappings():
        faults.append(
            f"the shards of {printable(file['filename'])} ({file['hash']}) in {file['bucket']}"
            f" do not add up to {file['size']:,} bytes"
        )
    return faults


def file_faults(connection: sa.Connection) -> list[str]:
    """Return what SQLite finds wrong in its file."""
    checked = connection.execute(sa.text("PRAGMA integrity_check(20)")).scalars()
    faults = [one_line(line) for line in checked if line != "ok"]
    for table, row, parent, _ in connection.execute(sa.text("PRAGMA foreign_key_check")):
        faults.append(f"row {row} of {table} refers to a row of {parent} that is missing")
    return faults


def _repair(storage: Storage, objects: list[str]) -> tuple[int, str]:
    """Set *objects* aside and correct the sums; return how many were set aside, and where."""
    number, place = 0, ""
    for name in objects:
        with suppress(FileNotFoundError):
            place = storage.objects.set_aside([name])
            number += 1
    with storage.database.write() as connection:
        right = {"used": _FILES_SIZE, "files": _FILES}
        connection.execute(sa.update(buckets).where(_MISCOUNTED).values(right))
    return number, place


def _text(value: dict[str, Any], damage: Damage) -> str:
    lines = [
        f"Checked {count_text(value['objects'], 'object')}, {size_text(value['size'])},"
        f" in {value['seconds']:.1f} s."
    ]
    if damage:
        verb = "is" if len(damage) == 1 else "are"
        lines += [f"{count_text(len(damage), 'object')} {verb} damaged:", *damage.lines()]
    if orphans := value["orphans"]:
        size = size_text(sum(orphan["size"] for orphan in orphans))
        lines.append(f"{count_text(len(orphans), 'object')} ({size}) that no file needs.")
    if value["miscounted"]:
        lines.append(f"Wrong sums of files in: {', '.join(value['miscounted'])}.")
    if value["database"]:
        lines += ["Faults in the database:", *(f"  {fault}" for fault in value["database"])]
    if len(lines) == 1:
        lines.append("Everything is whole.")
    return "\n".join(lines)


def _repair_text(value: dict[str, Any], place: str) -> str:
    lines = []
    if value["set_aside"]:
        number = count_text(value["set_aside"], "object")
        lines.append(f"Set aside {number} in {place}.")
    if value["damaged"]:
        lines.append("The files above are whole again once the same content is uploaded again.")
    if value["miscounted"]:
        lines.append("The sums are corrected.")
    if value["database"]:
        lines.append("The database is not repaired: restore a backup.")
    return "\n".join(lines)

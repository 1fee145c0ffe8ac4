"""``buckets`` and ``usage``: what is stored and sent, and how much of it is allowed."""

from __future__ import annotations

import shutil
from typing import Any

import sqlalchemy as sa

from pymdc._text import quota_text, size_text
from pymdc.bridge.admin.lists import bucket_rows, find_user, month, user_rows
from pymdc.bridge.admin.output import Report, table, time_text
from pymdc.bridge.admin.storage import CommandError, Storage
from pymdc.bridge.context import iso_time
from pymdc.bridge.js_number import json_number
from pymdc.bridge.settings import DATABASE
from pymdc.bridge.storage.tables import buckets, shards, total, transfers

_HEAD = (
    *("user", "bucket", "name", "created (UTC)"),
    *(">files", ">stored", ">of", ">sent this month", ">of"),
)
_SENT = total(transfers.c.size)


def list_buckets(storage: Storage, user: str | None) -> Report:
    """List the buckets: what they hold, what they have sent in this month (UTC), their quotas."""
    with storage.database.read() as connection:
        if user is not None:
            find_user(connection, user)
        rows = bucket_rows(connection, email=user)
    text = table(_HEAD, map(_bucket_cells, rows))
    return Report([_bucket_json(row) for row in rows], text)


def set_quota(storage: Storage, /, bucket: str, **quotas: float | None) -> Report:
    """Set how much a bucket may store, and send in each month, in GB; `none` is without limit."""
    if not quotas:
        raise CommandError("nothing to set: give --storage, --transfer or both", status=2)
    with storage.database.write() as connection:
        this = sa.update(buckets).where(buckets.c.id == bucket.lower(), buckets.c.removed.is_(None))
        if not connection.execute(this.values(**quotas)).rowcount:
            raise CommandError(f"there is no bucket {bucket}; buckets list shows all")
        [row] = bucket_rows(connection, bucket=bucket.lower())
    store, send = (quota_text(row[name], "without limit") for name in ("storage", "transfer"))
    text = f"{row['id']} may store {store}, and send {send} each month."
    return Report(_bucket_json(row), text)


def show_usage(storage: Storage) -> Report:
    """Show what is stored in all, what it takes on the disk, and how much each user stores.

    Content that is stored twice takes room once. Room for uploads on their way is not counted.
    Of a store that is not in the folder nobody knows how much is free.
    """
    with storage.database.read() as connection:
        everybody = user_rows(connection)
        sent = connection.execute(sa.select(_SENT).where(transfers.c.month == month())).scalar_one()
        counted = sa.select(sa.func.count(), total(shards.c.size))
        objects, size = connection.execute(counted.select_from(shards)).one()
    names = ("buckets", "files", "used")
    sums = {name: sum(row[name] for row in everybody) for name in names}
    # In a store elsewhere nobody knows.
    disk = shutil.disk_usage(storage.path) if storage.has_shards else None
    value = (
        {"users": len(everybody)}
        | sums
        | {
            "sent_this_month": sent,
            "objects": objects,
            "objects_size": size,
            "database_size": database_size(storage),
            "disk_free": disk and disk.free,
            "disk_size": disk and disk.total,
        }
    )
    each = [{name: row[name] for name in ("email", *names)} for row in everybody]
    return Report(value | {"by_user": each}, _usage_text(value, each))


def database_size(storage: Storage) -> int:
    """Return the bytes of the database, with what is not yet written into its file."""
    if not storage.has_file:
        with storage.database.read() as connection:
            size = sa.func.pg_database_size(sa.func.current_database())
            return int(connection.execute(sa.select(size)).scalar_one())
    paths = (storage.path / f"{DATABASE}{end}" for end in ("", "-wal"))
    return sum(path.stat().st_size for path in paths if path.exists())


def _usage_text(value: dict[str, Any], each: list[dict[str, int]]) -> str:
    lines = [
        ("users", f"{value['users']:,}"),
        ("buckets", f"{value['buckets']:,}"),
        ("files", f"{value['files']:,}, {size_text(value['used'])}"),
        ("objects", f"{value['objects']:,}, {size_text(value['objects_size'])}"),
        ("sent this month (UTC)", size_text(value["sent_this_month"])),
        ("database", size_text(value["database_size"])),
    ]
    if value["disk_size"] is not None:
        free = f"{size_text(value['disk_free'])} free of {size_text(value['disk_size'])}"
        lines.append(("disk", free))
    width = max(len(name) for name, _ in lines)
    totals = "\n".join(f"{name:{width}}  {text}" for name, text in lines)
    largest = sorted(each, key=lambda row: -row["used"])
    rows = (
        (row["email"], f"{row['buckets']:,}", f"{row['files']:,}", size_text(row["used"]))
        for row in largest
    )
    return f"{totals}\n\n{table(('user', '>buckets', '>files', '>stored'), rows)}"


def _bucket_cells(row: sa.RowMapping) -> tuple[object, ...]:
    stored, sent = size_text(row["used"]), size_text(row["sent"])
    quotas = (quota_text(row[name]) for name in ("storage", "transfer"))
    return (
        *(row["user"], row["id"], row["name"], time_text(row["created"]), f"{row['files']:,}"),
        *(stored, next(quotas), sent, next(quotas)),
    )


def _bucket_json(row: sa.RowMapping) -> dict[str, object]:
    names = ("id", "user", "name", "files", "used", "sent")
    quotas = {name: json_number(row[name]) for name in ("storage", "transfer")}
    return {name: row[name] for name in names} | quotas | {"created": iso_time(row["created"])}

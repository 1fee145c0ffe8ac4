"""Rows and objects of very many files, and how much room they take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from obstore.store import S3Store
from services import Site

_AT_ONCE = 64
# A hash has 40 digits, and an object's name 32. Each file has one shard of its own.
_FILES = """
    INSERT INTO files (bucket, hash, filename, mimetype, size, created)
    SELECT %(bucket)s::text, left(encode(sha256((%(bucket)s::text || i)::bytea), 'hex'), 40),
        'photos/2026/IMG_' || i || '.jpg', 'image/jpeg', 1000, 1795000000000 + i
    FROM generate_series(1, %(count)s) AS i
"""
_SHARDS = """
    INSERT INTO shards (hash, object, size)
    SELECT hash, md5(hash), size FROM files WHERE bucket = %(bucket)s::text
"""
_PARTS = """
    INSERT INTO file_shards (file, position, shard)
    SELECT number, 0, hash FROM files WHERE bucket = %(bucket)s::text
"""
_USED = "UPDATE buckets SET files = %(count)s, used = 1000 * %(count)s WHERE id = %(bucket)s::text"
_LEFT = "SELECT 1 FROM buckets WHERE id = %s"
_SIZES = """
    SELECT relname, pg_relation_size(oid) FROM pg_class
    WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace
"""


def fill(site: Site, bucket: str, count: int) -> None:
    """Add *count* files of 1,000 bytes to a bucket, without the bridge."""
    values: dict[str, Any] = {"bucket": bucket, "count": count}
    with site.connect() as connection:
        for statement in _FILES, _SHARDS, _PARTS, _USED:
            connection.execute(statement, values)
        select = "SELECT md5(hash) FROM files WHERE bucket = %s"
        names = [name for (name,) in connection.execute(select, [bucket])]
        for table in "files", "shards", "file_shards":
            connection.execute(f"VACUUM ANALYZE {table}")
    asyncio.run(_put(site, names))


async def _put(site: Site, names: list[str]) -> None:
    assert site.store is not None
    variables = site.store.environment
    store = S3Store.from_url(
        site.store.store_url(),
        endpoint=variables["AWS_ENDPOINT_URL"],
        region=variables["AWS_REGION"],
        access_key_id=variables["AWS_ACCESS_KEY_ID"],
        secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )
    remaining = iter(names)

    async def put() -> None:
        for name in remaining:
            await store.put_async(name, os.urandom(1000), use_multipart=False)

    await asyncio.gather(*(put() for _ in range(_AT_ONCE)))


def left(site: Site, bucket: str) -> bool:
    """Say whether there is still something of a bucket."""
    with site.connect() as connection:
        return connection.execute(_LEFT, [bucket]).fetchone() is not None


def sizes(site: Site) -> dict[str, int]:
    """Return the bytes of each table and index, and of the store's own directory of objects."""
    with site.connect() as connection:
        found = dict(connection.execute(_SIZES).fetchall())
    names = (site.folder / "store").rglob("*")
    files = [path for path in names if path.is_file()]
    found["store: names (filer)"] = sum(_size(file) for file in files if "filerldb" in str(file))
    found["store: index (volumes)"] = sum(_size(file) for file in files if file.suffix == ".idx")
    found["store: data (volumes)"] = sum(_size(file) for file in files if file.suffix == ".dat")
    return found


def _size(file: Path) -> int:
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def growth(before: Mapping[str, int], after: Mapping[str, int], count: int) -> str:
    """Return how many bytes each table, index and part of the store has grown for each file."""
    grown = {name: (after[name] - before.get(name, 0)) / count for name in sorted(after)}
    lines = [f"{name}: {size:,.0f}" for name, size in grown.items() if size >= 1]
    total = sum(size for name, size in grown.items() if "store" not in name)
    return "Bytes per file: " + ", ".join(lines) + f"; in PostgreSQL {total:,.0f}."

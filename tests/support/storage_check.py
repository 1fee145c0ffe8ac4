"""What has to be true of every database and its store, once nothing is under way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_WRONG_ROWS = (
    "SELECT shard FROM file_shards EXCEPT SELECT hash FROM shards",
    "SELECT hash FROM shards EXCEPT SELECT shard FROM file_shards",
    "SELECT bucket FROM files EXCEPT SELECT id FROM buckets",
    "SELECT id FROM uploads",
    "SELECT id FROM buckets WHERE removed IS NOT NULL",
    "SELECT id, used, files FROM buckets WHERE (used, files) <> ("
    " SELECT coalesce(sum(size), 0), count(*) FROM files WHERE bucket = id)",
    "SELECT number FROM files WHERE size <> (SELECT coalesce(sum(shards.size), 0)"
    " FROM file_shards JOIN shards ON shard = shards.hash WHERE file = number)",
    "SELECT number FROM files JOIN file_shards ON file = number"
    " GROUP BY number HAVING count(*) <> max(position) + 1",
)


def check_storage(sql: Callable[[str], Iterable[Any]], objects: Iterable[str]) -> None:
    """Check that rows fit each other, and *objects*, the names of all in the store.

    *sql* executes a statement and returns its rows.
    """
    for statement in _WRONG_ROWS:
        assert [*sql(statement)] == [], statement
    needed, stored = {name for [name] in sql("SELECT object FROM shards")}, {*objects}
    assert needed - stored == set(), "lost"
    assert stored - needed == set(), "orphans"

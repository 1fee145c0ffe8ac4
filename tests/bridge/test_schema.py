"""The schema of the database: of a new one, of an older one, and of a newer one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from plain_client import Key, User, ask
from processes import bridge_process, python

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.storage.schema import NEWEST

# Written by bridges that numbered no schema: the first one recorded no r of a signature.
OLD = {name: (Path(__file__).parent / name).read_text("utf-8") for name in ("old_nonces.sql",)}
OLD["old_schema.sql"] = (Path(__file__).parent / "old_schema.sql").read_text("utf-8")
ACTIVATION = "c4ceafbab9368e776082bdf1891e8e77dcd381b7f4d23b0680e734d25806a885"
OBJECT = "b3f5f16243bac843d58c5b28a371e638"


def execute(data: Path, *statements: str) -> list[Any]:
    with closing(sqlite3.connect(data / "metadata.sqlite", isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@pytest.fixture
def old(data: Path) -> Callable[[str], Path]:
    """Return a function that makes a folder with an older database, and returns the database."""

    def make(name: str) -> Path:
        (data / "shards").mkdir(parents=True)
        (data / "shards" / OBJECT).write_bytes(b"abc")
        path = data / "metadata.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(OLD[name])
        return path

    return make


def shape(data: Path) -> dict[str, Any]:
    """Return the columns, keys, indexes and constraints of each table."""
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:

        def rows(pragma: str, name: str) -> list[Any]:
            return connection.execute(f"PRAGMA {pragma}('{name}')").fetchall()

        def index(row: Any) -> tuple[Any, ...]:
            _, name, unique, origin, partial = row
            columns = [column for *_, column in rows("index_info", name)]
            return name if origin == "c" else "", unique, origin, partial, *columns

        statement = "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
        return {
            name: {
                "columns": {row[1]: row[2:] for row in rows("table_info", name)},
                "foreign keys": sorted(row[2:] for row in rows("foreign_key_list", name)),
                "indexes": sorted(map(index, rows("index_list", name))),
                "checks": sql.count("CHECK"),
                "without row numbers": "WITHOUT ROWID" in sql,
            }
            for name, sql in connection.execute(statement).fetchall()
        }


@pytest.mark.parametrize("name", OLD)
def test_migrated_schema_is_that_of_a_new_database(
    old: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    path, fresh = old(name), tmp_path / "fresh"
    with Bridge(path.parent), Bridge(fresh):
        pass
    assert shape(path.parent) == shape(fresh)


def test_migrated_database_has_everything(old: Callable[[str], Path]) -> None:
    data = old("old_schema.sql").parent
    with Bridge(data, clock=lambda: 1_458_820_900.0) as bridge:
        alice = User(bridge, "alice", known=True)
        replay = alice.ask("POST", "/keys", {"key": Key("alice").uncompressed}, nonce=1000)
        assert replay.error == (401, "Invalid nonce supplied")
        keys = {key["key"] for key in alice.ask("GET", "/keys").json}
        assert keys == {Key("alice").public, Key("alice").uncompressed}
        photos, other = alice.ask("GET", "/buckets").json
        assert [photos["name"], photos["storage"], photos["transfer"]] == ["photos", None, 0.5]
        assert photos["pubkeys"] == [Key("bob").public, Key("alice").public]
        for bucket in photos, other:
            assert alice.download(bucket["id"], file_hash(b"abc")) == b"abc"
        assert alice.ask("DELETE", f"/buckets/{other['id']}").status == 204
        assert alice.download(photos["id"], file_hash(b"abc")) == b"abc"
        assert ask(bridge, "GET", f"/activations/{ACTIVATION}").json["email"] == "bob@example.com"
    assert execute(data, "SELECT used, files FROM buckets") == [(3, 2)]
    assert execute(data, "SELECT count(*) FROM files") == [(2,)]
    assert execute(data, "PRAGMA foreign_key_check") == []


def test_older_database_is_copied_for_its_owner_alone(
    old: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = old("old_schema.sql")
    before = dump(path)
    with Bridge(path.parent):
        pass
    copy = path.with_name(f"metadata.sqlite.before-{NEWEST}")
    assert f"the database is copied to {copy} before it is brought forward" in caplog.text
    assert copy.stat().st_mode & 0o777 == 0o600
    assert dump(copy) == before
    assert [*path.parent.glob("*.part")] == []
    caplog.clear()
    with Bridge(path.parent):
        assert caplog.text == "", "the second start finds nothing to do"


def start(data: Path) -> tuple[int, str]:
    """Start the program, which fails, and return its status and what it said."""
    ended = python("-m", "pymdc.bridge", "--port", "0", "--data", data)
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def test_newer_database_is_refused_in_one_line(data: Path) -> None:
    with Bridge(data):
        pass
    execute(data, "UPDATE alembic_version SET version_num = '9999'")
    before = (data / "metadata.sqlite").read_bytes()
    reason = f"it has schema 9999, and this version of the bridge knows none above {NEWEST}"
    line = f"pymdc.bridge: {data / 'metadata.sqlite'} can't be used: {reason}\n"
    assert start(data) == (1, line)
    assert (data / "metadata.sqlite").read_bytes() == before


def test_failed_migration_leaves_the_database_as_it_was(old: Callable[[str], Path]) -> None:
    path = old("old_schema.sql")
    good = execute(path.parent, "SELECT key FROM public_keys WHERE number = 2")[0][0]
    execute(path.parent, f"UPDATE public_keys SET key = '04{'00' * 64}' WHERE number = 2")
    before = dump(path)
    status, said = start(path.parent)
    *warnings, line = said.splitlines()
    assert (status, len(warnings)) == (1, 1), said
    assert line.startswith(
        f"pymdc.bridge: {path} can't be used: it can't be brought from schema 0000 to {NEWEST}: "
    )
    assert dump(path) == before
    execute(path.parent, f"UPDATE public_keys SET key = '{good}' WHERE number = 2")
    with Bridge(path.parent) as bridge:
        assert len(User(bridge, "alice", known=True).ask("GET", "/keys").json) == 2


@pytest.mark.parametrize("name", [None, "old_schema.sql"])
def test_two_bridges_may_start_at_once(
    old: Callable[[str], Path], data: Path, name: str | None
) -> None:
    if name:
        old(name)
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        started = threads.map(lambda _: stack.enter_context(bridge_process(data)), range(2))
        for endpoint, _process in started:
            bridge = Bridge()
            bridge.endpoint = endpoint
            assert ask(bridge, "GET", "/").status == 200
    assert execute(data, "SELECT version_num FROM alembic_version") == [(NEWEST,)]
    assert len([*data.glob("*.before-*")]) == bool(name)


def test_database_of_before_is_put_back_and_brought_forward_again(
    old: Callable[[str], Path],
) -> None:
    """The store has an id since the first time, which the copied database does not know."""
    path = old("old_schema.sql")
    with Bridge(path.parent):
        pass
    path.with_name(f"metadata.sqlite.before-{NEWEST}").replace(path)
    with Bridge(path.parent) as bridge:
        alice = User(bridge, "alice", known=True)
        photos = alice.ask("GET", "/buckets").json[0]["id"]
        assert alice.download(photos, file_hash(b"abc")) == b"abc"

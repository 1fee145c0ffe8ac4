"""Orphans in a store that several bridges use, and the id that says to whom the store belongs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from plain_client import DATA, User, ask, form, upload_headers
from postgres import Server

from pymdc.bridge import Bridge
from pymdc.bridge.storage.objects import new_upload, object_name
from pymdc.bridge.storage.servers import open_postgres
from pymdc.bridge.storage.sweep import sweep
from pymdc.bridge.storage.tables import installation

DAY = 86_400  # seconds


@pytest.fixture
def bridge(tmp_path: Path, url: str) -> Iterator[Bridge]:
    with Bridge(tmp_path / "data", database=url, shard_size=1000) as running:
        running._housekeeper._sweeps = False  # the test sweeps
        with running._database.write() as connection:
            connection.execute(sa.update(installation).values(swept=_ago(1.1 * DAY)))
        yield running


def _ago(seconds: float) -> int:
    return round((time.time() - seconds) * 1000)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "data" / "shards"


@pytest.fixture
def orphan(bridge: Bridge, store: Path) -> Path:
    """Give an object without a row that is older than a day."""
    return put(store, 3 * DAY)


def put(store: Path, age: float) -> Path:
    path = store / object_name(new_upload(), 0)
    path.write_bytes(b"abc")
    return aged(path, age)


def aged(path: Path, age: float) -> Path:
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


def whole(store: Path) -> list[Path]:
    return [path for path in store.iterdir() if "#" not in path.name]


def swept(bridge: Bridge, store: Path, ahead: float = 0) -> int | None:
    now = round((max(path.stat().st_mtime for path in whole(store)) + ahead) * 1000)
    return sweep(bridge._database, bridge._housekeeper._objects, now, lambda: False)


def test_sweep_deletes_old_orphans_only(bridge: Bridge, store: Path, orphan: Path) -> None:
    alice = User(bridge, "alice")
    bucket = alice.bucket()
    stored = alice.upload(bucket, DATA).json["hash"]
    for path in store.iterdir():
        if path not in (orphan, store / "installation"):
            aged(path, 3 * DAY)
    young = put(store, DAY / 2)
    assert swept(bridge, store) == 1
    assert not orphan.exists()
    assert young.exists()
    assert alice.download(bucket, stored) == DATA


def test_bridge_that_keeps_house_sweeps(
    tmp_path: Path, bridge: Bridge, url: str, orphan: Path
) -> None:
    with Bridge(tmp_path / "data", database=url) as other:
        other._housekeeper.keep_house()
    assert not orphan.exists()


def test_sweep_leaves_an_upload_under_way_whatever_the_clocks_say(
    bridge: Bridge, store: Path, orphan: Path
) -> None:
    """Where the store's clock is days behind, each object is old."""
    alice = User(bridge, "alice")
    bucket = alice.bucket()
    headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
    headers["Content-Length"] = str(len(form(DATA)))

    def body() -> Iterator[bytes]:
        yield form(DATA)[:2000]
        while not (new := {*whole(store)} - {orphan, store / "installation"}):
            pass
        for path in new:
            aged(path, 3 * DAY)
        assert swept(bridge, store) == 1
        yield form(DATA)[2000:]

    stored = ask(bridge, "PUT", f"/buckets/{bucket}/files", body(), headers)
    assert stored.status == 200
    assert alice.download(bucket, stored.json["hash"]) == DATA


def test_older_database_put_back_keeps_newer_objects_for_a_day(
    bridge: Bridge, store: Path, url: str, postgres: Server
) -> None:
    """They are needed again if it was put back by mistake, and the newer one follows."""
    newer, older = put(store, 2 * DAY), put(store, 7 * DAY)
    with postgres.connect(url.rpartition("/")[2]) as connection:
        connection.execute("UPDATE installation SET swept = %s", [_ago(5 * DAY)])
    assert swept(bridge, store) == 1
    assert (newer.exists(), older.exists()) == (True, False)
    assert swept(bridge, store, ahead=DAY / 2) is None
    assert swept(bridge, store, ahead=2 * DAY) == 1


def test_sweep_is_one_bridge_s_at_a_time_and_daily(
    bridge: Bridge, store: Path, orphan: Path
) -> None:
    with bridge._database.exclusive("sweep"):
        assert swept(bridge, store) is None
    assert orphan.exists()
    assert swept(bridge, store) == 1
    put(store, 3 * DAY)
    assert swept(bridge, store) is None


@pytest.mark.parametrize("found", [None, "another"])
def test_store_of_another_database_is_not_swept(
    bridge: Bridge, store: Path, orphan: Path, tmp_path: Path, url: str, found: str | None
) -> None:
    if found is None:
        (store / "installation").unlink()
    else:
        (store / "installation").write_text(found)
    with pytest.raises(OSError, match="the store is not that of the database"):
        swept(bridge, store)
    with pytest.raises(OSError, match="the store is not that of the database"):
        with Bridge(tmp_path / "data", database=url):
            pass
    assert orphan.exists()


def test_bridge_with_a_new_database_does_not_take_a_store_of_another(
    bridge: Bridge, store: Path, orphan: Path, tmp_path: Path, postgres: Server
) -> None:
    other = postgres.new_database()
    for match in "belongs to another", "the database is empty":
        with pytest.raises(OSError, match=match):
            with Bridge(tmp_path / "data", database=other):
                pass
        (store / "installation").unlink(missing_ok=True)
    assert orphan.exists()


def test_start_that_was_broken_off_is_finished(tmp_path: Path, url: str, postgres: Server) -> None:
    with Bridge(tmp_path / "data", database=url):
        pass
    with postgres.connect(url.rpartition("/")[2]) as connection:
        connection.execute("UPDATE installation SET stored = false")
    with Bridge(tmp_path / "data", database=url):
        pass
    with postgres.connect(url.rpartition("/")[2]) as connection:
        connection.execute("UPDATE installation SET stored = false")
    (tmp_path / "data" / "shards" / "installation").unlink()
    with Bridge(tmp_path / "data", database=url):
        pass
    assert (tmp_path / "data" / "shards" / "installation").exists()


def test_start_that_was_killed_while_it_wrote_the_id_is_finished(
    tmp_path: Path, url: str, store: Path
) -> None:
    store.mkdir(parents=True)
    (store / "installation#1").touch()
    with Bridge(tmp_path / "data", database=url):
        assert (store / "installation").read_text()
    assert not (store / "installation#1").exists()


def test_two_stores_do_not_become_those_of_one_database(
    tmp_path: Path, url: str, postgres: Server
) -> None:
    """Two bridges that start at once on a new database, each with shards in its own folder."""
    name, lock = (
        url.rpartition("/")[2],
        "pg_advisory_xact_lock(hashtextextended('pymdc bridge: installation', 0))",
    )
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    open_postgres(url, None).close()  # the tables are there

    def start(folder: str) -> str:
        try:
            with Bridge(tmp_path / folder, database=url):
                return "started"
        except OSError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool, postgres.connect(name) as connection:
        with connection.transaction():
            connection.execute(f"SELECT {lock}".encode())
            starts = pool.map(start, ("one", "other"))
            while connection.execute(waiting.encode()).fetchone() != (2,):
                pass
        refused, started = sorted(starts, key=lambda told: told == "started")
    assert started == "started"
    assert refused.startswith("the store is not that of the database: it lacks the id")
    assert refused.endswith("; --data, --database and --store say where they are")

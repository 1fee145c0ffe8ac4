"""Two bridges, PostgreSQL and the store under load, one of which is killed and started again.

What was acknowledged is kept. KILLS says how often, and KILLS_SEED repeats what the customers draw.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from load import Load, report
from long_runs import seeded
from postgres import Postgres, postgres
from processes import MINUTE, BridgeProgram
from seaweedfs import SeaweedFS, seaweedfs
from seaweedfs import skip_if_unavailable as skip_without_store
from storage_check import check_storage

from pymdc.bridge import Bridge, housekeeping
from pymdc.bridge.storage import sweep
from pymdc.bridge.storage.stores import open_store

KILLS = int(os.environ.get("KILLS", "100"))
BRIDGES = 2
CUSTOMERS = 6
REQUESTS = 100  # between two kills, at least
# The program, which looks for orphans all the time here; an upload is refused after a quarter.
PROGRAM = """
import sys
from pymdc.bridge import housekeeping, settings
from pymdc.bridge.__main__ import main
from pymdc.bridge.storage import sweep, uploads
settings.PASSWORD_COST["n"] = 2
for free in settings.FREE_REGISTRATIONS, settings.FREE_FAILURES:
    free.update(dict.fromkeys(free, 10**6))
sweep.ORPHAN_AGE, sweep.SWEEP_SECONDS = 40_000, 1.0
housekeeping.HOUSEKEEPING_SECONDS = 0.5
housekeeping.UPLOAD_LIFETIME = uploads.UPLOAD_LIFETIME = 10_000
sys.exit(main())
"""


class Site:
    """All of it, with its data in *folder*."""

    def __init__(self, folder: Path, database: Postgres, store: SeaweedFS) -> None:
        url = database.new_database()
        self._name = url.rpartition("/")[2]
        self._folder = folder
        self._database = database
        self._url, self._store = url, store.store_url("objects")
        options = f"--database={url}", f"--store={self._store}"
        self.programs = [
            BridgeProgram(folder / name, folder / f"{name}.log", *options, program=("-c", PROGRAM))
            for name in (f"bridge{n}" for n in range(BRIDGES))
        ]

    def sql(self, statement: str, *values: object) -> list[Any]:
        with self._database.connect(self._name) as connection:
            return connection.execute(statement.encode(), values or None).fetchall()

    def activation(self, email: str) -> str | None:
        [[token]] = self.sql("SELECT activation FROM users WHERE email = %s", email)
        return None if token is None else str(token)

    def sweep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Do what the bridges do within a day."""
        monkeypatch.setattr(sweep, "ORPHAN_AGE", -86_400_000)
        monkeypatch.setattr(sweep, "SWEEP_SECONDS", 0.0)
        monkeypatch.setattr(housekeeping, "UPLOAD_LIFETIME", -86_400_000)
        with Bridge(self._folder / "sweeping", database=self._url, store=self._store) as bridge:
            house = bridge._housekeeper
            house.keep_house()
            now = int(time.time() * 1000)
            # Another bridge may be at it, and delete the old ones only.
            while sweep.sweep(bridge._database, house._objects, now, lambda: False) is None:
                pass

    def check(self) -> None:
        """Check that rows and objects fit each other."""
        store = open_store(self._store, self._folder, fsync=False)
        check_storage(self.sql, [name for names in store.names() for name in names])


@pytest.fixture
def seed() -> Iterator[int]:
    with seeded("KILLS_SEED", 600 + 60 * KILLS) as seed:
        yield seed


def test_what_was_acknowledged_outlasts_kills(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_store()
    with ExitStack() as running:
        database = running.enter_context(postgres(tmp_path, fsync=True))
        store = running.enter_context(seaweedfs(tmp_path / "store"))
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        site = Site(tmp_path, database, store)
        for program in site.programs:
            program.start()
            running.callback(program.stop)
        load = Load([program.bridge for program in site.programs], site.activation, seed)
        running.callback(load.end)
        for _ in range(CUSTOMERS):
            load.add_customer()
        killed: list[BridgeProgram | Postgres | SeaweedFS] = [database, store, *site.programs]
        for number in range(KILLS):
            load.resume()
            wait_for_requests(load)
            load.pause()
            one = killed[number % len(killed)]
            one.kill()
            one.start()
            assert load.faults == []
        load.resume()
        wait_for_requests(load)
        load.end()
        assert load.faults == []
        site.sweep(monkeypatch)
        site.check()
        seen: set[str] = set()
        for customer in load.customers:
            customer.check(seen)
        report(load, KILLS)
    for program in site.programs:
        assert "Traceback" not in program.log.read_text("utf-8")


def wait_for_requests(load: Load) -> None:
    done, end = load.done(), time.monotonic() + MINUTE
    while load.done() < done + REQUESTS and not load.faults:
        assert time.monotonic() < end, "the bridges do not answer"
        time.sleep(0.01)

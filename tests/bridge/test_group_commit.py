"""Transactions that threads commit together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from pymdc.bridge.errors import Refused
from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.group_commit import GroupCommit
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.sqlite import SQLiteDatabase
from pymdc.bridge.storage.tables import nonce_floors

Work = Callable[[sa.Connection], int]


class Together:
    """A database; work for it is queued while *hold* is kept, and then runs together."""

    def __init__(self, database: SQLiteDatabase, objects: ObjectStore) -> None:
        self._database = database
        self._commits = GroupCommit(database, objects)
        self.commits = 0
        sa.event.listen(database.engine, "commit", self._count)

    def run(self, *works: Work) -> list[int | BaseException]:
        """Run *works* on a thread each, in one group, and return what each returned or raised."""
        begun, go_on = threading.Event(), threading.Event()

        def hold(_connection: sa.Connection) -> int:
            begun.set()
            assert go_on.wait(20)
            return 0

        with ThreadPoolExecutor(len(works) + 1) as threads:
            holding = threads.submit(self._commits.run, hold)
            assert begun.wait(20)
            running = [threads.submit(self._commits.run, work) for work in works]
            while len(self._commits._waiting) < len(works):
                pass
            self.commits = 0
            go_on.set()
            holding.result()
            return [future.exception() or future.result() for future in running]

    def floors(self) -> set[float]:
        with self._database.read() as connection:
            return {*connection.execute(sa.select(nonce_floors.c.floor)).scalars()}

    def _count(self, _connection: object) -> None:
        self.commits += 1


@pytest.fixture
def together(tmp_path: Path) -> Iterator[Together]:
    objects = FolderStore(tmp_path / "shards", fsync=True)
    with closing(SQLiteDatabase(tmp_path / "database", fsync=True)) as database:
        yield Together(database, objects)


def insert(number: int, connection: sa.Connection, error: Exception | None = None) -> int:
    connection.execute(sa.insert(nonce_floors).values(owner=str(number), floor=number))
    if error is not None:
        raise error
    return number


def test_waiting_work_is_one_transaction(together: Together) -> None:
    assert together.run(*(partial(insert, number) for number in range(8))) == [*range(8)]
    assert together.commits == 2, "that of the first, and one for all others"
    assert together.floors() == {*range(8)}


def test_refusing_work_harms_no_other(together: Together) -> None:
    refusal = Refused(413, "no room")
    works = [partial(insert, 0), partial(insert, 1, error=refusal), partial(insert, 2)]
    assert together.run(*works) == [0, refusal, 2]
    assert together.floors() == {0, 1, 2}, "what it has done is kept"


def test_failing_work_harms_no_other(together: Together) -> None:
    failure = LookupError("lost")
    works = [partial(insert, 0), partial(insert, 1, error=failure), partial(insert, 2)]
    assert together.run(*works) == [0, failure, 2]
    assert together.floors() == {0, 2}, "what it has done is rolled back"

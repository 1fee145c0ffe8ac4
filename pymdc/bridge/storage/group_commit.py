"""Transactions of several threads that are committed together, and wait for the disk only once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa

from pymdc.bridge.errors import Refused
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.objects import ObjectStore

T = TypeVar("T")


class _Job:
    """Work for a transaction, and what came of it."""

    def __init__(self, work: Callable[[sa.Connection], Any]) -> None:
        self.done = False
        self.error: BaseException | None = None
        self._work = work
        self._value: Any = None

    def run(self, connection: sa.Connection) -> None:
        self.error = None
        try:
            self._value = self._work(connection)
        except Refused as error:
            self.error = error

    def result(self) -> Any:
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # else a cycle: its traceback has this frame
        return self._value


class GroupCommit:
    """Durable transactions on *database*, each after the names of *objects* are on the disk.

    While one thread waits for the disk, others queue their work; the next one runs all of it in
    one transaction.
    """

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run *work* in a transaction, and return when it is committed.

        What *work* has changed is kept even if it refuses. If it raises anything else, the other
        work is run again without it.
        """
        job = _Job(work)
        self._jobs.append(job)
        with self._lock:
            if not job.done:  # else another thread has done it meanwhile
                self._run_all([self._jobs.popleft() for _ in range(len(self._jobs))])
        value: T = job.result()
        return value

    def _run_all(self, jobs: list[_Job]) -> None:
        try:
            self._objects.sync()
            with self._database.write() as connection:
                for job in jobs:
                    job.run(connection)
        except BaseException as error:  # noqa: BLE001  # raised again by `_Job.result`
            if len(jobs) == 1:
                jobs[0].error = error
            else:
                for job in jobs:
                    self._run_all([job])
        for job in jobs:
            job.done = True

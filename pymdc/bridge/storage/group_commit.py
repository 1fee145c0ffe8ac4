"""Durable transactions, each after the names of its objects are on the disk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from pymdc.bridge.errors import DeadlockError, Refused, UnavailableError
from pymdc.bridge.storage.database import Database, has_one_writer
from pymdc.bridge.storage.objects import ObjectStore

T = TypeVar("T")


class Commits(Protocol):
    """Runs work in durable transactions."""

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run *work* in a transaction, and return when it is committed.

        What *work* has changed is kept even if it refuses.
        """


def commits_of(database: Database, objects: ObjectStore) -> Commits:
    """Return what commits to *database* with the fewest waits for the disk."""
    kind = GroupCommit if has_one_writer(database.engine) else SingleCommits
    return kind(database, objects)


class SingleCommits:
    """A transaction for each work: the database itself waits for the disk once for several.

    With the rows of several files in one transaction, two transactions might wait for each other.
    """

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run *work* in a transaction, once again if that is ended by a deadlock."""
        self._objects.sync()
        try:
            return self._run(work)
        except DeadlockError:
            pass
        try:
            return self._run(work)
        except DeadlockError as error:  # who calls this must not try it again
            raise UnavailableError(str(error)) from None

    def _run(self, work: Callable[[sa.Connection], T]) -> T:
        job = _Job(work)
        with self._database.write() as connection:
            job.run(connection)
        value: T = job.result()
        return value


class _Job:
    """Work for a transaction, and what came of it.

    *wake* is released when the work is done, or when its thread has to do the work that waits.
    """

    def __init__(self, work: Callable[[sa.Connection], Any]) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.wake = threading.Lock()
        self.wake.acquire()
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

    While one thread waits for the disk, others queue their work; the first of them then runs all
    of it in one transaction.
    """

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        self._lock = threading.Lock()
        self._waiting: list[_Job] = []
        self._busy = False

    def run(self, work: Callable[[sa.Connection], T]) -> T:
        """Run *work* in a transaction, and return when it is committed.

        What *work* has changed is kept even if it refuses. If it raises anything else, the other
        work is run again without it.
        """
        job = _Job(work)
        with self._lock:
            self._waiting.append(job)
            waits, self._busy = self._busy, True
        if waits:
            job.wake.acquire()
        if not job.done:
            self._run_waiting()
        value: T = job.result()
        return value

    def _run_waiting(self) -> None:
        with self._lock:
            jobs, self._waiting = self._waiting, []
        self._run_together(jobs)
        with self._lock:
            self._busy = bool(self._waiting)
            following = self._waiting[:1]
        for job in jobs + following:
            job.wake.release()

    def _run_together(self, jobs: list[_Job]) -> None:
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
                    self._run_together([job])
        for job in jobs:
            job.done = True

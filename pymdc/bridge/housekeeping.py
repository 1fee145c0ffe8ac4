"""What a bridge does besides requests: it deletes what has expired, and finishes removals."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from pymdc.bridge.errors import Refused, UnavailableError
from pymdc.bridge.load import Load
from pymdc.bridge.logs import log_fault
from pymdc.bridge.settings import (
    FIRST_LOOK_SECONDS,
    HOUSEKEEPING_SECONDS,
    REGISTRATION_LIFETIME,
    UPLOAD_LIFETIME,
)
from pymdc.bridge.storage.accounts import delete_old_registrations
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.removal import removals_to_finish
from pymdc.bridge.storage.sweep import sweep
from pymdc.bridge.storage.tables import delete_expired, resets, tokens, uploads
from pymdc.bridge.storage.usage import give_back_transfer

_log = logging.getLogger("pymdc.bridge")


class Housekeeper:
    """Looks every `HOUSEKEEPING_SECONDS`, and when it is woken, for what there is to do.

    If it *sweeps*, it also deletes the objects that no shard refers to, once a day.
    """

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        load: Load,
        now: Callable[[], int],
        *,
        sweeps: bool,
    ) -> None:
        self._database = database
        self._objects = objects
        self._load = load
        self._now = now
        self._sweeps = sweeps
        self._postponed: list[Callable[[], None]] = []
        self._woken = threading.Event()
        self._stopped = threading.Event()

    @property
    def _stopping(self) -> bool:
        return self._stopped.is_set()

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    def postpone(self, function: Callable[[], None]) -> None:
        """Run *function*, for which the database did not answer, when the database does."""
        self._postponed.append(function)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Work on a thread while the block runs."""
        thread = threading.Thread(target=self._work, name="pymdc-bridge-housekeeper")
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            self.wake()
            thread.join()

    def keep_house(self) -> None:
        """Do once what there is to do."""
        while self._postponed:
            function = self._postponed.pop(0)
            try:
                self._load.run(function, share=1)
            except (UnavailableError, Refused):
                self.postpone(function)
                raise
        with self._database.exclusive("housekeeping") as mine:
            if mine:
                self._load.run(self._delete_expired, share=1)
        for piece in removals_to_finish(self._database, self._objects):
            done = False
            while not done and not self._stopping:
                begun = time.monotonic()
                done = self._load.run(piece, share=1)
                self._stopped.wait(time.monotonic() - begun)  # as long for other requests
        if self._sweeps and not self._stopping:
            sweep(self._database, self._objects, self._now(), lambda: self._stopping)

    def _work(self) -> None:
        self._woken.wait(FIRST_LOOK_SECONDS)
        while not self._stopping:
            self._woken.clear()
            try:
                self.keep_house()
            except (UnavailableError, Refused) as error:
                _log.warning("what has expired stays for now: %s", error)
            except Exception as error:  # noqa: BLE001  # every error is logged
                log_fault("housekeeping", error)
            self._woken.wait(HOUSEKEEPING_SECONDS)

    def _delete_expired(self) -> None:
        now = self._now()
        for delete in (
            lambda connection: give_back_transfer(connection, now),
            lambda connection: delete_expired(connection, tokens, now),
            lambda connection: delete_expired(connection, resets, now),
        ):
            found = True
            while found and not self._stopping:
                with self._database.write(durable=False) as connection:
                    found = bool(delete(connection))
        with self._database.write(durable=False) as connection:
            delete_old_registrations(connection, now - REGISTRATION_LIFETIME)
            old = uploads.c.started < now - UPLOAD_LIFETIME
            connection.execute(sa.delete(uploads).where(old))

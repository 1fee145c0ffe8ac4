"""The database on a server: PostgreSQL, which several bridges may share."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import sqlalchemy as sa

from pymdc.bridge.errors import DeadlockError, UnavailableError
from pymdc.bridge.settings import (
    CLIENT,
    CONNECT_SECONDS,
    HUNG_SECONDS,
    LOCK_SECONDS,
    READERS,
    RETRY_SECONDS,
    STATEMENT_SECONDS,
    WAIT_SECONDS,
)
from pymdc.bridge.storage.database import lock_key, lock_name, make_engine
from pymdc.bridge.storage.disk import DiskFullError
from pymdc.bridge.storage.installation import check_open
from pymdc.bridge.storage.schema import check_schema, prepare_schema

# Classes of errors, or errors: the connection, the server's resources, a lock or a statement that
# took too long, the server that stops or starts, and a transaction that was given up.
_UNAVAILABLE = ("08", "53", "55P03", "57", "25P03", "25P04", "40", "25006")
_DISK_FULL = "53100"
_DEADLOCK = "40P01"
_IS_STANDBY = sa.select(sa.func.pg_is_in_recovery())


class PostgresDatabase:
    """Transactions on the PostgreSQL database *url*; its tables are created or brought forward.

    *lanes* transactions may write at the same time.
    An *existing* database is neither created nor brought forward, but refused with
    `OtherSchemaError` if it is not of this version.
    A *command* of an operator, unlike a bridge, has as much time as it needs.
    """

    def __init__(
        self, url: sa.URL, *, lanes: int, existing: bool = False, command: bool = False
    ) -> None:
        self.lanes = lanes
        self.engine = make_engine(
            url,
            _translate,
            poolclass=sa.pool.NullPool,  # those that are kept are in `_Connections`
            connect_args=_connect_arguments(command=command),
            execution_options={"preserve_rowcount": True},  # else that of an INSERT is -1
            skip_autocommit_rollback=True,
        )
        prepare = _do_nothing if command else check_open
        # First: SQLAlchemy asks for the version, and fails with SQL_ASCII, in which text is bytes.
        sa.event.listen(self.engine, "connect", _check_encoding, insert=True)
        connections = partial(_Connections, self.engine, silence=_Silence(), prepare=prepare)
        self._readers = connections(READERS, isolation_level="AUTOCOMMIT")
        self._durable_writers = connections(lanes)
        self._writers = connections(lanes, synchronous_commit="off")
        self._one_writers = connections(
            lanes, isolation_level="AUTOCOMMIT", synchronous_commit="off"
        )
        writers = self._one_writers, self._durable_writers, self._writers
        self._connections = (self._readers, *writers)
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._end_hung, name="pymdc-bridge-watch")
        if not command:
            self._watch.start()
        try:
            if existing:
                with self.read() as connection:
                    check_schema(connection)
            else:
                self._prepare_schema()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Run the block with a connection on which each statement is a transaction."""
        with self._readers.one() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """Run the block in a transaction that writes; an exception rolls it back.

        What is not *durable* may be lost when the server crashes.
        """
        writers = self._durable_writers if durable else self._writers
        with writers.one() as connection, connection.begin():
            yield connection

    @contextmanager
    def write_once(self) -> Iterator[sa.Connection]:
        """Run the block, in which one statement writes, which is a transaction of its own."""
        with self._one_writers.one() as connection:
            yield connection

    @contextmanager
    def exclusive(self, task: str) -> Iterator[bool]:
        """Keep other bridges from a *task* while the block runs; give False if one is at it."""
        key = lock_key(task)
        with self.engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            is_mine = connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one()
            yield bool(is_mine)
            if is_mine:  # else, as after an exception, the server unlocks it a moment later
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))

    def check(self) -> None:
        """Raise if the database does not answer, or can't be written."""
        with self.read() as connection:
            if connection.execute(_IS_STANDBY).scalar():
                raise UnavailableError("the database can't be written: it is a standby")

    def close(self) -> None:
        """Close every connection."""
        self._closed.set()
        if self._watch.is_alive():
            self._watch.join()
        for connections in self._connections:
            connections.close()

    def _prepare_schema(self) -> None:
        # A connection of its own: a step, for which other bridges wait, may take very long.
        with self.engine.connect() as connection, connection.begin():
            for limit in "statement_timeout", "lock_timeout":
                connection.execute(sa.text(f"SET LOCAL {limit} = 0"))
            lock_name(connection, "schema")
            prepare_schema(connection)

    def _end_hung(self) -> None:
        """End the transactions that take too long, until the database is closed.

        The server's own limits do not help if the server itself hangs.
        """
        while not self._closed.wait(HUNG_SECONDS / 4):
            for connections in self._connections:
                connections.end_hung(HUNG_SECONDS)


@dataclass
class _Silence:
    """Until when, on the monotonic clock, nobody tries to connect again.

    Each try may take seconds, and many requests may wait for one of a few connections.
    """

    until: float = 0.0


class _Connections:
    """At most *most* connections of *engine*, of which those that are not in use are kept.

    *prepare* is called with each new one.
    """

    def __init__(
        self,
        engine: sa.Engine,
        most: int,
        *,
        silence: _Silence,
        prepare: Callable[[sa.Connection], None],
        isolation_level: str | None = None,
        synchronous_commit: str | None = None,
    ) -> None:
        self._engine = engine
        self._silence = silence
        self._prepare = prepare
        self._slots = threading.BoundedSemaphore(most)
        self._options = {"isolation_level": isolation_level} if isolation_level else {}
        self._synchronous_commit = synchronous_commit
        self._idle: list[sa.Connection] = []
        self._since: dict[sa.Connection, float] = {}

    @contextmanager
    def one(self) -> Iterator[sa.Connection]:
        """Give a connection while the block runs."""
        if not self._slots.acquire(timeout=WAIT_SECONDS):
            raise UnavailableError("all connections to the database are in use")
        try:
            connection = self._take()
            self._since[connection] = time.monotonic()
            try:
                yield connection
            finally:
                del self._since[connection]
                self._put_back(connection)
        finally:
            self._slots.release()

    def end_hung(self, seconds: float) -> None:
        """Shut down the sockets of connections that are in use for so many *seconds*."""
        for connection, since in [*self._since.items()]:
            if time.monotonic() - since > seconds:
                with suppress(OSError, sa.exc.SQLAlchemyError, psycopg.Error):
                    driver: Any = connection.connection.driver_connection
                    with socket.socket(fileno=os.dup(driver.fileno())) as duplicate:
                        duplicate.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close those that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> sa.Connection:
        with suppress(IndexError):
            while _has_ended(connection := self._idle.pop()):
                connection.invalidate()
                connection.close()
            return connection
        connection = self._connect().execution_options(**self._options)
        try:
            with connection.begin():  # SQLAlchemy begins by itself, but not for a `Prepared`
                self._prepare(connection)
                if self._synchronous_commit:
                    setting = sa.text(f"SET synchronous_commit = {self._synchronous_commit}")
                    connection.execute(setting)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sa.Connection:
        """Connect, unless the server has been known for a short while not to answer that."""
        begun = time.monotonic()
        if begun < self._silence.until:
            raise UnavailableError("the database did not answer a short while ago")
        try:
            return self._engine.connect()
        except UnavailableError:
            now = time.monotonic()
            if now - begun > CONNECT_SECONDS / 2:  # else the next try costs nothing
                self._silence.until = now + RETRY_SECONDS
            raise

    def _put_back(self, connection: sa.Connection) -> None:
        if connection.invalidated or _is_broken(connection):
            connection.invalidate()
            connection.close()
            self.close()  # what ended one has mostly ended the others
        else:
            connection.rollback()  # SQLAlchemy begins by itself
            self._idle.append(connection)


def _do_nothing(_connection: sa.Connection) -> None:
    pass


def _is_broken(connection: sa.Connection) -> bool:
    driver: Any = connection.connection.driver_connection
    return driver is None or bool(driver.closed)


def _has_ended(connection: sa.Connection) -> bool:
    """Say whether the server has ended a connection that is not in use."""
    driver: Any = connection.connection.driver_connection
    waiting = select.poll()
    waiting.register(driver.fileno(), select.POLLIN)
    return bool(waiting.poll(0))  # it sends nothing else unasked


def _check_encoding(connection: Any, _record: object) -> None:
    """Raise OSError if the database can't store every name."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise OSError(f"its encoding is {encoding}; expected UTF8")


def _connect_arguments(*, command: bool) -> dict[str, Any]:
    limit = 0 if command else STATEMENT_SECONDS  # 0 is none
    milliseconds = {
        "statement_timeout": limit,
        "lock_timeout": LOCK_SECONDS,
        "idle_in_transaction_session_timeout": limit,
    }
    options = [f"-c {name}={round(seconds * 1000)}" for name, seconds in milliseconds.items()]
    # To plan the statements with limits anew, each time, takes longer than the rest of an upload.
    options.append("-c plan_cache_mode=force_generic_plan")
    # Whatever the server's default is: a statement after a lock has to see what was committed.
    options.append("-c default_transaction_isolation=read\\ committed")
    return {
        "client_encoding": "utf8",  # whatever PGCLIENTENCODING says
        "connect_timeout": CONNECT_SECONDS,
        "application_name": f"{CLIENT} admin" if command else CLIENT,
        "options": " ".join(options),
        "keepalives_idle": CONNECT_SECONDS,
        "keepalives_interval": CONNECT_SECONDS,
        "keepalives_count": 3,
        "tcp_user_timeout": STATEMENT_SECONDS * 1000,
    }


def _translate(error: BaseException | None) -> None:
    """Raise another error if it is the server's or the network's, and not that of a statement."""
    if not isinstance(error, psycopg.Error):
        return
    state, text = error.sqlstate, " ".join(str(error).split())
    if state == _DISK_FULL:
        raise DiskFullError(f"the disk of the database is full: {text}") from error
    if state == _DEADLOCK:
        raise DeadlockError(f"the database ended a transaction: {text}") from error
    is_lost = state is None and isinstance(error, psycopg.OperationalError)
    if is_lost or (state is not None and state.startswith(_UNAVAILABLE)):
        raise UnavailableError(f"the database did not answer: {text}") from error

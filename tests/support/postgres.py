"""A PostgreSQL of the tests' own, from Debian's package, on a free port of 127.0.0.1."""

from __future__ import annotations

import importlib
import itertools
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import TYPE_CHECKING

import pytest
from processes import MINUTE
from servers import free_port

if TYPE_CHECKING:  # not installed everywhere
    import psycopg
    from psycopg.rows import TupleRow

USER = "pymdc"
SYSTEM_USER = "postgres"  # as which the server runs if the tests run as root, which it refuses
DEBIAN = Path("/usr/lib/postgresql")
POLL = 0.02  # seconds
# It starts sooner and does less, and no client sees a difference.
SETTINGS = {
    "autovacuum": "off",
    "max_connections": "300",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "unix_socket_directories": "",
    "wal_level": "minimal",
}
WITHOUT_FSYNC = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
# Of all tables but one; a new database takes fifty times as long.
DELETE_ROWS = """
DO $$ DECLARE name text; BEGIN
    SET LOCAL session_replication_role = replica;  -- no foreign key counts
    FOR name IN SELECT tablename FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
END $$
"""
_numbers = itertools.count(1)


def unavailable() -> str | None:
    """Return why no PostgreSQL can be started here; None if one can."""
    if _program("initdb") is None:
        return "PostgreSQL is not installed"
    if shutil.which("setpriv") is None:
        return "setpriv is not installed"
    try:
        importlib.import_module("psycopg")
    except ImportError as error:
        return f"psycopg can't be imported: {error}"
    return None


def skip_if_unavailable() -> None:
    """Skip the test if no PostgreSQL can be started here."""
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


class Server:
    """A PostgreSQL that listens on *port* of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, as SQLAlchemy takes it."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[TupleRow]:
        """Return a connection whose statements are transactions of their own."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, dbname=database, autocommit=True
        )

    def new_database(self, encoding: str = "UTF8") -> str:
        """Create an empty database and return its URL."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with self.connect() as connection:
            # The other strategy, which is the default, takes three times as long.
            connection.execute(
                f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} STRATEGY file_copy"
            )
        return self.url(name)

    def delete_rows(self, url: str) -> None:
        """Empty the tables of a database; the schema stays."""
        with self.connect(url.rpartition("/")[2]) as connection:
            connection.execute(DELETE_ROWS)


class Postgres(Server):
    """A PostgreSQL whose data and log are in *folder*; with *fsync*, they outlast a power cut.

    *settings* are of its own, and come before those of all.
    """

    def __init__(
        self, folder: Path, *, fsync: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(free_port())
        self._data = folder / "postgres"
        self._log = folder / "postgres.log"
        self._settings = SETTINGS | ({} if fsync else WITHOUT_FSYNC) | {"port": str(self.port)}
        self._settings |= settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(self._data, SYSTEM_USER)
        options = ("--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C")
        command = [*_command("initdb"), "-D", str(self._data), "-U", USER, *options]
        done = subprocess.run(command, stdout=PIPE, stderr=STDOUT, timeout=MINUTE, check=False)
        assert done.returncode == 0, done.stdout.decode()

    @property
    def pid(self) -> int:
        """The process whose children serve the connections."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def start(self) -> None:
        """Start the server; return when it accepts connections.

        The server ends with the thread that calls this.
        """
        import psycopg

        assert self._process is None, "it is running"
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [*_command("postgres"), "-D", str(self._data), *settings]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._process = process
        while True:
            with suppress(psycopg.OperationalError):
                self.connect().close()
                return
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
                raise AssertionError(f"PostgreSQL ended:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Stop the server, which disconnects its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill each process of the server."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let each process of the server stand still."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        for child in _children(self._process.pid):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, number)
            os.close(child)
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        children = _children(process.pid)
        process.send_signal(number)
        if number == signal.SIGKILL:
            for child in children:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(child, number)
        process.wait(MINUTE)
        # No server starts while a process of the last one is alive.
        for child in children:
            ended, _, _ = select.select([child], [], [], MINUTE)
            os.close(child)
            assert ended, "a process of PostgreSQL does not end"


@contextmanager
def postgres(
    folder: Path, *, fsync: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[Postgres]:
    """Run a PostgreSQL in *folder* until the end of the block; skip the test if there is none.

    However the tests end, the server ends with them.
    """
    skip_if_unavailable()
    server = Postgres(folder, fsync=fsync, settings=settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def _program(name: str) -> str | None:
    """Return the path of a program of the newest PostgreSQL; Debian has them outside PATH."""
    versions = sorted(DEBIAN.glob("*/bin"), key=lambda path: float(path.parent.name))
    path = os.pathsep.join([*map(str, reversed(versions)), os.environ["PATH"]])
    return shutil.which(name, path=path)


def _command(name: str) -> list[str]:
    """Return the command that runs a program of PostgreSQL no longer than this thread."""
    path = _program(name)
    assert path is not None
    options = ["--pdeathsig", "QUIT"]
    if os.geteuid() == 0:
        # The folders of pytest are root's alone; with this capability, others get into them.
        options += ["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--clear-groups"]
        options += ["--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"]
    return ["setpriv", *options, path]


def _children(pid: int) -> list[int]:
    """Return a descriptor of each child of a process."""
    children = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(ProcessLookupError):
            children.append(os.pidfd_open(int(child)))
    return children

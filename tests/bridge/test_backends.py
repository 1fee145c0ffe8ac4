"""The servers that the tests of the bridge start."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest
from postgres import postgres, skip_if_unavailable
from processes import MINUTE, SUPPORT
from shared import shared

RUNNING = """
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
sys.path.insert(0, sys.argv[1])
from postgres import postgres
with postgres(Path(sys.argv[2])):
    print(flush=True)
    sys.stdin.read()
"""


def test_postgres_that_is_killed_has_what_was_committed(tmp_path: Path) -> None:
    with postgres(tmp_path, fsync=True) as server:
        import psycopg

        name = server.new_database().rpartition("/")[2]
        with server.connect(name) as connection:
            connection.execute("CREATE TABLE numbers AS SELECT 1 AS number")
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            server.connect(name)
        server.start()
        with server.connect(name) as connection:
            assert connection.execute("SELECT number FROM numbers").fetchall() == [(1,)]
        server.stop()
        server.start()
        server.connect(name).close()


def test_postgres_ends_with_tests_that_are_killed(tmp_path: Path) -> None:
    skip_if_unavailable()
    command = [sys.executable, "-c", RUNNING, str(SUPPORT), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tests:
        assert tests.stdout
        tests.stdout.readline()
        pid = (tmp_path / "postgres" / "postmaster.pid").read_text().split()[0]
        server = os.pidfd_open(int(pid))
        try:
            tests.kill()
            assert select.select([server], [], [], MINUTE)[0] == [server]
        finally:
            os.close(server)


def test_server_of_all_workers_is_started_once_and_ends_last(tmp_path: Path) -> None:
    events: list[str] = []
    all_use_it = Barrier(4)

    @contextmanager
    def serve(folder: Path) -> Iterator[str]:
        events.append("started")
        yield str(folder)
        events.append("ended")

    def use(_: int) -> str:
        with shared(tmp_path, serve) as told:
            all_use_it.wait(MINUTE)
            events.append("used")
        return told

    for _ in range(2):
        events.clear()
        with ThreadPoolExecutor(4) as workers:
            assert len({*workers.map(use, range(4))}) == 1
        assert events == ["started", *(4 * ["used"]), "ended"]

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

import postgres
import pytest
import seaweedfs
from processes import MINUTE, SUPPORT
from shared import shared

RUNNING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from {name} import {name}
with {name}(Path(sys.argv[2])) as server:
    print(server._process.pid, flush=True)
    sys.stdin.read()
"""

USING_AGAIN = """
import sys, threading
from contextlib import contextmanager
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import shared
folder, flock = Path(sys.argv[2]), shared.fcntl.flock
serving, in_use, free, in_use_again, ended = (threading.Event() for _ in range(5))

@contextmanager
def serve(_folder):
    try:
        yield "served"
    finally:
        ended.set()

def unlock_and_wait(file, operation):
    flock(file, operation)
    if operation == shared.fcntl.LOCK_UN and file.name.endswith("workers") and not free.is_set():
        free.set()
        in_use_again.wait()

def first():
    with shared.shared(folder, serve):
        serving.set()
        in_use.wait()

def second():
    serving.wait()
    with shared.shared(folder, serve):
        in_use.set()
        for _ in range(10_000):  # while the first one waits for this one
            with shared.shared(folder, serve):
                pass
    free.wait()
    with shared.shared(folder, serve):  # just when the first one has seen that nobody uses it
        in_use_again.set()
        print("ended too early" if ended.wait(0.5) else "served")

shared.fcntl.flock = unlock_and_wait
for work in first, second:
    threading.Thread(target=work).start()
"""


@pytest.mark.distributed
def test_postgres_that_is_killed_has_what_was_committed(tmp_path: Path) -> None:
    with postgres.postgres(tmp_path, fsync=True) as server:
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


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["postgres", "seaweedfs"])
def test_server_ends_with_tests_that_are_killed(name: str, tmp_path: Path) -> None:
    for server in postgres, seaweedfs:
        server.skip_if_unavailable()
    code = RUNNING.format(name=name)
    command = [sys.executable, "-c", code, str(SUPPORT), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tests:
        assert tests.stdout
        process = os.pidfd_open(int(tests.stdout.readline()))
        try:
            tests.kill()
            assert select.select([process], [], [], MINUTE)[0] == [process]
        finally:
            os.close(process)


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


def test_worker_may_use_a_server_again_while_another_waits_to_end_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USING_AGAIN, str(SUPPORT), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, timeout=MINUTE).stdout == b"served\n"

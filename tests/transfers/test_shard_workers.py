"""Several shards at a time: the end of a download ends them all, and leaks no worker."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fake_bridge import (
    DATA,
    HASH,
    SHARD,
    SHARDS,
    FakeBridge,
    ShardHandler,
    download,
    drop,
    part_path,
    refuse,
    send_damaged,
)
from modes import AT_ONCE, PATIENCE, Ask
from processes import MINUTE, python
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import Cancelled
from pymdc._arguments import Callback
from pymdc._calls.capture import Job, capture
from pymdc._crypto.file_hash import Block
from pymdc._transfers import target
from pymdc._transfers.target import PartialFile
from pymdc.exceptions import ChannelError, ConnectionLost, IntegrityError, Timeout

FOUR = range(4)
LIMIT = 0.5  # seconds


class HeldShards:
    """Keeps requests for shards waiting until the client closes their channels."""

    def __init__(self, fake: FakeBridge, numbers: range = FOUR) -> None:
        self._asked, self._gone = threading.Semaphore(0), threading.Semaphore(0)
        self._count = len(numbers)
        fake.handlers |= dict.fromkeys(numbers, self._hold)

    def _hold(self, connection: ServerConnection) -> None:
        self._asked.release()
        with pytest.raises(ConnectionClosed):
            connection.recv()
        self._gone.release()

    def wait(self) -> None:
        """Wait until every shard is requested."""
        for _ in range(self._count):
            assert self._asked.acquire(timeout=PATIENCE)

    def wait_until_gone(self) -> None:
        """Wait until the client has closed every channel."""
        for _ in range(self._count):
            assert self._gone.acquire(timeout=AT_ONCE)


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "pymdc-worker"}


def descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return {file for file in found if not file[1].startswith(("pipe:", "anon_inode:"))}


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Check that a test leaks no worker and no descriptor."""
    threads_before, descriptors_before = set(threading.enumerate()), descriptors()
    yield
    assert workers() <= threads_before
    for thread in {
        *threading.enumerate()
    } - threads_before:  # of the fake bridge: one per connection
        thread.join(PATIENCE)
    # Those that are gone are of earlier tests.
    assert not descriptors() - descriptors_before


@contextmanager
def files_of(fake: FakeBridge, **settings: Any) -> Iterator[pymdc.api.Files]:
    """Give the files of a client whose workers end when they are idle."""
    with pymdc.Client(fake.endpoint, **settings) as client:
        client._pool.threads.idle_seconds = 0.05
        yield pymdc.api.Files("b", pymdc.ECDSA(), client=client)


def assert_workers_end() -> None:
    for thread in workers():
        thread.join(AT_ONCE)
        assert not thread.is_alive()


def test_cancel_ends_four_shards_and_their_workers(tmp_path: Path) -> None:
    got: list[Any] = []
    with FakeBridge() as fake, files_of(fake) as files:
        held = HeldShards(fake)
        call = files.download(HASH, None, got.append, to=tmp_path / "out")
        held.wait()
        assert call.cancel()
        call.join(AT_ONCE)
        assert [type(value) for value in got] == [Cancelled]
        held.wait_until_gone()
        assert_workers_end()
    assert os.listdir(tmp_path) == []


def test_close_ends_four_shards_and_their_workers(tmp_path: Path) -> None:
    got: list[Any] = []
    with FakeBridge() as fake:
        held = HeldShards(fake)
        with files_of(fake) as files:
            files.download(HASH, None, got.append, to=tmp_path / "out")
            held.wait()
            files._client.close(cancel=True)
        assert [type(value) for value in got] == [Cancelled]
        held.wait_until_gone()
    assert os.listdir(tmp_path) == []


def test_stall_ends_four_silent_shards(ask: Ask, tmp_path: Path) -> None:
    with FakeBridge() as fake, files_of(fake, stall=LIMIT) as files:
        held = HeldShards(fake)
        value = ask(files.download, HASH, to=tmp_path / "out")
        assert type(value) is Timeout
        assert f"{fake.channel}: no progress for {LIMIT} s" in str(value)
        held.wait_until_gone()
        assert_workers_end()
    assert os.listdir(tmp_path) == []


def test_stall_is_renewed_by_progress_of_any_shard(ask: Ask, tmp_path: Path) -> None:
    done = threading.Event()

    def drip(connection: ServerConnection) -> None:
        for start in range(0, SHARD, SHARD // 16):
            connection.send(SHARDS[0][start : start + SHARD // 16])
            time.sleep(LIMIT / 4)  # the test is about time
        done.set()

    def follow(number: int) -> ShardHandler:
        def handle(connection: ServerConnection) -> None:
            done.wait(PATIENCE)
            connection.send(SHARDS[number])

        return handle

    with FakeBridge() as fake, files_of(fake, stall=LIMIT * 2) as files:
        fake.handlers = {0: drip, **{number: follow(number) for number in (1, 2, 3)}}
        value = ask(files.download, HASH, to=tmp_path / "out")
    assert value["size"] == len(DATA)
    assert (tmp_path / "out").read_bytes() == DATA


def test_timeout_of_one_silent_shard_ends_the_download(ask: Ask, tmp_path: Path) -> None:
    with FakeBridge() as fake, files_of(fake, timeout=(5, LIMIT)) as files:
        held = HeldShards(fake, range(2, 3))
        value = ask(files.download, HASH, "given", to=tmp_path / "out")
        assert type(value) is Timeout
        assert f"{fake.channel}: nothing came for {LIMIT} s" in str(value)
        held.wait_until_gone()
        assert_workers_end()
    assert os.listdir(tmp_path) == [part_path(tmp_path).name]


def test_ctrl_c_ends_four_shards_and_their_workers(tmp_path: Path) -> None:
    def press() -> None:
        held.wait()
        main = threading.main_thread().ident
        assert main
        signal.pthread_kill(main, signal.SIGINT)

    with FakeBridge() as fake, files_of(fake) as files:
        held = HeldShards(fake)
        pressing = threading.Thread(target=press)
        pressing.start()
        with pytest.raises(KeyboardInterrupt):
            files.download(HASH, to=tmp_path / "out")
        pressing.join(PATIENCE)
        held.wait_until_gone()
        assert_workers_end()
    assert os.listdir(tmp_path) == []


PROGRAM = """
import pymdc, sys
client = pymdc.Client(sys.argv[1])
files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
tell = lambda value: print(type(value).__name__)
files.download(sys.argv[2], None, tell, to=sys.argv[3]).join()
"""


def test_ctrl_c_ends_program_during_download_of_four_shards(tmp_path: Path) -> None:
    with FakeBridge() as fake:
        held = HeldShards(fake)
        command = [sys.executable, "-c", PROGRAM, fake.endpoint, HASH, str(tmp_path / "out")]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            held.wait()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            printed, errors = process.communicate(timeout=MINUTE)
        assert time.monotonic() - began < AT_ONCE
        held.wait_until_gone()
    assert printed == "Cancelled\n"
    assert "KeyboardInterrupt" in errors
    assert os.listdir(tmp_path) == []


def test_exception_of_progress_ends_silent_shards(ask: Ask, tmp_path: Path) -> None:
    error = ZeroDivisionError()

    def send(connection: ServerConnection) -> None:
        held.wait()
        connection.send(SHARDS[0])

    def stop(done: int, total: int | None) -> None:
        raise error

    with FakeBridge() as fake, files_of(fake) as files:
        held = HeldShards(fake, range(1, 4))
        fake.handlers[0] = send
        began = time.monotonic()
        assert ask(files.download, HASH, to=tmp_path / "out", progress=stop) is error
        assert time.monotonic() - began < AT_ONCE
        held.wait_until_gone()
        assert_workers_end()
    assert part_path(tmp_path).read_bytes() == SHARDS[0]


def test_exception_of_open_file_ends_silent_shard(ask: Ask) -> None:
    error = OSError(28, "No space left on device")

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if data:
                held.wait()
                raise error
            return 0

    with FakeBridge() as fake, files_of(fake) as files:
        held = HeldShards(fake, range(1, 2))
        began = time.monotonic()
        assert ask(files.download, HASH, to=Full()) is error
        assert time.monotonic() - began < AT_ONCE
        held.wait_until_gone()
        assert_workers_end()


def test_full_disk_ends_silent_shards(ask: Ask, tmp_path: Path) -> None:
    class Full(PartialFile):
        def write(self, block: Block, offset: int) -> None:
            raise OSError(28, "No space left on device", self.path)

    def send(connection: ServerConnection) -> None:
        held.wait()
        connection.send(SHARDS[0])

    with FakeBridge() as fake, files_of(fake) as files, pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "PartialFile", Full)
        held = HeldShards(fake, range(1, 4))
        fake.handlers[0] = send
        value = ask(files.download, HASH, to=tmp_path / "out")
        assert isinstance(value, OSError)
        held.wait_until_gone()
        assert_workers_end()
    assert os.listdir(tmp_path) == []


def test_next_shard_of_open_file_is_fetched_during_a_write(ask: Ask) -> None:
    asked = threading.Event()

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            assert not data or asked.wait(PATIENCE)
            return super().write(data)

    def handle(connection: ServerConnection) -> None:
        asked.set()
        connection.send(SHARDS[1])

    slow = Slow()
    with FakeBridge() as fake, files_of(fake) as files:
        fake.handlers[1] = handle
        assert ask(files.download, HASH, to=slow)["size"] == len(DATA)
    assert slow.getvalue() == DATA
    assert fake.requested == [*range(len(SHARDS))]


class ObservedClient(pymdc.Client):
    """A client that sets ``failed`` when a shard has failed.

    ``started`` counts the shards, and ``results`` is released once for the result of each.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.failed = threading.Event()
        self.started, self.results = 0, threading.Semaphore(0)

    def __enter__(self) -> ObservedClient:
        return self

    def spawn(self, job: Job, deliver: Callback) -> None:
        def deliver_and_report(value: Any) -> None:
            deliver(value)
            self.results.release()
            if isinstance(value, Exception):
                self.failed.set()

        self.started += 1
        super().spawn(job, deliver_and_report)


def test_slow_open_file_has_one_shard_waiting_for_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "_BLOCK", SHARD // 4)
    started: list[tuple[int, int]] = []

    class Slow(io.BytesIO):
        results = 0

        def write(self, data: Any) -> int:
            while data and self.results < min(
                self.tell() // SHARD + 2, len(SHARDS)
            ):  # the next one is not there
                assert client.results.acquire(timeout=PATIENCE)
                self.results += 1
            if data:
                started.append((self.tell() // SHARD, client.started))
            return super().write(data)

    slow = Slow()
    with FakeBridge() as fake, ObservedClient(fake.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        assert ask(files.download, HASH, to=slow)["size"] == len(DATA)
    assert slow.getvalue() == DATA
    assert all(count <= min(number + 2, len(SHARDS)) for number, count in started)


@pytest.mark.parametrize("handle", [send_damaged, refuse, drop])
def test_failed_shard_lets_running_shards_finish_and_starts_no_more(
    ask: Ask, tmp_path: Path, handle: ShardHandler
) -> None:
    asked = threading.Barrier(4)

    def fail(connection: ServerConnection) -> None:
        asked.wait(PATIENCE)
        handle(connection)

    def send_later(number: int) -> ShardHandler:
        def send(connection: ServerConnection) -> None:
            asked.wait(PATIENCE)
            assert client.failed.wait(PATIENCE)
            connection.send(SHARDS[number])

        return send

    with FakeBridge() as fake, ObservedClient(fake.endpoint) as client:
        fake.handlers = {0: fail, **{number: send_later(number) for number in (1, 2, 3)}}
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.download, HASH, "given", to=tmp_path / "out")
    assert isinstance(value, IntegrityError | ChannelError | ConnectionLost)
    assert sorted(fake.requested) == [*FOUR]
    assert part_path(tmp_path).read_bytes()[SHARD:] == DATA[SHARD : 4 * SHARD]


def test_first_failure_is_the_value(ask: Ask, tmp_path: Path) -> None:
    asked = threading.Barrier(4)

    def fail(connection: ServerConnection) -> None:
        asked.wait(PATIENCE)
        refuse(connection)

    def fail_later(connection: ServerConnection) -> None:
        asked.wait(PATIENCE)
        client.failed.wait(PATIENCE)
        send_damaged(connection)

    with FakeBridge() as fake, ObservedClient(fake.endpoint) as client:
        fake.handlers = {0: fail_later, 1: fail_later, 2: fail, 3: fail_later}
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.download, HASH, "given", to=tmp_path / "out")
    assert type(value) is ChannelError
    assert os.listdir(tmp_path) == []


def test_downloads_leak_no_worker_and_no_descriptor(tmp_path: Path) -> None:
    ends: list[tuple[ShardHandler | None, type]] = [
        (None, dict),
        (send_damaged, IntegrityError),
        (refuse, ChannelError),
    ]
    with FakeBridge() as fake, files_of(fake) as files:
        for to in (lambda: tmp_path / "out", io.BytesIO):
            for handle, kind in ends:
                fake.handlers = {} if handle is None else dict.fromkeys(FOUR, handle)
                assert type(files.download(HASH, "given", to=to())) is kind
            held = HeldShards(fake, FOUR if to is not io.BytesIO else range(1))
            call = files.download(HASH, None, lambda value: None, to=to())
            held.wait()
            call.cancel()
            assert type(call.result(PATIENCE)) is Cancelled
            held.wait_until_gone()
        assert_workers_end()
        assert not files._client.outstanding


class FewWorkersClient(pymdc.Client):
    """A client that has a worker only for the shards that *has_one* accepts."""

    def __init__(self, endpoint: str, has_one: Callable[[int], bool], **settings: Any) -> None:
        super().__init__(endpoint, **settings)
        self._has_one, self._asked = has_one, 0

    def __enter__(self) -> FewWorkersClient:
        return self

    def spawn(self, job: Job, deliver: Callback) -> None:
        self._asked += 1
        if self._has_one(self._asked):
            super().spawn(job, deliver)
        else:
            deliver(capture(job))


HAS_ONE: dict[str, Callable[[int], bool]] = {
    "never": lambda count: False,
    "first": lambda count: count == 1,
    "second": lambda count: count == 2,
    "by turns": lambda count: count % 2 == 0,
}


@pytest.mark.parametrize("has_one", HAS_ONE.values(), ids=HAS_ONE)
@pytest.mark.parametrize("to_file", [False, True])
def test_shards_are_fetched_in_turn_without_workers(
    ask: Ask, tmp_path: Path, has_one: Callable[[int], bool], to_file: bool
) -> None:
    file, reports = io.BytesIO(), list[int]()
    to = file if to_file else tmp_path / "out"
    with FakeBridge() as fake, FewWorkersClient(fake.endpoint, has_one) as client:
        fake.handlers |= {3: refuse, 8: refuse}
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.download, HASH, to=to, progress=lambda done, _: reports.append(done))
        assert value["size"] == len(DATA)
        assert fake.pointer_requests in (2, 3)
    assert (file.getvalue() if to_file else (tmp_path / "out").read_bytes()) == DATA
    assert reports == sorted(reports)
    assert reports[-1] == len(DATA)


@pytest.mark.parametrize("has_one", HAS_ONE.values(), ids=HAS_ONE)
@pytest.mark.parametrize("ending", ["cancel", "stall"])
def test_cancel_and_stall_end_shards_without_workers(
    tmp_path: Path, has_one: Callable[[int], bool], ending: str
) -> None:
    asked, got = threading.Event(), list[Any]()

    def hold(connection: ServerConnection) -> None:
        asked.set()
        with suppress(ConnectionClosed):
            connection.recv()

    stall = LIMIT if ending == "stall" else PATIENCE
    with FakeBridge() as fake, FewWorkersClient(fake.endpoint, has_one, stall=stall) as client:
        fake.handlers = dict.fromkeys(range(len(SHARDS)), hold)
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        call = files.download(HASH, None, got.append, to=tmp_path / "out")
        assert asked.wait(PATIENCE)
        if ending == "cancel":
            call.cancel()
        call.join(AT_ONCE)
    assert [type(value) for value in got] == [Cancelled if ending == "cancel" else Timeout]
    assert os.listdir(tmp_path) == []


# As Python 3.12.0 to 3.12.2 are once the main thread has ended.
WITHOUT_THREADS = """
import pymdc, sys, threading

endpoint, file_hash, to = sys.argv[1:]
client = pymdc.Client(endpoint, stall=0.5)
client._pool.threads.idle_seconds = 0.05
files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)

def callback(value):
    threading.main_thread().join()
    for thread in threading.enumerate():
        if thread.name.startswith("pymdc-") and thread is not threading.current_thread():
            if thread.name != "pymdc-monitor":
                thread.join()
    threading.stack_size(1 << 46)  # which no thread can have
    print(files.download(file_hash, to=to))
    files.download(file_hash, None, print, to=to)

client.run(lambda scope: None, callback)
"""


def test_shards_are_fetched_in_turn_after_main_thread_ended(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with FakeBridge() as fake:
        ended = python("-c", WITHOUT_THREADS, fake.endpoint, HASH, target)
    value = {"bucket": "b", "hash": HASH, "size": len(DATA), "path": str(target)}
    assert (ended.stdout, ended.stderr, ended.returncode) == (f"{value}\n" * 2, "", 0)
    assert target.read_bytes() == DATA
    assert fake.most_at_once == 1


def test_stall_is_enforced_after_main_thread_ended(tmp_path: Path) -> None:
    with FakeBridge() as fake:
        held = HeldShards(fake, range(2, 3))
        ended = python("-c", WITHOUT_THREADS, fake.endpoint, HASH, tmp_path / "out")
        held.wait_until_gone()
    assert "no progress for 0.5 s" in ended.stdout.splitlines()[0]
    assert (ended.stderr, ended.returncode) == ("", 0)


def test_shards_are_written_at_their_offsets_without_pwrite(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four = threading.Barrier(4)

    def meet(number: int) -> ShardHandler:
        def handle(connection: ServerConnection) -> None:
            four.wait(PATIENCE)
            connection.send(SHARDS[number])

        return handle

    monkeypatch.delattr(os, "pwrite")
    with FakeBridge() as fake:
        fake.handlers = {number: meet(number) for number in FOUR}
        assert download(ask, fake, tmp_path / "out")["size"] == len(DATA)
    assert (tmp_path / "out").read_bytes() == DATA

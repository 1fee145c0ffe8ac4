"""Random and damaged requests and frames, sent to the program: it refuses them and goes on serving.

The seed is printed; set FUZZ_SEED to repeat a run.
"""

from __future__ import annotations

import random
import re
import secrets
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import Popen

import pytest
from long_runs import seeded, wrong_lines
from nasty import Nasty
from plain_client import User, address, head
from processes import bridge_process

from pymdc.bridge import Bridge

REQUESTS = 20_000
FRAMES = 5_000
THREADS = 12
LIMIT = 1800  # seconds for each test
PATIENCE = 2  # seconds, of the bridge
HANG = 60  # seconds in which each connection has to end
GROWTH = 50  # MiB of the process, at most
WARM_UP = 1_000  # requests, before the memory is measured
DELIBERATE = {503, 507}  # the bridge is busy; its disk is full
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@pytest.fixture
def seed() -> Iterator[int]:
    with seeded("FUZZ_SEED", LIMIT) as seed:
        yield seed


class Target:
    """A bridge that runs as a program, with a file of *user*; *normal* is another user."""

    def __init__(
        self, bridge: Bridge, user: User, normal: User, process: Popen[str], log: Path
    ) -> None:
        self.bridge = bridge
        self.user = user
        self.bucket = user.bucket()
        self.file_hash: str = user.upload(self.bucket, b"stored").json["hash"]
        self._normal = normal
        self._normal_bucket = normal.bucket()
        self._process = process
        self._log = log

    def nasty(self, seed: int) -> Nasty:
        return Nasty(random.Random(seed), self.user, self.bucket, self.file_hash)

    def memory(self) -> float:
        """Return the resident memory of the bridge in MiB."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s*(\d+)", text)
        assert found
        return int(found[1]) / 1024

    def serve_normally(self) -> None:
        """Do what a normal user does, and check each answer."""
        data = secrets.token_bytes(1000)
        user, bucket = self._normal, self._normal_bucket
        file_hash = user.upload(bucket, data).json["hash"]
        assert user.download(bucket, file_hash) == data
        path = f"/buckets/{bucket}/files"
        assert [file["hash"] for file in user.ask("GET", path).json] == [file_hash]
        assert user.ask("DELETE", f"{path}/{file_hash}").status == 204

    def wrong_lines(self) -> list[str]:
        return wrong_lines(self._log)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    data, log = tmp_path / "data", tmp_path / "log"
    with Bridge(data) as bridge:
        users = User(bridge, "alice"), User(bridge, "bob")
    with open(log, "w") as stderr:
        options = "--patience", str(PATIENCE)
        with bridge_process(data, *options, stderr=stderr) as (bridge.endpoint, process):
            yield Target(bridge, *users, process, log)


def exchange(target: Target, pieces: list[bytes], answers: int) -> bytes:
    """Send *pieces* and return all that the bridge sends; fail if the connection does not end.

    Sending is over when *answers* have come, or nothing more comes for a while.
    """
    received, deadline = b"", time.monotonic() + HANG
    with socket.create_connection(address(target.bridge), timeout=HANG) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError, BrokenPipeError):
            ended = False
            while time.monotonic() < deadline:
                patience = 0.05 if len(_STATUS.findall(received)) >= answers else 1.5
                sending = [wire] if pieces else []
                readable, writable, _ = select.select(
                    [wire], sending, [], HANG if ended else patience
                )
                if readable:
                    more = wire.recv(65536)
                    if not more:
                        return received
                    received += more
                elif writable:
                    if not (rest := pieces[0][wire.send(pieces[0]) :]):
                        del pieces[0]
                    else:
                        pieces[0] = rest
                elif not ended:
                    wire.shutdown(socket.SHUT_WR)
                    ended = True
            raise TimeoutError("the connection does not end")
    return received


class Fuzz:
    """Runs *work* with one seed after the other on several threads; keeps what went wrong."""

    def __init__(self, target: Target, seed: int, work: Callable[[Nasty], int], count: int) -> None:
        self._target = target
        self._work = work
        self._lock = threading.Lock()
        self._seeds = iter(range(seed * 10**6, (seed + 1) * 10**6))
        self._left = count
        self.done = 0
        self.faults: list[str] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self._run_one) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self._target.serve_normally()
        for thread in threads:
            thread.join()

    def _run_one(self) -> None:
        while True:
            with self._lock:
                if self._left <= 0 or len(self.faults) > 20:
                    return
                seed = next(self._seeds)
            try:
                count = self._work(self._target.nasty(seed))
            except Exception as error:  # noqa: BLE001  # told with its seed
                count = 1
                self.faults.append(f"{seed}: {error!r}")
            with self._lock:
                self._left -= count
                self.done += count


def faults_in(received: bytes, sent: bytes) -> str:
    """Return what is wrong with the answers; empty if nothing is."""
    wrong = {int(status) for status in _STATUS.findall(received)} - DELIBERATE
    if any(status >= 500 for status in wrong) or b'"code":500' in received:
        return f"{sent[:300]!r} was answered with {received[:300]!r}"
    return ""


def test_requests_are_answered_or_refused(target: Target, seed: int) -> None:
    statuses: Counter[int] = Counter()

    def send(nasty: Nasty) -> int:
        requests = nasty.requests()
        sent = b"".join(requests)
        received = exchange(target, nasty.split(sent), len(requests))
        statuses.update(int(status) for status in _STATUS.findall(received))
        assert not (fault := faults_in(received, sent)), fault
        return len(requests)

    before = warmed_up(target, seed, send)
    fuzz = Fuzz(target, seed, send, REQUESTS)
    report(target, fuzz, before, statuses)


def test_frames_are_answered_or_refused(target: Target, seed: int) -> None:
    statuses: Counter[int] = Counter()
    fields = "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"
    upgrade = head("GET /", *fields, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")

    def send(nasty: Nasty) -> int:
        frames = nasty.frames()
        received = exchange(target, [upgrade, *nasty.split(b"".join(frames))], 1)
        statuses.update(int(status) for status in _STATUS.findall(received))
        assert not (fault := faults_in(received, b"".join(frames))), fault
        return len(frames)

    before = warmed_up(target, seed, send)
    fuzz = Fuzz(target, seed, send, FRAMES)
    report(target, fuzz, before, statuses)


def warmed_up(target: Target, seed: int, send: Callable[[Nasty], int]) -> float:
    """Return the memory of the bridge after a few requests of each kind."""
    warm_up = Fuzz(target, seed + 10**6, send, WARM_UP)
    warm_up.run()
    assert warm_up.faults == []
    return target.memory()


def report(target: Target, fuzz: Fuzz, before: float, statuses: Counter[int]) -> None:
    began = time.monotonic()
    fuzz.run()
    target.serve_normally()
    after, seconds = target.memory(), time.monotonic() - began
    print(f"{fuzz.done} in {seconds:.0f} s; {before:.0f} MiB, then {after:.0f} MiB")
    print("the answers", dict(statuses.most_common()))
    print(*fuzz.faults, *target.wrong_lines()[:80], sep="\n")
    assert fuzz.faults == []
    assert target.wrong_lines() == []
    assert after - before < GROWTH

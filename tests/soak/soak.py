"""Calls of every kind to a faulty server: each has one outcome, and nothing leaks.

The seed is printed; set SOAK_SEED to repeat a run.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import channels
import pytest
from faulty_bridge import DATA, FaultyBridge
from long_runs import seeded
from modes import register
from servers import RawServer, answer_all
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import Call, Cancelled
from pymdc._crypto.file_hash import file_hash
from pymdc.api import Bucket, Buckets, Keys, Users
from pymdc.rest import REST

CALLS = 25_000
THREADS = 16
LIMIT = 480  # seconds for each test
TIMEOUTS: dict[str, Any] = {"timeout": (2, 0.3), "total": 2, "stall": 2}

FILE = channels.DATA * 3
CANCELLED = 0.1  # of the calls with a callback
RECENT = 64  # latest calls with a callback: some are running, some are queued

Method = Callable[..., Any]


@pytest.fixture
def seed() -> Iterator[int]:
    with seeded("SOAK_SEED", LIMIT) as seed:
        yield seed


def methods(
    client: pymdc.Client, choose: random.Random, folder: Path
) -> list[Callable[[], tuple[Any, ...]]]:
    """Return functions that give each method of the API with arguments; files go to *folder*."""
    key_pair = pymdc.ECDSA()
    user = Users("soak@example.com", "pass", client=client)
    keys = Keys(user)
    buckets = Buckets(key_pair, client=client)
    bucket = Bucket("b", key_pair, client=client)
    files = bucket.files
    token = "t" * 64
    names = itertools.count()

    def download() -> tuple[Any, ...]:
        to: Any = choose.choice([io.BytesIO(), folder / f"file{next(names)}"])
        return partial(files.download, to=to), file_hash(FILE), choose.choice([None, token])

    return [
        lambda: (user.register,),
        lambda: (user.activate, token),
        lambda: (keys.list,),
        lambda: (keys.create, key_pair),
        lambda: (keys.delete, key_pair),
        lambda: (buckets.list,),
        lambda: (buckets.create, "name", 1, 1, [key_pair]),
        lambda: (bucket.list,),
        lambda: (bucket.patch, {"name": "other"}),
        lambda: (bucket.delete,),
        lambda: (files.list,),
        lambda: (files.token, "PUSH"),
        lambda: (files.upload, io.BytesIO(DATA), choose.choice([None, token])),
        lambda: (files.download, "0" * 40, choose.choice([None, token])),
        download,
        lambda: (files.delete, "0" * 40),
        lambda: (rest(client), "GET", "/x", {"a": "b"}, key_pair, {}),
    ]


def rest(client: pymdc.Client) -> Method:
    def request(method: str, path: str, *args: Any, callback: Any = None) -> Any:
        return REST(method, path, *args, callback=callback, client=client)  # type: ignore[misc]

    return request


def is_documented(value: object) -> bool:
    return isinstance(value, dict | list | str | pymdc.PymdcError)


class Soak:
    """Makes the calls, and keeps the outcomes of each by its number."""

    def __init__(self, client: pymdc.Client, seed: int, folder: Path) -> None:
        self._methods = methods(client, random.Random(seed), folder)
        self._numbers = itertools.count()
        self._seed = seed
        self.outcomes: dict[int, list[Any]] = {}
        self.kinds: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.cancelled: set[Call] = set()

    def run(self, thread: int) -> None:
        """Make calls, with and without a callback, until all are made."""
        choose = random.Random(self._seed * THREADS + thread)
        while (number := next(self._numbers)) < CALLS:
            method, *args = self._next(number)
            if choose.random() < 0.5:
                self._take(number, "blocking", method(*args))
                continue
            chains = choose.random() < 0.5
            call = method(*args, callback=self._callback(number, "callback", chains))
            self.calls.append(call)
            if choose.random() < CANCELLED:
                self._cancel(choose.choice(self.calls[-RECENT:]))

    def _cancel(self, call: Call) -> None:
        if call.cancel():
            self.cancelled.add(call)

    def _next(self, number: int) -> tuple[Any, ...]:
        self.outcomes[number] = []
        return self._methods[number % len(self._methods)]()

    def _callback(self, number: int, kind: str, chains: bool) -> Callable[[Any], None]:
        def callback(value: Any) -> None:
            self._take(number, kind, value)
            if chains and (following := next(self._numbers)) < CALLS:
                method, *args = self._next(following)
                call = method(*args, callback=self._callback(following, "chained", False))
                self.calls.append(call)

        return callback

    def _take(self, number: int, kind: str, value: Any) -> None:
        self.outcomes[number].append(value)
        self.kinds[kind] += 1


class FlakyChannel:
    """Sends a shard, or fails at random; *seed* determines when."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self, connection: ServerConnection) -> None:
        handlers = [channels.send_shard, drop, damage, stall]
        (handle,) = self._random.choices(handlers, [9, 1, 1, 1])
        with suppress(ConnectionClosed):
            handle(connection)


def drop(connection: ServerConnection) -> None:
    connection.send(channels.DATA[:5])


def damage(connection: ServerConnection) -> None:
    connection.send(channels.DATA[::-1])


def stall(connection: ServerConnection) -> None:
    connection.recv()


def descriptors() -> Counter[str]:
    """Count the open files, sockets and pipes of this process by their kind."""
    kinds: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        try:
            kinds[os.readlink(f"/proc/self/fd/{number}").partition(":")[0]] += 1
        except FileNotFoundError:
            continue  # the descriptor of this listing
    return kinds


@pytest.fixture
def channel(seed: int) -> Iterator[str]:
    """Give the URL of a channel that is open before threads are counted, and after."""
    with channels.websocket(FlakyChannel(seed)) as url:
        yield url


def test_call_has_one_outcome_and_leaks_nothing(seed: int, channel: str, tmp_path: Path) -> None:
    threads_before = set(threading.enumerate())
    warm_up(channel)  # its server has opened all its descriptors once it has served
    join_other_threads(threads_before)
    descriptors_before = descriptors()
    pointers = [{**channels.pointer(channel), "size": len(channels.DATA)}] * 3
    began = time.monotonic()
    with FaultyBridge(seed, pointers) as server:
        with pymdc.Client(server.endpoint, **TIMEOUTS) as client:
            soak = Soak(client, seed, tmp_path)
            run_together([partial(soak.run, number) for number in range(THREADS)])
    seconds = time.monotonic() - began

    values = [value for outcome in soak.outcomes.values() for value in outcome]
    reported = {call for call in soak.calls if isinstance(call.result(), Cancelled)}
    files = list(tmp_path.glob("file*"))
    print(f"{len(values)} outcomes in {seconds:.0f} s, {dict(soak.kinds)}")
    print("the server", dict(server.counts.most_common()))
    print("the values", dict(Counter(type(value).__name__ for value in values).most_common()))
    print(f"{len(soak.cancelled)} cancelled, {len(reported - soak.cancelled)} others report it")
    print(f"{len(files)} files fetched")
    counts = Counter(len(outcome) for outcome in soak.outcomes.values())
    assert counts == {1: CALLS}
    assert [value for value in values if not is_documented(value)] == []
    assert all(call.done() for call in soak.calls)
    assert len(soak.calls) == soak.kinds["callback"] + soak.kinds["chained"]
    assert reported == soak.cancelled
    assert sum(isinstance(value, Cancelled) for value in values) == len(reported)
    assert files
    assert all(file.read_bytes() == FILE for file in files)
    join_other_threads(threads_before)
    assert set(threading.enumerate()) <= threads_before
    assert descriptors() == descriptors_before


def warm_up(channel: str) -> None:
    """Request a shard from *channel* and ignore errors."""
    with pymdc.Client("http://127.0.0.1:1", **TIMEOUTS) as client, suppress(pymdc.PymdcError):
        list(channels.blocks(client, channels.pointer(channel)))


def join_other_threads(threads: set[threading.Thread]) -> None:
    """Wait for threads other than *threads* to end: the channel has one per connection."""
    for thread in set(threading.enumerate()) - threads:
        if not thread.name.startswith("pymdc-"):
            thread.join(LIMIT)


def run_together(works: list[Callable[[], None]]) -> None:
    """Run all *works* at once, each on its own thread."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_cancelled_calls_do_not_affect_others(seed: int) -> None:
    reported: Counter[str] = Counter()
    kept: list[object] = []

    def make(number: int) -> None:
        choose = random.Random(seed * THREADS + number)
        for _ in range(500):
            call = register(client, lambda value: None)
            cancels = choose.random() < 0.5
            call.join(choose.random() / 100 if cancels else None)
            if not (cancels and call.cancel()):
                kept.append(call.result())
            reported[type(call.result()).__name__] += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads switch at every place
    with RawServer(answer_all) as server, pymdc.Client(server.endpoint, workers=8) as client:
        run_together([partial(make, number) for number in range(THREADS)])
    sys.setswitchinterval(interval)
    print(dict(reported))
    assert reported["Cancelled"]
    assert kept == [[]] * len(kept)


CHAINS = """
import itertools, json, sys, threading
from collections import Counter
import pymdc

client = pymdc.Client(sys.argv[1], **json.loads(sys.argv[2]))
user = pymdc.api.Users("chains@example.com", "pass", client=client)
kinds, ended = Counter(), itertools.count(1)

def step(depth):
    def callback(value):
        threading.main_thread().join()
        kinds[isinstance(value, (dict, list, str, pymdc.PymdcError)), depth] += 1
        if depth < 5:
            user.register(step(depth + 1))
        elif next(ended) == 1_000:
            print(sorted(kinds.items()))
    return callback

for _ in range(1_000):
    user.register(step(1))
"""


def test_chains_finish_after_the_main_thread_has_ended(seed: int, tmp_path: Path) -> None:
    with FaultyBridge(seed) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", CHAINS, server.endpoint, json.dumps(TIMEOUTS)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    print("the server", dict(server.counts.most_common()))
    assert done.returncode == 0
    assert done.stdout == f"{[((True, depth), 1_000) for depth in range(1, 6)]}\n"

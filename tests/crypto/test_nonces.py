"""Nonces: calls at once with one key, under each rule of a bridge, all succeed."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue

import pytest
from accounts import Account
from modes import PATIENCE
from processes import MINUTE, bridge_process, python
from steps import at_each_step

import pymdc
from pymdc._crypto.nonces import Nonces
from pymdc.bridge import Bridge

CALLS = 1_000

OTHER_PROCESS = """
import logging, sys
import pymdc

class Counting(logging.Handler):
    count = 0

    def emit(self, record):
        self.count += record.levelno == logging.DEBUG

sendings, logger = Counting(), logging.getLogger("pymdc")
logger.setLevel(logging.DEBUG)
logger.addHandler(sendings)
logger.propagate = False
endpoint, calls = sys.argv[1], int(sys.argv[2])
key_pair = pymdc.ECDSA(private_key=sys.stdin.readline().strip())
got = []
with pymdc.Client(endpoint) as client:
    buckets = pymdc.api.Buckets(key_pair, client=client)
    buckets.list()
    print("ready", flush=True)
    sys.stdin.readline()
    sendings.count = 0
    for _ in range(calls):
        buckets.list(got.append)
print(sendings.count if got == [[]] * calls else [str(value) for value in got if value != []])
"""


@pytest.fixture
def sendings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect the end of the DEBUG line of each sending, which tells its number."""
    told: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.DEBUG:
                told.append(record.getMessage().rpartition(", ")[2])

    handler = Collecting()
    logger = logging.getLogger("pymdc")
    with caplog.at_level(logging.DEBUG, "pymdc"):
        logger.addHandler(handler)
        yield told
        logger.removeHandler(handler)


@contextmanager
def strict_bridge(data: Path) -> Iterator[tuple[str, pymdc.ECDSA]]:
    """Run a bridge with the rule of 2016; give its endpoint and a key pair that it knows."""
    with bridge_process(data, "--nonce-rule", "2016") as (endpoint, process):
        with pymdc.Client(endpoint) as client:
            user = pymdc.api.Users("nonces@example.com", "pass", client=client)
            user.register()
            assert process.stdout
            user.activate(process.stdout.readline().strip()[-64:])
            keys = pymdc.api.Keys(user)
            keys.create()
        yield endpoint, keys.key_pairs[0]


def list_buckets(endpoint: str, key_pair: pymdc.ECDSA) -> list[object]:
    """Make all calls at once, and return what their callbacks got."""
    got: list[object] = []
    with pymdc.Client(endpoint, workers=32) as client:
        buckets = pymdc.api.Buckets(key_pair, client=client)
        for _ in range(CALLS):
            buckets.list(got.append)
    return got


@contextmanager
def beside_another_process(endpoint: str, key_pair: pymdc.ECDSA) -> Iterator[SimpleQueue[int]]:
    """Let another process make the same calls while the block runs, all with success.

    How often it sent them is there afterwards.
    """
    sent = SimpleQueue[int]()
    with subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, endpoint, str(CALLS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin
        assert other.stdout
        other.stdin.write(key_pair.get_private_key() + "\n")
        other.stdin.flush()
        assert other.stdout.readline() == "ready\n"
        other.stdin.write("go\n")
        other.stdin.flush()
        yield sent
        told = other.communicate(timeout=MINUTE)[0]
        assert told.strip().isdecimal(), told
        sent.put(int(told))


def test_under_the_rule_of_2016_every_call_succeeds(tmp_path: Path, sendings: list[str]) -> None:
    with strict_bridge(tmp_path) as (endpoint, key_pair):
        sendings.clear()
        assert list_buckets(endpoint, key_pair) == [[]] * CALLS
    assert sendings.count("sending 1") == CALLS
    assert "sending 2" in sendings


def test_under_the_rule_of_2016_two_processes_succeed(tmp_path: Path) -> None:
    with strict_bridge(tmp_path) as (endpoint, key_pair):
        with beside_another_process(endpoint, key_pair):
            assert list_buckets(endpoint, key_pair) == [[]] * CALLS


def test_nothing_is_refused_where_each_nonce_is_good_once(
    bridge: Bridge, account: Account, sendings: list[str]
) -> None:
    sendings.clear()
    assert list_buckets(bridge.endpoint, account.key_pair) == [[]] * CALLS
    assert sendings == ["sending 1"] * CALLS


def test_nothing_of_two_processes_is_refused_where_each_nonce_is_good_once(
    bridge: Bridge, account: Account, sendings: list[str]
) -> None:
    sendings.clear()
    with beside_another_process(bridge.endpoint, account.key_pair) as sent:
        assert list_buckets(bridge.endpoint, account.key_pair) == [[]] * CALLS
    assert sendings == ["sending 1"] * CALLS
    assert sent.get_nowait() == CALLS


def standing(microseconds: int) -> Nonces:
    """Return nonces of a clock that stands still, without digits of their own."""
    return Nonces(lambda: 1000 * microseconds, lambda: "")


@pytest.mark.parametrize(
    ("nanoseconds", "nonce"),
    [
        (1_700_000_000_000_123_999, "1700000000000.123"),
        (1_700_000_000_000_000_000, "1700000000000.000"),
        (1_700_000_000_000_999_999, "1700000000000.999"),
        (4_102_444_800_000_000_001, "4102444800000.000"),
        (7_000, "0.007"),
    ],
)
def test_a_nonce_is_the_milliseconds_of_the_clock_with_three_decimals(
    nanoseconds: int, nonce: str
) -> None:
    assert Nonces(lambda: nanoseconds, lambda: "").next() == nonce


def test_a_nonce_is_the_milliseconds_of_now() -> None:
    before = time.time() * 1000
    assert before - 1 < float(Nonces().next()) < time.time() * 1000 + 1


def test_programs_that_come_to_the_same_thousandth_have_other_nonces() -> None:
    found = {Nonces(lambda: 3_000_000).next() for _ in range(20)}
    assert len(found) > 10
    assert all(re.fullmatch(r"3\.000\d{3}", nonce) for nonce in found)


@pytest.mark.parametrize("day", ["2016-03-24", "2033-05-18", "2039-09-08", "2100-01-01"])
def test_a_nonce_that_is_read_as_a_double_is_above_the_one_before(day: str) -> None:
    begin = int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())
    program = Nonces(lambda: 1_000_000_000 * begin - 1_000_000)
    found = [program.next() for _ in range(2_000)]
    assert all(re.fullmatch(r"\d{13}\.\d{6}", nonce) for nonce in found)
    for read in (float, json.loads):  # as it stands in a query, and in a body
        numbers = [read(nonce) for nonce in found]
        assert all(before < after for before, after in pairwise(numbers))


def test_where_the_clock_stands_a_nonce_is_a_thousandth_above_the_one_before() -> None:
    program = standing(3_000_998)
    assert [program.next() for _ in range(3)] == ["3000.998", "3000.999", "3001.000"]


def test_a_clock_that_goes_back_does_not_take_the_nonce_with_it() -> None:
    times = iter([100_000_000_000, 50_000_000_000, 100_000_002_000])
    program = Nonces(lambda: next(times), lambda: "")
    assert [program.next() for _ in range(3)] == ["100000.000", "100000.001", "100000.002"]


def test_no_two_threads_have_one_nonce() -> None:
    program = standing(1)
    found: list[list[float]] = [[] for _ in range(8)]

    def take(into: list[float]) -> None:
        into.extend(float(program.next()) for _ in range(1_000))

    threads = [threading.Thread(target=take, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert all(into == sorted(into) for into in found)
    assert len({nonce for into in found for nonce in into}) == 8_000


def test_a_nonce_that_another_one_interrupts_is_not_the_same() -> None:
    program, inner = standing(1), list[str]()

    def interrupt() -> None:
        inner.append(program.next())

    outer = at_each_step(program.next, interrupt)
    found = [float(nonce) for nonce in (*outer, *inner)]
    assert len(outer) > 10
    assert len(set(found)) == len(found)
    assert float(program.next()) > max(found)


SIGNALLED = """
import faulthandler, signal
from pymdc._crypto.nonces import nonces

faulthandler.dump_traceback_later(20, exit=True)
found = []
signal.signal(signal.SIGALRM, lambda number, frame: found.extend((nonces.next(), nonces.next())))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for _ in range(100_000):
    found.append(nonces.next())
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(found) > 100_000, len(set(found)) == len(found))
"""


def test_a_signal_handler_may_take_a_nonce_at_any_moment() -> None:
    assert python("-c", SIGNALLED).stdout == "True True\n"

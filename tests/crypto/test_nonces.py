"""Nonces: calls at once with one key succeed under each nonce rule of the bridge."""

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
from modes import PATIENCE
from processes import MINUTE, bridge_process, python
from steps import at_each_step

import pymdc
from pymdc._crypto.nonces import Nonces
from pymdc.bridge import Bridge
from pymdc.testing import Account

CALLS = 400

OTHER_PROCESS = """
import logging, sys
import pymdc

class Counting(logging.Handler):
    count = 0

    def emit(self, record):
        self.count += record.levelno == logging.DEBUG

attempts, logger = Counting(), logging.getLogger("pymdc")
logger.setLevel(logging.DEBUG)
logger.addHandler(attempts)
logger.propagate = False
endpoint, calls = sys.argv[1], int(sys.argv[2])
key_pair = pymdc.ECDSA(private_key=sys.stdin.readline().strip())
got = []
with pymdc.Client(endpoint) as client:
    buckets = pymdc.api.Buckets(key_pair, client=client)
    buckets.list()
    print("ready", flush=True)
    sys.stdin.readline()
    attempts.count = 0
    for _ in range(calls):
        buckets.list(got.append)
print(attempts.count if got == [[]] * calls else [str(value) for value in got if value != []])
"""


@pytest.fixture
def attempts(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect the end of the DEBUG line of each attempt, which is its number."""
    printed: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.DEBUG:
                printed.append(record.getMessage().rpartition(", ")[2])

    handler = Collecting()
    logger = logging.getLogger("pymdc")
    with caplog.at_level(logging.DEBUG, "pymdc"):
        logger.addHandler(handler)
        yield printed
        logger.removeHandler(handler)


@contextmanager
def strict_bridge(data: Path) -> Iterator[tuple[str, pymdc.ECDSA]]:
    """Run a bridge with the rule of 2016; yield its endpoint and a registered key pair."""
    with bridge_process(data, "--nonce-rule", "2016", "--log-level", "warning") as (
        endpoint,
        process,
    ):
        with pymdc.Client(endpoint) as client:
            user = pymdc.api.Users("nonces@example.com", "pass", client=client)
            user.register()
            assert process.stdout
            user.activate(process.stdout.readline().strip()[-64:])
            keys = pymdc.api.Keys(user)
            keys.create()
        yield endpoint, keys.key_pairs[0]


def list_buckets(endpoint: str, key_pair: pymdc.ECDSA) -> list[object]:
    """Make all calls at once, and return the values that their callbacks got."""
    got: list[object] = []
    with pymdc.Client(endpoint, workers=32) as client:
        buckets = pymdc.api.Buckets(key_pair, client=client)
        for _ in range(CALLS):
            buckets.list(got.append)
    return got


@contextmanager
def other_process_calling(endpoint: str, key_pair: pymdc.ECDSA) -> Iterator[SimpleQueue[int]]:
    """Let another process make the same calls while the block runs; check that all succeed.

    The queue holds its number of attempts afterwards.
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
        printed = other.communicate(timeout=MINUTE)[0]
        assert printed.strip().isdecimal(), printed
        sent.put(int(printed))


def test_calls_at_once_succeed_under_rule_of_2016(tmp_path: Path, attempts: list[str]) -> None:
    with strict_bridge(tmp_path) as (endpoint, key_pair):
        attempts.clear()
        assert list_buckets(endpoint, key_pair) == [[]] * CALLS
    assert attempts.count("attempt 1") == CALLS
    assert "attempt 2" in attempts


def test_two_processes_succeed_under_rule_of_2016(tmp_path: Path) -> None:
    with strict_bridge(tmp_path) as (endpoint, key_pair):
        with other_process_calling(endpoint, key_pair):
            assert list_buckets(endpoint, key_pair) == [[]] * CALLS


def test_calls_at_once_are_sent_once_under_rule_once(
    bridge: Bridge, account: Account, attempts: list[str]
) -> None:
    attempts.clear()
    assert list_buckets(bridge.endpoint, account.key_pair) == [[]] * CALLS
    assert attempts == ["attempt 1"] * CALLS


def test_two_processes_send_each_call_once_under_rule_once(
    bridge: Bridge, account: Account, attempts: list[str]
) -> None:
    attempts.clear()
    with other_process_calling(bridge.endpoint, account.key_pair) as sent:
        assert list_buckets(bridge.endpoint, account.key_pair) == [[]] * CALLS
    assert attempts == ["attempt 1"] * CALLS
    assert sent.get_nowait() == CALLS


def stopped_clock(microseconds: int) -> Nonces:
    """Return nonces of a clock that stands still, without random digits."""
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
def test_nonce_is_milliseconds_of_clock_with_three_decimals(nanoseconds: int, nonce: str) -> None:
    assert Nonces(lambda: nanoseconds, lambda: "").next() == nonce


def test_nonce_is_current_time_in_milliseconds() -> None:
    before = time.time() * 1000
    assert before - 1 < float(Nonces().next()) < time.time() * 1000 + 1


def test_programs_have_different_nonces_in_same_microsecond() -> None:
    found = {Nonces(lambda: 3_000_000).next() for _ in range(20)}
    assert len(found) > 10
    assert all(re.fullmatch(r"3\.000\d{3}", nonce) for nonce in found)


@pytest.mark.parametrize("day", ["2016-03-24", "2033-05-18", "2039-09-08", "2100-01-01"])
def test_nonces_read_as_doubles_increase(day: str) -> None:
    begin = int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp())
    nonces = Nonces(lambda: 1_000_000_000 * begin - 1_000_000)
    found = [nonces.next() for _ in range(2_000)]
    assert all(re.fullmatch(r"\d{13}\.\d{6}", nonce) for nonce in found)
    for read in (float, json.loads):  # as a query and a body are parsed
        numbers = [read(nonce) for nonce in found]
        assert all(before < after for before, after in pairwise(numbers))


def test_nonce_increases_by_a_thousandth_while_clock_stands_still() -> None:
    nonces = stopped_clock(3_000_998)
    assert [nonces.next() for _ in range(3)] == ["3000.998", "3000.999", "3001.000"]


def test_nonces_increase_when_clock_goes_back() -> None:
    times = iter([100_000_000_000, 50_000_000_000, 100_000_002_000])
    nonces = Nonces(lambda: next(times), lambda: "")
    assert [nonces.next() for _ in range(3)] == ["100000.000", "100000.001", "100000.002"]


def test_threads_never_share_nonce() -> None:
    nonces = stopped_clock(1)
    found: list[list[float]] = [[] for _ in range(8)]

    def take(into: list[float]) -> None:
        into.extend(float(nonces.next()) for _ in range(1_000))

    threads = [threading.Thread(target=take, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert all(into == sorted(into) for into in found)
    assert len({nonce for into in found for nonce in into}) == 8_000


def test_interrupted_nonce_differs_from_interrupting_one() -> None:
    nonces, inner = stopped_clock(1), list[str]()

    def interrupt() -> None:
        inner.append(nonces.next())

    outer = at_each_step(nonces.next, interrupt)
    found = [float(nonce) for nonce in (*outer, *inner)]
    assert len(outer) > 10
    assert len(set(found)) == len(found)
    assert float(nonces.next()) > max(found)


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


def test_signal_handler_may_take_nonce_at_any_moment() -> None:
    assert python("-c", SIGNALLED).stdout == "True True\n"

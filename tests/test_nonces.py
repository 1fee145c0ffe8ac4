"""Nonces: calls at once with one key, under each rule of a bridge, all succeed."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Account
from modes import PATIENCE
from processes import MINUTE, bridge_process

import pymdc
from pymdc._again import Sendings
from pymdc._auth import Signature
from pymdc._nonces import Nonces
from pymdc._request import settle
from pymdc._scope import Scope
from pymdc._turn import Turn
from pymdc.bridge import Bridge

CALLS = 1_000

OTHER_PROCESS = """
import sys
import pymdc

endpoint, calls = sys.argv[1], int(sys.argv[2])
key_pair = pymdc.ECDSA(private_key=sys.stdin.readline().strip())
got = []
with pymdc.Client(endpoint) as client:
    buckets = pymdc.api.Buckets(key_pair, client=client)
    buckets.list()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(calls):
        buckets.list(got.append)
print(got == [[]] * calls or [str(value) for value in got if value != []], flush=True)
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
def beside_another_process(endpoint: str, key_pair: pymdc.ECDSA) -> Iterator[None]:
    """Let another process make the same calls while the block runs, all with success."""
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
        yield
        assert other.communicate(timeout=MINUTE)[0] == "True\n"


def test_under_the_rule_of_2016_every_call_succeeds(tmp_path: Path, sendings: list[str]) -> None:
    with strict_bridge(tmp_path) as (endpoint, key_pair):
        sendings.clear()
        assert list_buckets(endpoint, key_pair) == [[]] * CALLS
    assert sendings.count("sending 1") == CALLS
    assert "sending 2" in sendings


def test_under_the_rule_of_2016_two_processes_succeed(tmp_path: Path) -> None:
    with strict_bridge(tmp_path) as (endpoint, key_pair):
        # Two new ones: the nonces of this process may run far ahead of the clock after other tests.
        with beside_another_process(endpoint, key_pair):
            with beside_another_process(endpoint, key_pair):
                pass


def test_nothing_is_refused_where_each_nonce_is_good_once(
    bridge: Bridge, account: Account, sendings: list[str]
) -> None:
    sendings.clear()
    assert list_buckets(bridge.endpoint, account.key_pair) == [[]] * CALLS
    assert sendings == ["sending 1"] * CALLS


def test_two_processes_succeed_where_each_nonce_is_good_once(
    bridge: Bridge, account: Account
) -> None:
    with beside_another_process(bridge.endpoint, account.key_pair):
        assert list_buckets(bridge.endpoint, account.key_pair) == [[]] * CALLS


REQUEST = settle("GET", "/x")


def test_a_nonce_runs_ahead_the_further_the_more_were_refused() -> None:
    key_pair = pymdc.ECDSA()
    signed = [Signature(key_pair, Nonces(lambda: 3.0)).sign(REQUEST, n) for n in range(4)]
    assert [request.payload for request in signed] == [
        f"__nonce={nonce}" for nonce in (3000, 3005, 3020, 3080)
    ]


def test_who_signs_waits_for_the_one_before_once_a_nonce_was_refused() -> None:
    turn, signs = Turn(), Signature(pymdc.ECDSA())
    order: list[str] = []

    def follow() -> None:
        with turn.of(Sendings(REQUEST, signs), Scope()):
            order.append("second")

    with turn.of(Sendings(REQUEST, signs, stale=1), Scope()):
        assert turn._until
        turn._until = math.inf  # however long this takes
        following = threading.Thread(target=follow)
        following.start()
        following.join(0.1)
        order.append("first")
    following.join(PATIENCE)
    assert order == ["first", "second"]

"""Nonces: calls at once with one key, under each rule of a bridge, all succeed."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
from conftest import Account
from modes import PATIENCE
from processes import MINUTE, bridge_process, python

import pymdc
from pymdc._again import Sendings
from pymdc._auth import Signature
from pymdc._nonces import AT_ONCE, Nonces, Note
from pymdc._request import settle
from pymdc._scope import Scope
from pymdc._turn import Turn
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


def noting(path: Path, seconds: float = 3.0) -> Nonces:
    return Nonces(lambda: seconds, Note(lambda: str(path)))


def test_programs_take_what_no_other_has_taken(tmp_path: Path) -> None:
    one, two = noting(tmp_path / "note"), noting(tmp_path / "note")
    taken = [[program.next() for _ in range(1000)] for program in (one, two, one)]
    assert all(nonces == sorted(nonces) for nonces in taken)
    found = [nonce for nonces in taken for nonce in nonces]
    assert len(set(found)) == 3000
    assert max(found) < 3000 + 3000 + 2 * AT_ONCE, (
        "only what is left of one taking each is left out"
    )
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600


def test_a_short_program_takes_little_in_advance(tmp_path: Path) -> None:
    for first in (3000, 3007, 3014):
        program = noting(tmp_path / "note")
        assert [program.next() for _ in range(4)] == list(range(first, first + 4))
    for _ in range(2_000):
        program.next()
    assert noting(tmp_path / "note").next() <= 3018 + 2_000 + AT_ONCE


def test_what_is_not_used_in_its_time_is_not_used(tmp_path: Path) -> None:
    times = iter((3.0, 3.001, 3.1))
    program = Nonces(lambda: next(times), Note(lambda: str(tmp_path / "note")))
    assert [program.next() for _ in range(3)] == [3000, 3001, 3100]


def test_programs_take_turns_once_one_was_refused(tmp_path: Path) -> None:
    one, two = noting(tmp_path / "note"), noting(tmp_path / "note")
    first = one.next()
    assert two.next() > first
    in_order = [one.next(ahead=1), two.next(ahead=1), one.next(), two.next(), one.next()]
    assert in_order == list(range(in_order[0], in_order[0] + 5))
    assert two.next(ahead=5000) == 8000
    assert one.next() == 8001


def test_a_note_that_is_far_ahead_is_the_mistake_of_a_clock(tmp_path: Path) -> None:
    path, wrong = tmp_path / "note", 603.5
    early = noting(path, wrong)
    assert early.next() == 603500
    assert noting(path).next() == 3000
    assert noting(path).next() == 3001, "what was noted by mistake is gone"


def test_programs_that_ran_while_the_clock_was_set_back_share_no_nonce(tmp_path: Path) -> None:
    seconds = 10_000.0
    one, two = (Nonces(lambda: seconds, Note(lambda: str(tmp_path / "note"))) for _ in range(2))
    found = [program.next() for program in (one, two)]
    seconds = 3.0
    found += [program.next() for program in (one, two) * 400]
    assert len(set(found)) == len(found)


def test_what_is_no_note_is_made_one(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for garbage in (b"", b"abc", b"\xff" * 8, b"\xff" * 7 + b"\x7f"):
        path.write_bytes(garbage)
        assert [noting(path).next(), noting(path).next()] == [3000, 3001]


@pytest.mark.parametrize("what", ["no folder", "folder", "symlink", "hard link", "pipe", "owner"])
def test_where_nothing_can_be_noted_a_program_goes_on_alone(tmp_path: Path, what: str) -> None:
    path, other = tmp_path / "note", tmp_path / "other"
    other.write_bytes(b"a file of somebody else")
    if what == "no folder":
        path = tmp_path / "none" / "note"
    elif what == "folder":
        path.mkdir()
    elif what == "symlink":
        path.symlink_to(other)
    elif what == "hard link":
        path.hardlink_to(other)
    elif what == "pipe":
        os.mkfifo(path)
    elif os.geteuid():
        pytest.skip("only root can give a file to another user")
    else:
        path.touch()
        os.chown(path, 1, 1)
    program = noting(path)
    assert [program.next() for _ in range(40)] == list(range(3000, 3040))
    assert other.read_bytes() == b"a file of somebody else"
    assert what != "owner" or not path.read_bytes()


FULL = """
import resource, sys
from pymdc._nonces import Note

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(Note(lambda: sys.argv[1]).take(3000, 16))
"""


def test_on_a_full_disk_what_is_noted_counts(tmp_path: Path) -> None:
    noting(tmp_path / "note").next()
    assert python("-c", FULL, str(tmp_path / "note")).stdout == "3001\n"


HELD = """
import fcntl, signal, sys

signal.signal(signal.SIGIO, signal.SIG_IGN)
with open(sys.argv[1], "wb") as file:
    if sys.argv[2] == "lock":
        fcntl.flock(file, fcntl.LOCK_EX)
    else:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["lock", "lease"])
def test_nobody_waits_long_for_a_program_that_holds_the_note(tmp_path: Path, how: str) -> None:
    path = tmp_path / "note"
    with subprocess.Popen(
        [sys.executable, "-c", HELD, str(path), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        program, found = noting(path), SimpleQueue[int]()
        threads = [threading.Thread(target=lambda: found.put(program.next())) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert [found.get_nowait() for _ in threads] == list(range(3000, 3032))
        other.communicate("go on\n", timeout=MINUTE)
    assert path.read_bytes() == b""
    assert program.next(ahead=1) == 3032
    assert noting(path).next() == 3033


def test_a_note_keeps_no_descriptor(tmp_path: Path) -> None:
    program, before = noting(tmp_path / "note"), len(os.listdir("/dev/fd"))
    for _ in range(100):
        program.next()
    assert len(os.listdir("/dev/fd")) == before


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

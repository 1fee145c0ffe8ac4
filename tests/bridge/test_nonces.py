"""The rules for nonces."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from backends import Backend
from plain_client import Clock, Reply, User

from pymdc.bridge import Bridge
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.nonces import RULES, AsIn2016, NonceRule, Once
from pymdc.bridge.storage.tables import used_nonces

INVALID_NONCE = (401, "Invalid nonce supplied")
NO_BUCKET = (404, "Bucket not found")


def test_replay_is_refused(alice: User) -> None:
    assert alice.ask("GET", "/keys", nonce=5).status == 200
    assert alice.ask("GET", "/keys", nonce=5).error == INVALID_NONCE


@pytest.mark.parametrize("nonce", [1458820800, 1458820800123])
def test_requests_may_share_a_nonce_and_none_may_be_repeated(alice: User, nonce: int) -> None:
    def create(name: str, high_s: bool = False) -> Reply:
        return alice.ask("POST", "/buckets", {"name": name}, nonce=nonce, high_s=high_s)

    names = [f"bucket {number}" for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        assert {reply.status for reply in pool.map(create, names)} == {200}
        for high_s in (False, True):
            replays = pool.map(create, names, [high_s] * 100)
            assert {reply.error for reply in replays} == {INVALID_NONCE}
    created = alice.ask("GET", "/buckets").json
    assert sorted(bucket["name"] for bucket in created) == sorted(names)


def test_one_of_simultaneous_replays_succeeds(alice: User) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = pool.map(lambda _: alice.ask("POST", "/buckets", {}, nonce=5).status, range(16))
        assert sorted(replies) == [200] + [401] * 15
    assert len(alice.ask("GET", "/buckets").json) == 1


def test_nonce_of_a_failed_request_is_used_up(alice: User) -> None:
    path = f"/buckets/{24 * '0'}"
    assert alice.ask("GET", path, nonce=5).error == NO_BUCKET
    assert alice.ask("GET", path, nonce=5).error == INVALID_NONCE


def test_nonce_in_another_spelling_is_the_same(alice: User) -> None:
    assert alice.ask("POST", "/buckets", {}, nonce=16, k=99).status == 200
    for spelling in ("16", "0x10", 16.0, "1.6e1"):
        assert alice.ask("POST", "/buckets", {}, nonce=spelling, k=99).error == INVALID_NONCE
        assert alice.ask("POST", "/buckets", {}, nonce=spelling).status == 200, "another r"
    assert alice.ask("POST", "/buckets", {}, nonce=17, k=99).status == 200, "another nonce"


def test_nonces_may_come_in_any_order(alice: User) -> None:
    assert [alice.ask("GET", "/keys", nonce=nonce).status for nonce in (9, 7, 8)] == [200] * 3


def test_huge_nonce_locks_nobody_out(alice: User) -> None:
    assert alice.ask("GET", "/keys", nonce="1e300").status == 200
    assert alice.ask("GET", "/keys").status == 200


def test_rule_of_2016_accepts_a_replay_and_locks_out(backend: Backend) -> None:
    with backend.bridge(nonce_rule="2016") as bridge:
        user = User(bridge, "alice")
        assert [user.ask("GET", "/keys", nonce=9).status for _ in "12"] == [200, 200]
        assert user.ask("GET", "/keys", nonce=8).error == INVALID_NONCE
        assert user.ask("GET", "/keys", nonce=2**53).status == 200
        assert user.ask("GET", "/keys").error == INVALID_NONCE


def test_signed_requests_below_the_window_are_refused(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "once", partial(Once, window=3, prune_every=1))
    now = int(time.time() * 1000)
    with backend.bridge() as bridge:
        user = User(bridge, "alice")
        later = [user.ask("GET", "/keys", nonce=now + minute * 60_000) for minute in range(5, 10)]
        assert {reply.status for reply in later} == {200}
        assert user.ask("GET", "/keys", nonce=now + 2 * 60_000).error == INVALID_NONCE
        assert user.ask("GET", "/keys", nonce=now + 8 * 60_000 + 1).status == 200


@pytest.fixture
def database(backend: Backend) -> Iterator[Database]:
    with closing(backend.open_database()) as opened:
        yield opened


def used(
    database: Database, rule: NonceRule, owner: str, *nonces: float, r: str | None = None
) -> list[bool]:
    """Use each nonce, with *r* or a new r; return which ones were accepted."""
    result = []
    for nonce in nonces:
        with database.write() as connection:
            result.append(rule.use(connection, [owner], nonce, r or secrets.token_hex(32)))
    return result


def test_window_keeps_the_largest_and_refuses_smaller_ones(database: Database) -> None:
    rule = Once(window=3, prune_every=1)
    assert used(database, rule, "a", 10, 20, 30, 40, 50, r="r") == [True] * 5
    assert used(database, rule, "a", 5, 10, 20, r="r") == [False] * 3, "below the window"
    assert used(database, rule, "a", 10, 20) == [False] * 2, "below the window, with another r"
    assert used(database, rule, "a", 30, 40, 50, r="r") == [False] * 3, "in the window, but used"
    assert used(database, rule, "a", 25, 45, r="r") == [True] * 2, "in the window"
    assert used(database, rule, "b", 5, r="r") == [True], "the nonces of another owner"


@pytest.mark.parametrize("last", [[50] * 9, [40] * 5 + [50] * 2, [30, 40, 40, 40, 50]])
def test_window_forgets_all_uses_of_a_nonce_or_none(database: Database, last: list[float]) -> None:
    rule = Once(window=3, prune_every=1)
    assert used(database, rule, "a", 10, 20, r="r") == [True] * 2
    assert used(database, rule, "a", 40, 50, r="r") == [True] * 2
    assert used(database, rule, "a", *last) == [True] * len(last)
    assert used(database, rule, "a", 10, 20, 40, 50, r="r") == [False] * 4, "a replay"
    assert used(database, rule, "a", max(last)) == [True], "a new r"


def test_uses_below_the_window_are_deleted(database: Database) -> None:
    rule = Once(window=3, prune_every=1)
    used(database, rule, "a", 10, 20, 30, 40, 50)
    with database.read() as connection:
        kept = connection.execute(sa.select(used_nonces.c.nonce)).scalars().all()
    assert kept == [20, 30, 40, 50], "20 is refused, and its use is deleted the next time"
    assert used(database, rule, "a", 20, 60) == [False, True]
    with database.read() as connection:
        assert connection.execute(sa.select(used_nonces.c.nonce)).scalars().all() == [
            30,
            40,
            50,
            60,
        ]


def test_rule_can_be_changed_between_runs(database: Database) -> None:
    assert used(database, AsIn2016(), "a", 10, 10, 9) == [True, True, False]
    assert used(database, Once(), "a", 10, 9, 11) == [False, False, True]


def test_nonce_used_with_an_older_bridge_is_refused(data: Path) -> None:
    data.mkdir()
    # Written by a bridge that stored no r: alice, and the nonces of her requests.
    with closing(sqlite3.connect(data / "metadata.sqlite")) as older:
        older.executescript((Path(__file__).parent / "old_nonces.sql").read_text("utf-8"))
    with Bridge(data) as bridge:
        alice = User(bridge, "alice", known=True)
        for nonce in (5, 7, "1e300"):
            assert alice.ask("GET", "/keys", nonce=nonce).error == INVALID_NONCE
        assert [alice.ask("GET", "/keys", nonce=nonce).status for nonce in (6, 8)] == [200, 200]
        assert alice.ask("GET", "/keys").status == 200


def test_nonces_do_not_depend_on_the_clock(alice: User, clock: Clock) -> None:
    clock.seconds += 10**6
    assert alice.ask("GET", "/keys", nonce=1).status == 200

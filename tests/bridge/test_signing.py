"""Who may ask: signatures, and the nonces in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.asking import Clock, Key, User, ask
from pymdc.bridge import Bridge
from pymdc.bridge.metadata import Database
from pymdc.bridge.nonces import AsIn2016, Once, Rule

NOT_FRESH = (401, "Invalid nonce supplied")
NO_BUCKET = (404, "Bucket not found")


@pytest.mark.parametrize("high_s", [True, False])
def test_either_s_is_accepted(alice: User, high_s: bool) -> None:
    assert alice.ask("GET", "/keys", high_s=high_s).status == 200


@pytest.mark.parametrize("text", ["zz", "0x12", "abc", "30 44", "\xe9\xe9", "30g4"])
@pytest.mark.parametrize("header", ["x-pubkey", "x-signature"])
def test_what_is_not_hexadecimal_is_no_signature(alice: User, header: str, text: str) -> None:
    signature = alice.key.sign("GET\n/keys\n__nonce=5")
    headers = {"x-pubkey": alice.key.public, "x-signature": signature, header: text}
    reply = ask(alice.bridge, "GET", "/keys?__nonce=5", None, headers)
    assert reply.error == (401, "Invalid signature")


def test_replay_is_refused(alice: User) -> None:
    assert alice.ask("GET", "/keys", nonce=5).status == 200
    assert alice.ask("GET", "/keys", nonce=5).error == NOT_FRESH


def test_query_does_not_stand_for_a_body_nor_a_body_for_a_query(alice: User) -> None:
    query, body = "__nonce=5", '{"__nonce":5}'
    for method, signed in (("POST", query), ("GET", body)):
        signature = alice.key.sign(f"{method}\n/buckets\n{signed}")
        headers = {"x-pubkey": alice.key.public, "x-signature": signature}
        reply = ask(alice.bridge, method, f"/buckets?{query}", body * (method == "GET"), headers)
        assert reply.error == (401, "Invalid signature")


def test_nonce_is_spent_by_a_request_that_fails(alice: User) -> None:
    path = f"/buckets/{24 * '0'}"
    assert alice.ask("GET", path, nonce=5).error == NO_BUCKET
    assert alice.ask("GET", path, nonce=5).error == NOT_FRESH


def test_same_number_in_another_spelling_is_a_replay(alice: User) -> None:
    assert alice.ask("POST", "/buckets", {}, nonce=16).status == 200
    for spelling in ("16", "0x10", 16.0, "1.6e1"):
        assert alice.ask("POST", "/buckets", {}, nonce=spelling).error == NOT_FRESH


def test_nonces_may_come_in_any_order(alice: User) -> None:
    assert [alice.ask("GET", "/keys", nonce=nonce).status for nonce in (9, 7, 8)] == [200] * 3


def test_huge_nonce_locks_nobody_out(alice: User) -> None:
    assert alice.ask("GET", "/keys", nonce="1e300").status == 200
    assert alice.ask("GET", "/keys").status == 200


@pytest.mark.parametrize("nonce", ["", "0", "-1"])
def test_nonce_that_is_none_is_refused(alice: User, nonce: str) -> None:
    assert alice.ask("GET", "/keys", nonce=nonce).error == NOT_FRESH


@pytest.mark.parametrize("nonce", ["abc", "1_000", "nan", "inf", "1e400", 10**400, True, [1]])
def test_nonce_that_is_no_number_is_refused(alice: User, nonce: object) -> None:
    assert alice.ask("POST", "/buckets", {}, nonce=nonce).error == (400, "User validation failed")


def test_rule_of_2016_accepts_a_replay_and_locks_out(tmp_path: Path) -> None:
    with Bridge(tmp_path, nonce_rule="2016") as bridge:
        user = User(bridge, "alice")
        assert [user.ask("GET", "/keys", nonce=9).status for _ in "12"] == [200, 200]
        assert user.ask("GET", "/keys", nonce=8).error == NOT_FRESH
        assert user.ask("GET", "/keys", nonce=2**53).status == 200
        assert user.ask("GET", "/keys").error == NOT_FRESH


def test_listed_key_makes_tokens_with_a_fresh_nonce(
    alice: User, rows: Callable[[str], int]
) -> None:
    guest, stranger = Key("guest"), Key("stranger")
    path = f"/buckets/{alice.bucket(pubkeys=[guest.public])}/tokens"
    fields = {"operation": "PULL"}
    assert alice.ask("POST", path, fields, key=guest, nonce=5).status == 200
    assert alice.ask("POST", path, fields, key=guest, nonce=5).error == NOT_FRESH
    assert alice.ask("POST", path, fields, nonce=5).status == 200, "the owner's nonces are others"
    before = rows("nonces")
    assert alice.ask("POST", path, fields, key=stranger).error == NO_BUCKET
    assert rows("nonces") == before, "a stranger leaves nothing behind"
    assert alice.ask("GET", "/keys", key=guest).error == (401, "Public key not registered")


def test_request_is_no_fresher_when_its_key_is_no_longer_registered(alice: User) -> None:
    bucket = alice.bucket()
    path, fields = f"/buckets/{bucket}/tokens", {"operation": "PULL"}
    assert alice.ask("POST", path, fields, nonce=5).status == 200
    assert alice.ask("DELETE", f"/keys/{alice.key.public}").status == 200
    assert alice.ask("POST", path, fields, nonce=5).error == NOT_FRESH
    assert alice.ask("POST", path, fields).status == 200, "the bucket still lists it"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{tmp_path / 'nonces.sqlite'}")) as opened:
        yield opened


def taken(database: Database, rule: Rule, owner: str, *nonces: float) -> list[bool]:
    result = []
    for nonce in nonces:
        with database.write() as connection:
            result.append(rule.spend(connection, [owner], nonce))
    return result


def test_window_keeps_the_largest_and_refuses_what_is_below(database: Database) -> None:
    rule = Once(window=3, prune_every=1)
    assert taken(database, rule, "a", 10, 20, 30, 40, 50) == [True] * 5
    assert taken(database, rule, "a", 5, 10, 20) == [False] * 3, "below the window"
    assert taken(database, rule, "a", 30, 40, 50) == [False] * 3, "in it, but taken"
    assert taken(database, rule, "a", 25, 45) == [True] * 2, "in it"
    assert taken(database, rule, "b", 5) == [True], "another's"


def test_rules_can_be_changed_between_runs(database: Database) -> None:
    assert taken(database, AsIn2016(), "a", 10, 10, 9) == [True, True, False]
    assert taken(database, Once(), "a", 10, 9, 11) == [False, False, True]


def test_clock_is_not_asked_of_nonces(alice: User, clock: Clock) -> None:
    clock.seconds += 10**6
    assert alice.ask("GET", "/keys", nonce=1).status == 200

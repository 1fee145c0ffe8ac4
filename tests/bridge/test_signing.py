"""Who may ask: signatures, and the nonces in them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from asking import Clock, Key, Reply, User, ask
from ecdsa import SECP256k1
from ecdsa.der import encode_integer, encode_sequence, remove_integer, remove_sequence

from pymdc.bridge import Bridge
from pymdc.bridge.storage.database import Database
from pymdc.bridge.storage.nonces import AsIn2016, NonceRule, Once
from pymdc.bridge.storage.tables import used_nonces

NOT_FRESH = (401, "Invalid nonce supplied")
NO_BUCKET = (404, "Bucket not found")
ORDER = SECP256k1.order


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


@pytest.mark.parametrize("nonce", [1458820800, 1458820800123])
def test_many_requests_have_one_nonce_and_none_of_them_comes_twice(alice: User, nonce: int) -> None:
    def create(name: str, high_s: bool = False) -> Reply:
        return alice.ask("POST", "/buckets", {"name": name}, nonce=nonce, high_s=high_s)

    names = [f"bucket {number}" for number in range(100)]
    with ThreadPoolExecutor(16) as pool:
        assert {reply.status for reply in pool.map(create, names)} == {200}
        for high_s in (False, True):
            replays = pool.map(create, names, [high_s] * 100)
            assert {reply.error for reply in replays} == {NOT_FRESH}
    created = alice.ask("GET", "/buckets").json
    assert sorted(bucket["name"] for bucket in created) == sorted(names)


def test_of_replays_at_once_one_succeeds(alice: User) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = pool.map(lambda _: alice.ask("POST", "/buckets", {}, nonce=5).status, range(16))
        assert sorted(replies) == [200] + [401] * 15
    assert len(alice.ask("GET", "/buckets").json) == 1


def spellings(signature: str) -> Iterator[str]:
    """Give what still may pass for the signature when whoever has no key writes it anew."""
    yield signature
    yield signature.upper()
    yield " ".join(signature[start : start + 2] for start in range(0, len(signature), 2))
    body, _ = remove_sequence(bytes.fromhex(signature))
    r, rest = remove_integer(body)
    s, _ = remove_integer(rest)
    plain = encode_integer(r)
    padded = b"\x02" + bytes([plain[1] + 1, 0]) + plain[2:]
    for first in (plain, padded, encode_integer(r + ORDER)):
        for second in (s, ORDER - s, s + ORDER):
            der = encode_sequence(first, encode_integer(second))
            yield der.hex()
            yield (der + b"\0").hex()
            yield (b"\x30\x81" + der[1:]).hex()


def test_signature_that_is_written_anew_makes_no_request_fresh(alice: User) -> None:
    key, contract = alice.key, "GET\n/keys\n__nonce=5"
    assert alice.ask("POST", "/keys", {"key": key.uncompressed}).status == 200
    assert alice.ask("GET", "/keys", nonce=5).status == 200
    for public in (key.public, key.uncompressed, key.public.upper()):
        for signature in spellings(key.sign(contract)):
            headers = {"x-pubkey": public, "x-signature": signature}
            reply = ask(alice.bridge, "GET", "/keys?__nonce=5", None, headers)
            assert reply.status in (400, 401), signature


def test_replay_by_whoever_registered_the_other_form_of_the_key_is_refused(
    alice: User, bridge: Bridge
) -> None:
    bob = User(bridge, "bob")
    assert bob.ask("POST", "/keys", {"key": alice.key.uncompressed}).status == 200
    assert alice.ask("GET", "/keys", nonce=5).status == 200
    signature = alice.key.sign("GET\n/keys\n__nonce=5")
    headers = {"x-pubkey": alice.key.uncompressed, "x-signature": signature}
    assert ask(bridge, "GET", "/keys?__nonce=5", None, headers).error == NOT_FRESH


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


def test_same_number_in_another_spelling_is_the_same_nonce(alice: User) -> None:
    assert alice.ask("POST", "/buckets", {}, nonce=16, k=99).status == 200
    for spelling in ("16", "0x10", 16.0, "1.6e1"):
        assert alice.ask("POST", "/buckets", {}, nonce=spelling, k=99).error == NOT_FRESH
        assert alice.ask("POST", "/buckets", {}, nonce=spelling).status == 200, "another r"
    assert alice.ask("POST", "/buckets", {}, nonce=17, k=99).status == 200, "another nonce"


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
    before = rows("used_nonces")
    assert alice.ask("POST", path, fields, key=stranger).error == NO_BUCKET
    assert rows("used_nonces") == before, "a stranger leaves nothing behind"
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


def used(
    database: Database, rule: NonceRule, owner: str, *nonces: float, r: str | None = None
) -> list[bool]:
    """Use each nonce, with *r* or one that nobody had before; say which were fresh."""
    result = []
    for nonce in nonces:
        with database.write() as connection:
            result.append(rule.use(connection, [owner], nonce, r or secrets.token_hex(32)))
    return result


def test_window_keeps_the_largest_and_refuses_what_is_below(database: Database) -> None:
    rule = Once(window=3, prune_every=1)
    assert used(database, rule, "a", 10, 20, 30, 40, 50, r="r") == [True] * 5
    assert used(database, rule, "a", 5, 10, 20, r="r") == [False] * 3, "below the window"
    assert used(database, rule, "a", 10, 20) == [False] * 2, "below it, whatever is signed"
    assert used(database, rule, "a", 30, 40, 50, r="r") == [False] * 3, "in it, but used"
    assert used(database, rule, "a", 25, 45, r="r") == [True] * 2, "in it"
    assert used(database, rule, "b", 5, r="r") == [True], "another's"


@pytest.mark.parametrize("last", [[50] * 9, [40] * 5 + [50] * 2, [30, 40, 40, 40, 50]])
def test_window_forgets_no_nonce_in_part(database: Database, last: list[float]) -> None:
    rule = Once(window=3, prune_every=1)
    assert used(database, rule, "a", 10, 20, r="r") == [True] * 2
    assert used(database, rule, "a", 40, 50, r="r") == [True] * 2
    assert used(database, rule, "a", *last) == [True] * len(last)
    assert used(database, rule, "a", 10, 20, 40, 50, r="r") == [False] * 4, "a replay"
    assert used(database, rule, "a", max(last)) == [True], "as fresh as can be"


def test_what_is_below_the_window_is_forgotten(database: Database) -> None:
    used(database, Once(window=3, prune_every=1), "a", 10, 20, 30, 40, 50)
    with database.read() as connection:
        assert connection.execute(sa.select(used_nonces.c.nonce)).scalars().all() == [30, 40, 50]


def test_rules_can_be_changed_between_runs(database: Database) -> None:
    assert used(database, AsIn2016(), "a", 10, 10, 9) == [True, True, False]
    assert used(database, Once(), "a", 10, 9, 11) == [False, False, True]


def test_nonce_that_an_older_bridge_has_seen_is_refused(data: Path) -> None:
    data.mkdir()
    # Made by a bridge that kept no r: alice, and her GETs of /keys with these nonces.
    with closing(sqlite3.connect(data / "metadata.sqlite")) as older:
        older.executescript((Path(__file__).parent / "old_nonces.sql").read_text("utf-8"))
    with Bridge(data) as bridge:
        alice = User(bridge, "alice", known=True)
        for nonce in (5, 7, "1e300"):
            assert alice.ask("GET", "/keys", nonce=nonce).error == NOT_FRESH
        assert [alice.ask("GET", "/keys", nonce=nonce).status for nonce in (6, 8)] == [200, 200]
        assert alice.ask("GET", "/keys").status == 200


def test_clock_is_not_asked_of_nonces(alice: User, clock: Clock) -> None:
    clock.seconds += 10**6
    assert alice.ask("GET", "/keys", nonce=1).status == 200

"""Whose key it is: mere claims, proven ones, and keys that were removed."""

from __future__ import annotations

import json

from backends import Backend
from plain_client import PASSWORD, Key, Reply, User, ask, basic

from pymdc.bridge import Bridge

TAKEN = (400, "Public key is already registered")
NO_BUCKET = (404, "Bucket not found")
PULL = {"operation": "PULL"}


def prove(user: User, key: Key, *, named: str = "", nonce: int | None = None) -> Reply:
    """Register *key* with the password of *user*, and sign that with the key for *named*."""
    nonce = next(User.nonces) if nonce is None else nonce
    fields = {"key": key.public, "user": named or user.email, "__nonce": nonce}
    body = json.dumps(fields)
    signed = {"x-pubkey": key.public, "x-signature": key.sign(f"POST\n/keys\n{body}")}
    return ask(user.bridge, "POST", "/keys", body, basic(user.email, PASSWORD) | signed)


def keys(user: User) -> list[str]:
    reply = ask(user.bridge, "GET", "/keys", None, basic(user.email, PASSWORD))
    return [entry["key"] for entry in reply.json]


def test_unproven_claim_gives_way_to_a_proven_one(alice: User, bridge: Bridge) -> None:
    bob, key = User(bridge, "bob"), Key("of alice")
    assert bob.ask("POST", "/keys", {"key": key.public}).status == 200
    assert bob.ask("POST", "/keys", {"key": key.uncompressed}).status == 200
    assert prove(alice, key).status == 200
    assert keys(alice) == [alice.key.public, key.public]
    assert keys(bob) == [bob.key.public]
    assert alice.ask("GET", "/keys", key=key).json[0]["user"] == alice.email


def test_proven_key_is_nobody_elses(alice: User, bridge: Bridge) -> None:
    bob, key = User(bridge, "bob"), Key("of alice")
    assert prove(alice, key).status == 200
    for form in (key.public, key.uncompressed):
        assert bob.ask("POST", "/keys", {"key": form}).error == TAKEN
    assert prove(bob, key).error == TAKEN
    fields = {"email": "carol@example.com", "password": PASSWORD, "pubkey": key.uncompressed}
    assert ask(bridge, "POST", "/users", json.dumps(fields)).error == TAKEN


def test_claim_without_a_proof_works_where_nobody_else_has_the_key(
    alice: User, bridge: Bridge
) -> None:
    bob = User(bridge, "bob")
    assert alice.ask("POST", "/keys", {"key": Key("other").public}).status == 200
    assert bob.ask("POST", "/keys", {"key": Key("other").uncompressed}).error == TAKEN
    assert alice.ask("GET", "/keys", key=Key("other")).status == 200


def test_own_claim_can_be_proven_later(alice: User, bridge: Bridge) -> None:
    assert prove(alice, alice.key).status == 200
    assert keys(alice) == [alice.key.public]
    assert prove(User(bridge, "bob"), alice.key).error == TAKEN


def test_proof_is_for_one_user_and_for_one_time(alice: User, bridge: Bridge) -> None:
    bob, key = User(bridge, "bob"), Key("of alice")
    assert prove(alice, key, named=bob.email).status == 200, "as without a signature"
    assert prove(bob, key, named=alice.email).error == TAKEN
    assert prove(bob, key, nonce=5).status == 200
    assert bob.ask("DELETE", f"/keys/{key.public}").status == 200
    assert prove(bob, key, nonce=5).error == (401, "Invalid nonce supplied")
    assert keys(bob) == [bob.key.public]


def test_wrong_proof_registers_nothing(alice: User) -> None:
    key, body = Key("new"), json.dumps({"key": Key("new").public, "user": alice.email})
    signed = {"x-pubkey": key.public, "x-signature": Key("other").sign(f"POST\n/keys\n{body}")}
    reply = ask(alice.bridge, "POST", "/keys", body, basic(alice.email, PASSWORD) | signed)
    assert reply.error == (401, "Invalid signature")
    assert keys(alice) == [alice.key.public]


def test_claim_of_somebody_else_does_not_lock_out_a_listed_key(alice: User, bridge: Bridge) -> None:
    bob, guest = User(bridge, "bob"), Key("guest")
    path = f"/buckets/{alice.bucket(pubkeys=[guest.public])}/tokens"
    assert bob.ask("POST", "/keys", {"key": guest.public}).status == 200
    assert bob.ask("GET", "/keys", nonce="1e300").status == 200, "it uses up nonces of bob alone"
    assert alice.ask("POST", path, PULL, key=guest).status == 200
    assert prove(bob, guest).status == 200, "bob has the private key"
    assert alice.ask("POST", path, PULL, key=guest).error == NO_BUCKET


def test_removed_key_has_no_right_in_any_bucket_of_its_user(alice: User, bridge: Bridge) -> None:
    bob, key = User(bridge, "bob"), alice.key
    listed = [alice.bucket(pubkeys=[key.public]), alice.bucket(pubkeys=[key.uncompressed])]
    others = bob.bucket(pubkeys=[key.public])
    assert alice.ask("DELETE", f"/keys/{key.public}").status == 200
    for bucket in listed:
        assert alice.ask("POST", f"/buckets/{bucket}/tokens", PULL).error == NO_BUCKET
        fields = ask(bridge, "GET", f"/buckets/{bucket}", None, basic(alice.email, PASSWORD)).json
        assert fields["pubkeys"] == []
    assert alice.ask("POST", f"/buckets/{others}/tokens", PULL).status == 200


def test_removed_key_is_good_where_its_user_lists_it_afresh(alice: User) -> None:
    bucket, password = alice.bucket(), basic(alice.email, PASSWORD)
    path = f"/buckets/{bucket}/tokens"
    assert alice.ask("POST", path, PULL, nonce=5).status == 200
    assert alice.ask("DELETE", f"/keys/{alice.key.public}").status == 200
    fields = json.dumps({"pubkeys": [alice.key.public]})
    assert ask(alice.bridge, "PATCH", f"/buckets/{bucket}", fields, password).status == 200
    assert alice.ask("POST", path, PULL, nonce=5).error == (401, "Invalid nonce supplied")
    assert alice.ask("POST", path, PULL).status == 200


def test_key_is_removed_when_its_last_form_is(alice: User) -> None:
    bucket = alice.bucket()
    assert alice.ask("POST", "/keys", {"key": alice.key.uncompressed}).status == 200
    assert alice.ask("DELETE", f"/keys/{alice.key.uncompressed}").status == 200
    assert alice.ask("POST", f"/buckets/{bucket}/tokens", PULL).status == 200
    assert alice.ask("DELETE", f"/keys/{alice.key.public}").status == 200
    assert alice.ask("POST", f"/buckets/{bucket}/tokens", PULL).error == NO_BUCKET


def test_account_has_at_most_1000_keys(alice: User, backend: Backend) -> None:
    backend.execute(
        'INSERT INTO public_keys (key, "user", point, proven) VALUES (:key, :user, :key, false)',
        [{"key": str(number), "user": alice.email} for number in range(998)],
    )
    full = 403, "An account has at most 1000 public keys"
    assert alice.ask("POST", "/keys", {"key": Key("1").public}).status == 200
    assert alice.ask("POST", "/keys", {"key": Key("2").public}).error == full
    assert alice.ask("DELETE", f"/keys/{Key('1').public}").status == 200
    assert alice.ask("POST", "/keys", {"key": Key("2").public}).status == 200

"""Signatures, and the nonces in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ecdsa import SECP256k1
from ecdsa.der import encode_integer, encode_sequence, remove_integer, remove_sequence
from plain_client import Key, User, ask

from pymdc.bridge import Bridge

INVALID_NONCE = (401, "Invalid nonce supplied")
NO_BUCKET = (404, "Bucket not found")
ORDER = SECP256k1.order


@pytest.mark.parametrize("high_s", [True, False])
def test_high_and_low_s_are_accepted(alice: User, high_s: bool) -> None:
    assert alice.ask("GET", "/keys", high_s=high_s).status == 200


@pytest.mark.parametrize("text", ["zz", "0x12", "abc", "30 44", "\xe9\xe9", "30g4"])
@pytest.mark.parametrize("header", ["x-pubkey", "x-signature"])
def test_header_that_is_not_hexadecimal_is_no_signature(
    alice: User, header: str, text: str
) -> None:
    signature = alice.key.sign("GET\n/keys\n__nonce=5")
    headers = {"x-pubkey": alice.key.public, "x-signature": signature, header: text}
    reply = ask(alice.bridge, "GET", "/keys?__nonce=5", None, headers)
    assert reply.error == (401, "Invalid signature")


def spellings(signature: str) -> Iterator[str]:
    """Yield the signature as anybody without the key may re-encode it."""
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


def test_reencoded_signature_is_a_replay(alice: User) -> None:
    key, contract = alice.key, "GET\n/keys\n__nonce=5"
    assert alice.ask("POST", "/keys", {"key": key.uncompressed}).status == 200
    assert alice.ask("GET", "/keys", nonce=5).status == 200
    for public in (key.public, key.uncompressed, key.public.upper()):
        for signature in spellings(key.sign(contract)):
            headers = {"x-pubkey": public, "x-signature": signature}
            reply = ask(alice.bridge, "GET", "/keys?__nonce=5", None, headers)
            assert reply.status in (400, 401), signature


def test_replay_with_the_other_form_of_the_key_is_refused(alice: User, bridge: Bridge) -> None:
    assert alice.ask("POST", "/keys", {"key": alice.key.uncompressed}).status == 200
    assert alice.ask("GET", "/keys", nonce=5).status == 200
    signature = alice.key.sign("GET\n/keys\n__nonce=5")
    headers = {"x-pubkey": alice.key.uncompressed, "x-signature": signature}
    assert ask(bridge, "GET", "/keys?__nonce=5", None, headers).error == INVALID_NONCE


def test_signed_query_is_not_a_body_nor_a_body_a_query(alice: User) -> None:
    query, body = "__nonce=5", '{"__nonce":5}'
    for method, signed in (("POST", query), ("GET", body)):
        signature = alice.key.sign(f"{method}\n/buckets\n{signed}")
        headers = {"x-pubkey": alice.key.public, "x-signature": signature}
        reply = ask(alice.bridge, method, f"/buckets?{query}", body * (method == "GET"), headers)
        assert reply.error == (401, "Invalid signature")


@pytest.mark.parametrize("nonce", ["", "0", "-1"])
def test_nonce_of_zero_or_less_is_refused(alice: User, nonce: str) -> None:
    assert alice.ask("GET", "/keys", nonce=nonce).error == INVALID_NONCE


@pytest.mark.parametrize("nonce", ["abc", "1_000", "nan", "inf", "1e400", 10**400, True, [1]])
def test_nonce_that_is_not_a_number_is_refused(alice: User, nonce: object) -> None:
    assert alice.ask("POST", "/buckets", {}, nonce=nonce).error == (400, "User validation failed")


def test_listed_key_creates_tokens_with_new_nonces(alice: User, rows: Callable[[str], int]) -> None:
    guest, stranger = Key("guest"), Key("stranger")
    path = f"/buckets/{alice.bucket(pubkeys=[guest.public])}/tokens"
    fields = {"operation": "PULL"}
    assert alice.ask("POST", path, fields, key=guest, nonce=5).status == 200
    assert alice.ask("POST", path, fields, key=guest, nonce=5).error == INVALID_NONCE
    assert alice.ask("POST", path, fields, nonce=5).status == 200, "the owner has nonces of her own"
    before = rows("used_nonces")
    assert alice.ask("POST", path, fields, key=stranger).error == NO_BUCKET
    assert rows("used_nonces") == before, "a stranger leaves nothing behind"
    assert alice.ask("GET", "/keys", key=guest).error == (401, "Public key not registered")

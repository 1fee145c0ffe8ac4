"""Keys and signatures of the right form and the wrong meaning, on both sides of each limit."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from ecdsa import SECP256k1
from ecdsa.util import sigencode_der
from plain_client import Key, User, ask

from pymdc import ECDSA
from pymdc.bridge import Bridge

ORDER: int = SECP256k1.order
FIELD: int = SECP256k1.curve.p()
PAIR = ECDSA(private_key=b"\x11" * 32)


def on_curve(x: int) -> bool:
    """Say whether some point of secp256k1 has this *x*."""
    return pow(x**3 + 7, (FIELD - 1) // 2, FIELD) == 1


NOWHERE = next(x for x in range(1, 100) if not on_curve(x))
SOMEWHERE = next(x for x in range(1, 100) if on_curve(x))
BEYOND = FIELD + SOMEWHERE  # which has 32 bytes, and is no number of the field


def written(number: int) -> bytes:
    return number.to_bytes(32, "big")


FORMS: list[Callable[[bytes], Any]] = [bytes, bytes.hex, base64.b64encode]
WRONG = [
    b"\x02" + written(NOWHERE),
    b"\x03" + written(NOWHERE),
    b"\x02" + written(BEYOND),
    b"\x04" + PAIR.public_key[:32] + PAIR.public_key[:32],
    PAIR.public_key[32:] + PAIR.public_key[:32],
    written(FIELD - 1) * 2,
    bytes(64),
]


@pytest.mark.parametrize("key", WRONG, ids=bytes.hex)
@pytest.mark.parametrize("form", FORMS)
def test_point_that_is_on_no_curve_is_no_key(form: Callable[[bytes], Any], key: bytes) -> None:
    with pytest.raises(ValueError, match="33, 64 or 65 bytes"):
        ECDSA(form(key))
    assert ECDSA.validate_public_key(form(key)) is False
    assert PAIR.valid_signature(PAIR.sign("x"), "x", form(key)) is False


def test_both_points_with_one_x_are_keys() -> None:
    keys = [ECDSA(sign + written(SOMEWHERE)) for sign in (b"\x02", b"\x03")]
    assert keys[0].public_key[:32] == keys[1].public_key[:32]
    ends = [int.from_bytes(key.public_key[32:], "big") for key in keys]
    assert sum(ends) == FIELD
    assert [end % 2 for end in ends] == [0, 1]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("number", [0, ORDER, ORDER + 1, 2**256 - 1])
def test_number_outside_the_order_is_no_private_key(
    form: Callable[[bytes], Any], number: int
) -> None:
    with pytest.raises(ValueError, match="not a private key; expected 32 bytes"):
        ECDSA(private_key=form(written(number)))


@pytest.mark.parametrize("number", [1, 2, ORDER - 1])
def test_first_and_last_number_are_private_keys(number: int) -> None:
    pair = ECDSA(private_key=written(number))
    assert pair.valid_signature(pair.sign("x"), "x")
    assert PAIR.valid_signature(pair.sign("x"), "x", pair.get_public_key())
    generator = ECDSA(private_key=written(1)).public_key
    assert (pair.public_key[:32] == generator[:32]) is (number != 2)


NO_NUMBERS = [(0, 1), (1, 0), (0, 0), (ORDER, 1), (1, ORDER), (ORDER + 1, 1), (1, ORDER + 1)]
NO_SIGNATURES = [(1, 1), (ORDER - 1, ORDER - 1)]


def der(r: int, s: int) -> str:
    return bytes(sigencode_der(r, s, ORDER)).hex()


@pytest.mark.parametrize(("r", "s"), [*NO_NUMBERS, *NO_SIGNATURES])
def test_numbers_that_sign_nothing_are_no_signature(r: int, s: int) -> None:
    assert PAIR.valid_signature(der(r, s), "x") is False


@pytest.mark.parametrize(("r", "s"), [*NO_NUMBERS, *NO_SIGNATURES])
def test_bridge_refuses_numbers_that_sign_nothing(bridge: Bridge, r: int, s: int) -> None:
    user = User(bridge, f"signs-{r % 1000}-{s % 1000}-{r > s}")
    headers = {"x-pubkey": user.key.public, "x-signature": der(r, s)}
    reply = ask(bridge, "GET", "/keys?__nonce=1", None, headers)
    assert reply.error == (401, "Invalid signature")


@pytest.mark.parametrize("key", [key for key in WRONG if len(key) != 64], ids=bytes.hex)
def test_bridge_takes_no_key_that_is_on_no_curve(bridge: Bridge, key: bytes) -> None:
    user = User(bridge, f"lists-{key.hex()[:8]}-{key.hex()[-8:]}")
    wrong = (400, "Invalid public key supplied")
    assert user.ask("POST", "/keys", {"key": key.hex()}).error == wrong
    assert user.ask("POST", "/buckets", {"pubkeys": [key.hex()]}).error == wrong
    bucket = user.bucket()
    assert user.ask("PATCH", f"/buckets/{bucket}", {"pubkeys": [key.hex()]}).error == wrong
    assert [entry["key"] for entry in user.ask("GET", "/keys").json] == [user.key.public]


def test_signature_is_for_its_method_its_path_and_its_payload_alone(bridge: Bridge) -> None:
    user = User(bridge, "careful")
    path, key = f"/keys/{Key('nobody').public}", user.key
    nonce = next(user.nonces)
    contracts = [
        f"GET\n{path}\n__nonce={nonce}",
        f"DELETE\n/keys\n__nonce={nonce}",
        f"DELETE\n{path}\n__nonce={nonce + 1}",
        f"DELETE\n{path}\n",
        f"DELETE\n{path}?__nonce={nonce}\n",
        f"delete\n{path}\n__nonce={nonce}",
    ]
    for contract in contracts:
        headers = {"x-pubkey": key.public, "x-signature": key.sign(contract)}
        reply = ask(bridge, "DELETE", f"{path}?__nonce={nonce}", None, headers)
        assert reply.error == (401, "Invalid signature")
    headers["x-signature"] = key.sign(f"DELETE\n{path}\n__nonce={nonce}")
    reply = ask(bridge, "DELETE", f"{path}?__nonce={nonce}", None, headers)
    assert reply.error == (404, "Public key was not found")

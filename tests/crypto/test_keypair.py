"""The key pair: its forms, signatures, assignments and errors."""

from __future__ import annotations

import base64
import copy
import pickle
import secrets
import traceback
from collections.abc import Callable
from typing import Any

import ecdsa
import pytest
from ecdsa.util import sigdecode_der, sigencode_der
from hypothesis import given, settings
from hypothesis import strategies as st

from pymdc import ECDSA

PRIVATE = b"\x11" * 32
COMPRESSED = bytes.fromhex("034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa")
PAIR = ECDSA(private_key=PRIVATE)
RAW = PAIR.public_key
WIF = "KwntMbt59tTsj8xqpqYqRRWufyjGunvhSyeMo3NTYpFYzZbXJ5Hp"
WIF_UNCOMPRESSED = "5HwoXVkHoRM8sL2KmNRS217n1g8mPPBomrY7yehCuXC1115WWsh"


def forms(key: bytes) -> list[Any]:
    """Return all forms in which *key* may be given."""
    return [
        key,
        key.hex(),
        key.hex().upper(),
        key.hex().encode(),
        base64.b64encode(key).decode(),
        base64.b64encode(key),
        f" {key.hex()}\n",
        f"#{key.hex()}",
        f"#{key.hex()}".encode(),
        f" #{key.hex().upper()}\n",
    ]


def test_new_pairs_differ_and_sign() -> None:
    one, two = ECDSA(), ECDSA()
    assert one != two
    assert len(one.public_key) == 64
    assert len(one.private_key or b"") == 32
    assert two.valid_signature(two.sign("hello"), "hello")


@pytest.mark.parametrize("lowest", [True, False])
def test_new_private_key_is_from_one_to_the_order_less_one(
    monkeypatch: pytest.MonkeyPatch, lowest: bool
) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda limit: 0 if lowest else limit - 1)
    expected = 1 if lowest else ecdsa.SECP256k1.order - 1
    assert ECDSA().private_key == expected.to_bytes(32, "big")


def test_key_pair_has_known_encodings() -> None:
    assert PAIR.get_public_key() == COMPRESSED.hex()
    assert PAIR.get_public_key("base64") == "A081W9y3zAr3KO88zrlhXZBoS7Wyyl+FmrDwtwQHWHGq"
    assert PAIR.get_private_key("base64") == "ERERERERERERERERERERERERERERERERERERERERERE="


@pytest.mark.parametrize("key", [COMPRESSED, RAW, b"\x04" + RAW], ids=["33", "64", "65"])
def test_public_key_is_read_in_every_form(key: bytes) -> None:
    for form in forms(key):
        assert ECDSA(form).public_key == RAW
        assert ECDSA(form) == PAIR
        assert ECDSA.parse_public_key(form) == RAW
        assert ECDSA.validate_public_key(form) is True
        assert ECDSA.compress_public_key(form) == COMPRESSED
        assert ECDSA.decompress_public_key(form) == b"\x04" + RAW
        assert ECDSA().get_public_key("bin", form) == COMPRESSED
        assert ECDSA().valid_signature(PAIR.sign("x"), "x", form) is True


def test_private_key_is_read_in_every_form() -> None:
    for form in forms(PRIVATE):
        assert ECDSA(private_key=form).private_key == PRIVATE
        assert ECDSA(None, form).public_key == RAW
        assert ECDSA.parse_private_key(form) == PRIVATE
        assert ECDSA().sign("x", form) == PAIR.sign("x")


def test_public_key_alone_verifies_and_does_not_sign() -> None:
    public = ECDSA(PAIR.get_public_key("b64"))
    assert public.private_key is None
    assert public.valid_signature(PAIR.sign("x"), "x")
    with pytest.raises(ValueError, match="can verify but not sign"):
        public.sign("x")
    with pytest.raises(ValueError, match="no private key"):
        public.get_private_key()


def test_keys_must_belong_together() -> None:
    assert ECDSA(COMPRESSED, PRIVATE) == PAIR
    with pytest.raises(ValueError, match="belong together"):
        ECDSA(ECDSA().get_public_key(), PRIVATE)


@pytest.mark.parametrize(
    "bad",
    [
        "x",
        "",
        "é" * 44,
        b"\xff" * 33,
        COMPRESSED.hex()[:-1],
        COMPRESSED.hex()[:-2] + "zz",
        "05" + COMPRESSED.hex()[2:],
        "02" + "ff" * 32,
        "06" + RAW.hex(),
        "04" + RAW.hex()[:-2] + "00",
        base64.b64encode(b"1" * 40),
        "#",
        "#" + COMPRESSED.hex()[2:],
        "##" + COMPRESSED.hex(),
        "#" + base64.b64encode(COMPRESSED).decode(),
    ],
)
def test_invalid_public_key_is_value_error_that_says_what_is_expected(bad: Any) -> None:
    with pytest.raises(ValueError, match="33, 64 or 65 bytes, or their hexadecimal or base64"):
        ECDSA(bad)
    assert ECDSA.validate_public_key(bad) is False


@pytest.mark.parametrize(
    "bad",
    [
        "secret",
        b"\0" * 32,
        b"\xff" * 32,
        "11" * 31 + "zz",
        WIF,
        WIF.encode(),
        WIF_UNCOMPRESSED,
        base64.b64encode(b"secret")[:-1],
        "0123456789abcdef0123456789abcdef",
        "#" + "11" * 31,
        "#" + "11" * 31 + "zz",
        b"#" + base64.b64encode(PRIVATE),
    ],
)
def test_invalid_private_key_is_value_error_that_does_not_show_it(bad: Any) -> None:
    with pytest.raises(ValueError, match="not a private key; expected 32 bytes") as caught:
        ECDSA(private_key=bad)
    text = bad if isinstance(bad, str) else bad.decode("latin-1")
    assert text not in str(caught.value)
    assert caught.value.__cause__ is None


INVALID: list[Any] = [5, 0.5, None, [], {"r": 1}, object(), b"\xff"]


@pytest.mark.parametrize("wrong", [5, None, [], object()])
def test_key_of_wrong_type_is_type_error(wrong: Any) -> None:
    assert ECDSA.validate_public_key(wrong) is False
    with pytest.raises(TypeError, match="expected text or bytes"):
        ECDSA.parse_public_key(wrong)
    with pytest.raises(TypeError, match="expected text or bytes"):
        ECDSA.parse_private_key(wrong)


def assign_to(name: str) -> Callable[[Any], object]:
    return lambda key: setattr(ECDSA(), name, key)


@pytest.mark.parametrize(
    "take",
    [
        ECDSA,
        lambda key: ECDSA(None, key),
        lambda key: ECDSA(public_key=COMPRESSED, private_key=key),
        lambda key: PAIR.sign("x", key),
        lambda key: PAIR.sign("x", private_key=key),
        ECDSA.parse_private_key,
        assign_to("private_key"),
        assign_to("sign_key"),
    ],
)
@pytest.mark.parametrize("write", [str, str.encode, lambda text: [text], lambda text: "é" + text])
def test_traceback_locals_hold_no_invalid_private_key(take: Any, write: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        take(write("secret".join(["11" * 8] * 4)))
    assert "secret" not in traceback_text(caught.value)


def test_traceback_locals_hold_no_valid_private_key() -> None:
    no_message: Any = 5
    for call in (
        lambda key: ECDSA(ECDSA().get_public_key(), key),
        lambda key: ECDSA("not a key", key),
        lambda key: PAIR.sign(no_message, key),
    ):
        with pytest.raises((TypeError, ValueError)) as caught:
            call("22" * 32)
        assert "22" * 8 not in traceback_text(caught.value)


def traceback_text(error: BaseException) -> str:
    """Return the traceback with locals, without the frames of this file."""
    chain = [error]
    for one in chain:
        chain += [next_one for next_one in (one.__cause__, one.__context__) if next_one]
    texts = []
    for one in chain:
        recorded = traceback.TracebackException.from_exception(one, capture_locals=True)
        frames = [frame for frame in recorded.stack if frame.filename != __file__]
        assert frames
        texts += [repr(one), *(f"{frame.name} {frame.locals}" for frame in frames)]
    return "\n".join(texts)


def test_public_key_is_compressed_and_decompressed() -> None:
    assert ECDSA.compress_public_key(RAW) == COMPRESSED
    assert ECDSA.compress_public_key(b"\x04" + RAW) == COMPRESSED
    assert ECDSA.decompress_public_key(COMPRESSED) == b"\x04" + RAW
    assert PAIR.compress_public_key(RAW) == COMPRESSED
    with pytest.raises(ValueError, match="point on secp256k1"):
        ECDSA.decompress_public_key(b"\x02" + b"\xff" * 32)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("hex", COMPRESSED.hex()),
        (b"hex", COMPRESSED.hex()),
        ("bin", COMPRESSED),
        ("cpub", COMPRESSED),
        ("hash", bytes.fromhex("fc7250a211deddc70ee5a2738de5f07817351cef")),
        ("base64", base64.b64encode(COMPRESSED).decode()),
        ("b64", base64.b64encode(COMPRESSED).decode()),
    ],
)
def test_public_key_is_written_in_every_form(form: Any, expected: str | bytes) -> None:
    assert PAIR.get_public_key(form) == expected
    assert ECDSA().get_public_key(form, COMPRESSED) == expected


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("hex", PRIVATE.hex()),
        ("bin", PRIVATE),
        ("base64", base64.b64encode(PRIVATE).decode()),
        ("b64", base64.b64encode(PRIVATE).decode()),
    ],
)
def test_private_key_is_written_in_every_form(form: Any, expected: str | bytes) -> None:
    assert PAIR.get_private_key(form) == expected


def test_unknown_form_is_value_error() -> None:
    with pytest.raises(ValueError, match="'jwk' is no form of a key; expected one of b64"):
        PAIR.get_public_key("jwk")
    with pytest.raises(ValueError, match="'hash' is no form of a key"):
        PAIR.get_private_key("hash")
    with pytest.raises(ValueError, match="'wif' is no form of a key"):
        PAIR.get_private_key("wif")


def test_uncompressed_public_key_is_65_bytes() -> None:
    pair = ECDSA(private_key=PRIVATE)
    pair.use_compression = 0
    assert pair.get_public_key() == "04" + RAW.hex()
    assert ECDSA.use_compression


def test_compression_can_be_disabled_for_all_key_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ECDSA, "use_compression", 0)
    assert len(ECDSA().get_public_key()) == 130


def test_signatures_are_deterministic_hex_of_der_over_utf8() -> None:
    signature = PAIR.sign("Grüße")
    assert signature == PAIR.sign("Grüße".encode())
    assert bytes.fromhex(signature)[0] == 0x30
    assert PAIR.valid_signature(signature, "Grüße")
    for form in (signature.encode(), "#" + signature, b"#" + signature.encode()):
        assert PAIR.valid_signature(form, "Grüße".encode())
    assert PAIR.sign("x", ECDSA(private_key=b"\x22" * 32).get_private_key()) == ECDSA(
        private_key=b"\x22" * 32
    ).sign("x")


def test_wrong_signature_is_false_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    good = PAIR.sign("x")
    assert not PAIR.valid_signature(good, "y")
    assert not PAIR.valid_signature(good, "x", ECDSA().get_public_key())
    assert PAIR.valid_signature(good, "x", COMPRESSED)
    for bad in ("", "zz", good[:-2], good + "00", "30" * 35, "é", "#", "##" + good, *INVALID):
        assert PAIR.valid_signature(bad, "x") is False
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", [*INVALID, "\ud800", bytearray(b"x"), memoryview(b"x")])
def test_signature_is_invalid_for_wrong_types_of_message_and_key(wrong: Any) -> None:
    assert PAIR.valid_signature(PAIR.sign("x"), wrong) is False
    if wrong is not None:
        assert PAIR.valid_signature(PAIR.sign("x"), "x", wrong) is False


@settings(deadline=None)
@given(signature=st.binary() | st.text(), message=st.binary() | st.text(), key=st.binary())
def test_arbitrary_signature_is_false(signature: Any, message: Any, key: bytes) -> None:
    for given_key in (key, COMPRESSED, None):
        assert PAIR.valid_signature(signature, message, given_key) is False
        if isinstance(signature, bytes):
            assert PAIR.valid_signature(signature.hex(), message, given_key) is False


def test_repr_never_shows_private_key() -> None:
    for form in (str(PAIR), repr(PAIR), f"{PAIR}"):
        assert form == f"<ECDSA {COMPRESSED.hex()}>"


OTHER = ECDSA(private_key=b"\x22" * 32)


def check_pair(pair: ECDSA, like: ECDSA, secret: bytes | None) -> None:
    """Check that each attribute and method of *pair* uses the key of *like*."""
    assert pair == like
    assert pair.public_key == like.public_key == pair.verify_key.to_string()
    assert pair.get_public_key() == like.get_public_key()
    assert pair.private_key == secret
    assert pair.valid_signature(like.sign("x"), "x")
    if secret:
        assert pair.sign_key
        assert pair.sign_key.to_string() == secret
        assert pair.sign("x") == like.sign("x")
        assert pair.get_private_key("bin") == secret
    else:
        assert pair.sign_key is None
        with pytest.raises(ValueError, match="can verify but not sign"):
            pair.sign("x")


def test_assigned_private_key_signs() -> None:
    for form in forms(b"\x22" * 32):
        for pair in (ECDSA(private_key=PRIVATE), ECDSA(COMPRESSED)):
            pair.private_key = form
            check_pair(pair, OTHER, b"\x22" * 32)
            pair.private_key = None
            check_pair(pair, OTHER, None)


def test_assigned_public_key_removes_private_key_of_another() -> None:
    for form in forms(OTHER.public_key):
        pair = ECDSA(private_key=PRIVATE)
        pair.public_key = form
        check_pair(pair, OTHER, None)
        pair.private_key = b"\x22" * 32
        pair.public_key = form
        check_pair(pair, OTHER, b"\x22" * 32)


def test_invalid_key_is_not_assigned() -> None:
    pair = ECDSA(private_key=PRIVATE)
    elsewhere = ecdsa.SigningKey.generate(ecdsa.NIST256p)
    for name, wrong, error in (
        ("public_key", "x", ValueError),
        ("public_key", None, TypeError),
        ("private_key", "x", ValueError),
        ("private_key", 5, TypeError),
        ("sign_key", PRIVATE, TypeError),
        ("sign_key", elsewhere, ValueError),
        ("verify_key", None, TypeError),
        ("verify_key", elsewhere.verifying_key, ValueError),
    ):
        with pytest.raises(error, match="expected"):
            setattr(pair, name, wrong)
        check_pair(pair, PAIR, PRIVATE)


def test_sign_key_and_verify_key_are_of_python_ecdsa() -> None:
    assert isinstance(PAIR.sign_key, ecdsa.SigningKey)
    assert isinstance(PAIR.verify_key, ecdsa.VerifyingKey)
    assert PAIR.sign_key.curve == PAIR.verify_key.curve == ecdsa.SECP256k1
    assert PAIR.verify_key.verify(PAIR.sign_key.sign(b"x"), b"x")
    assert PAIR.verify_key.verify(bytes.fromhex(PAIR.sign("x")), b"x", sigdecode=sigdecode_der)
    assert PAIR.valid_signature(PAIR.sign_key.sign(b"x", sigencode=sigencode_der).hex(), "x")
    check_pair(ECDSA(COMPRESSED), PAIR, None)


def test_assigned_keys_of_python_ecdsa_are_used() -> None:
    pair = ECDSA(private_key=PRIVATE)
    pair.sign_key = ecdsa.SigningKey.from_string(b"\x22" * 32, ecdsa.SECP256k1)
    check_pair(pair, OTHER, b"\x22" * 32)
    pair.verify_key = PAIR.verify_key
    check_pair(pair, PAIR, None)
    pair.sign_key = PAIR.sign_key
    check_pair(pair, PAIR, PRIVATE)
    pair.sign_key = None
    check_pair(pair, PAIR, None)


def test_equality_is_by_public_key() -> None:
    assert ECDSA(COMPRESSED) == PAIR
    assert hash(PAIR) == hash(ECDSA(COMPRESSED))
    assert ECDSA() != PAIR
    assert PAIR != COMPRESSED


def test_copy_signs_the_same() -> None:
    for twin in (copy.copy(PAIR), copy.deepcopy(PAIR), pickle.loads(pickle.dumps(PAIR))):
        assert twin == PAIR
        assert twin.sign("x") == PAIR.sign("x")

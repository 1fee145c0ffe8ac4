"""secp256k1 of both libraries, compared with each other, openssl and the example of 2016."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from ecdsa.util import sigencode_der
from hypothesis import given, settings
from hypothesis import strategies as st

from pymdc._crypto import secp256k1
from pymdc._crypto.ripemd160 import pure_ripemd160, ripemd160
from pymdc._crypto.signing import contract

BACKENDS = (secp256k1.PythonECDSA, secp256k1.Libsecp256k1)
secrets = st.integers(1, secp256k1.ORDER - 1).map(lambda number: number.to_bytes(32, "big"))

PUBLIC_2016 = bytes.fromhex(
    "043874de22536decc5508257cc806a9e5af5e8be6a80056843d5c0c2b112903430"
    "f9a46c128ca17e30e2fb54f541416185dda2df878adbb90d66811452f4162125"
)
SIGNATURE_2016 = bytes.fromhex(
    "3046022100e5b534eba11f19d4e3e92398e4ffdf8195041a7de13a1ffe8eb3baf66eb694b8"
    "022100982837e3b449fc9e4524009acd03800abf6447cf225a83d6f21bfa67a8326465"
)
BODY_2016 = b'{"storage":10,"transfer":30,"name":"MyBucket","__nonce":1453222669376}'


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> secp256k1.Backend:
    if request.param is secp256k1.Libsecp256k1:
        request.getfixturevalue("libsecp256k1")
    chosen: secp256k1.Backend = request.param()
    return chosen


@pytest.fixture(scope="module")
def libsecp256k1() -> secp256k1.Backend:
    pytest.importorskip("btclib_secp256k1", reason="btclib-secp256k1 is not installed")
    return secp256k1.Libsecp256k1()


def with_high_s(signature: bytes) -> bytes:
    """Return *signature* with the high S, which is valid for the same message."""
    r, s = secp256k1.parse_signature(signature)
    return bytes(sigencode_der(r, max(s, secp256k1.ORDER - s), secp256k1.ORDER))


def test_signed_example_of_2016_verifies(backend: secp256k1.Backend) -> None:
    signed = contract("POST", "/buckets", BODY_2016)
    assert secp256k1.verify(PUBLIC_2016, signed, SIGNATURE_2016, backend)
    assert not secp256k1.verify(PUBLIC_2016, signed + b" ", SIGNATURE_2016, backend)


@settings(deadline=None)
@given(secret=secrets, message=st.binary(max_size=200))
def test_libraries_make_same_keys_and_signatures(
    libsecp256k1: secp256k1.Backend, secret: bytes, message: bytes
) -> None:
    python = secp256k1.PythonECDSA()
    public = secp256k1.public_key(secret, python)
    signature = secp256k1.signer(secret, python)(message)
    assert secp256k1.public_key(secret, libsecp256k1) == public
    assert secp256k1.signer(secret, libsecp256k1)(message) == signature
    for one in (python, libsecp256k1):
        assert secp256k1.verify(public, message, signature, one)
        assert secp256k1.verify(public, message, with_high_s(signature), one)
        assert not secp256k1.verify(public, message + b"!", signature, one)


def test_bad_keys_and_signatures_are_refused(backend: secp256k1.Backend) -> None:
    secret = b"\x11" * 32
    public = secp256k1.public_key(secret, backend)
    good = secp256k1.signer(secret, backend)(b"x")
    order = secp256k1.ORDER
    for bad in (b"", good[:-1], good + b"\0", bytes(70), *map(out_of_range, (0, order))):
        assert not secp256k1.verify(public, b"x", bad, backend)
    for key in (b"", b"\x02" * 32, b"\x02" + b"\xff" * 32, b"\x07" + public, public[:-1] + b"\0"):
        assert not secp256k1.verify(key, b"x", good, backend)
        with pytest.raises(ValueError, match=r"point|prefix|public key"):
            secp256k1.point(key, backend)


def out_of_range(number: int) -> bytes:
    return bytes(sigencode_der(number, number, secp256k1.ORDER))


@pytest.mark.parametrize("secret", [b"", bytes(32), b"\xff" * 32, b"\x01" * 33])
def test_secret_out_of_range_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        secp256k1.check_secret(secret)


def openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True)
    return done.stdout


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    openssl("ecparam", "-genkey", "-name", "secp256k1", "-noout", "-out", path)
    return path


def test_signature_of_openssl_verifies(pem: Path, backend: secp256k1.Backend) -> None:
    public = openssl("ec", "-in", pem, "-pubout", "-outform", "DER")[-65:]
    for message in (b"", b"GET\n/buckets\n__nonce=1"):
        signature = openssl("dgst", "-sha256", "-sign", pem, data=message)
        assert secp256k1.verify(public, message, signature, backend)
        assert not secp256k1.verify(public, message + b"!", signature, backend)


def test_signature_is_verified_by_openssl(
    pem: Path, tmp_path: Path, backend: secp256k1.Backend
) -> None:
    der = openssl("ec", "-in", pem, "-outform", "DER")
    secret = der[der.index(b"\x04\x20") + 2 :][:32]
    public = tmp_path / "public.pem"
    public.write_bytes(openssl("ec", "-in", pem, "-pubout"))
    signature = tmp_path / "signature"
    signature.write_bytes(secp256k1.signer(secret, backend)(b"hello"))
    verify = ("dgst", "-sha256", "-verify", public, "-signature", signature)
    assert openssl(*verify, data=b"hello") == b"Verified OK\n"


@pytest.mark.parametrize("digest", [ripemd160, pure_ripemd160])
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
        (b"a", "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe"),
        (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        (b"message digest", "5d0689ef49d2fae572b881b123a85ffa21595f36"),
        (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
    ],
)
def test_ripemd160_gives_published_digests(digest: object, message: bytes, expected: str) -> None:
    assert callable(digest)
    assert digest(message).hex() == expected


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_implementations_of_ripemd160_agree(message: bytes) -> None:
    try:
        theirs = hashlib.new("ripemd160", message).digest()
    except ValueError:
        theirs = ripemd160(message)
    assert pure_ripemd160(message) == theirs

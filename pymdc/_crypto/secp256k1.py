"""secp256k1: libsecp256k1 through btclib-secp256k1 where it is installed, else python-ecdsa.

Both give the same signatures: RFC 6979 nonces, low S, DER.
A public key is 33 bytes (compressed), 65 (uncompressed) or 64 (X and Y without a prefix).
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol

import ecdsa
from ecdsa.util import sigdecode_der, sigencode_der, sigencode_der_canonize

try:
    from btclib_secp256k1 import dsa, keys
except ImportError:
    dsa = keys = None  # type: ignore[assignment]  # PythonECDSA is used

ORDER: int = ecdsa.SECP256k1.order
_PREFIXES = {33: (b"\x02", b"\x03"), 65: (b"\x04",)}

Signer = Callable[[bytes], bytes]


class Backend(Protocol):
    """The operations on the curve; public keys are 33 or 65 bytes with a valid prefix."""

    def point(self, key: bytes) -> bytes: ...
    def public_key(self, secret: bytes) -> bytes: ...
    def signer(self, secret: bytes) -> Signer: ...
    def verify(self, key: bytes, message: bytes, low_s: bytes) -> bool: ...


def signing_key(secret: bytes) -> ecdsa.SigningKey:
    """Return python-ecdsa's object for the private key *secret*; it hashes with SHA-256."""
    return ecdsa.SigningKey.from_string(secret, curve=ecdsa.SECP256k1, hashfunc=sha256)


def verifying_key(key: bytes) -> ecdsa.VerifyingKey:
    """Return python-ecdsa's object for the public key *key*; ValueError if it is not a point."""
    try:
        return ecdsa.VerifyingKey.from_string(key, curve=ecdsa.SECP256k1, hashfunc=sha256)
    except ecdsa.errors.MalformedPointError as error:
        raise ValueError("not a point on secp256k1") from error


class PythonECDSA:
    """The curve in Python, from the package ecdsa; it does not run in constant time."""

    def point(self, key: bytes) -> bytes:
        """Return X and Y of *key*."""
        return bytes(verifying_key(key).to_string())

    def public_key(self, secret: bytes) -> bytes:
        """Return X and Y of the public key that belongs to *secret*."""
        return bytes(signing_key(secret).verifying_key.to_string())

    def signer(self, secret: bytes) -> Signer:
        """Return the function that signs a message with *secret*."""
        key = signing_key(secret)
        return lambda message: bytes(
            key.sign_deterministic(message, sigencode=sigencode_der_canonize)
        )

    def verify(self, key: bytes, message: bytes, low_s: bytes) -> bool:
        """Say whether *low_s* is the signature of *message* by *key*."""
        try:
            verifying_key(key).verify(low_s, message, sigdecode=sigdecode_der)
        except ecdsa.BadSignatureError:
            return False
        return True


class Libsecp256k1:
    """The curve in C and in constant time, from the package btclib-secp256k1."""

    def point(self, key: bytes) -> bytes:
        """Return X and Y of *key*."""
        return keys.reserialize(key, compressed=False)[1:]

    def public_key(self, secret: bytes) -> bytes:
        """Return X and Y of the public key that belongs to *secret*."""
        return keys.pubkey_from_prvkey(secret, compressed=False)[1:]

    def signer(self, secret: bytes) -> Signer:
        """Return the function that signs a message with *secret*."""
        # The signature is not verified: that would take two thirds of the time. It would protect
        # against faults that an attacker causes, because a wrong and a right signature of the same
        # message reveal the key. Here no message is signed twice, since each attempt has a new
        # nonce, and the bridge refuses a wrong signature.
        return lambda message: dsa.sign(sha256(message).digest(), secret, verify=False)

    def verify(self, key: bytes, message: bytes, low_s: bytes) -> bool:
        """Say whether *low_s* is the signature of *message* by *key*."""
        return dsa.verify(sha256(message).digest(), key, low_s)


_backend: Backend = PythonECDSA() if dsa is None else Libsecp256k1()


def _with_prefix(key: bytes) -> bytes:
    if len(key) == 64:
        return b"\x04" + key
    if not key.startswith(_PREFIXES.get(len(key), ())):
        raise ValueError("a public key has 33, 64 or 65 bytes and a prefix of 02, 03 or 04")
    return key


def point(key: bytes, backend: Backend = _backend) -> bytes:
    """Return the 64 bytes X and Y of a public key; ValueError if it is not a point of the curve."""
    return backend.point(_with_prefix(key))


def check_secret(secret: bytes) -> bytes:
    """Return *secret* if it is 32 bytes between zero and the order; else raise ValueError."""
    if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < ORDER:
        raise ValueError("a private key has 32 bytes, above zero and below the curve's order")
    return secret


def key_bytes(key: Any, kind: Any) -> bytes:
    """Return the bytes of *key*, an object of python-ecdsa's class *kind*, on secp256k1."""
    if not isinstance(key, kind):
        raise TypeError(f"the key is {type(key).__name__}; expected ecdsa's {kind.__name__}")
    if key.curve != ecdsa.SECP256k1:
        raise ValueError(f"the key is on {key.curve.name}; expected one on SECP256k1")
    return bytes(key.to_string())


def public_key(secret: bytes, backend: Backend = _backend) -> bytes:
    """Return the 64 bytes X and Y that belong to the private key *secret*."""
    return backend.public_key(secret)


def signer(secret: bytes, backend: Backend = _backend) -> Signer:
    """Return a function from a message to its signature in DER, over the message's SHA-256."""
    return backend.signer(secret)


def parse_signature(der: bytes) -> tuple[int, int]:
    """Return r and s of a signature; ValueError if it is not DER."""
    try:
        r, s = sigdecode_der(der, ORDER)
    except ecdsa.der.UnexpectedDER as error:
        raise ValueError("a signature is DER: a sequence of two integers") from error
    return r, s


def verify(key: bytes, message: bytes, signature: bytes, backend: Backend = _backend) -> bool:
    """Say whether *signature* (DER, high or low S) is by *key*, over SHA-256 of *message*."""
    try:
        r, s = parse_signature(signature)
        if not (0 < r < ORDER and 0 < s < ORDER):
            return False
        # libsecp256k1 accepts low S only; the protocol allows both, and 0.0.1 made both.
        low_s = sigencode_der(r, min(s, ORDER - s), ORDER)
        return backend.verify(_with_prefix(key), message, low_s)
    except ValueError:
        return False

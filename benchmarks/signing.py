"""Signing alone, without a request."""

from __future__ import annotations

import time

from figures import Figures, Scale, compared, pairs
from programs import libsecp256k1

from pymdc._crypto import secp256k1 as _secp256k1

SECRET = b"\x11" * 32
MESSAGE = b"GET\n/buckets/6b02b0fd5a7c8c5a831850a5\n__nonce=1453222669376"


def alone(scale: Scale) -> Figures:
    """Compare the signatures a second of libsecp256k1 and of python-ecdsa."""
    libsecp256k1()
    fast, slow = _secp256k1.Libsecp256k1(), _secp256k1.PythonECDSA()
    measured = pairs(
        lambda: _rate(fast, 10 * scale.calls), lambda: _rate(slow, scale.calls), scale.pairs
    )
    return compared(measured, "signatures/s")


def _rate(backend: _secp256k1.Backend, count: int) -> float:
    sign = _secp256k1.signer(SECRET, backend)
    start = time.perf_counter()
    for _ in range(count):
        sign(MESSAGE)
    return count / (time.perf_counter() - start)

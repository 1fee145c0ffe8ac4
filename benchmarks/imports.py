"""How long ``import pymdc`` takes, against what it cannot do without.

Each import is in a fresh interpreter, which measures it without its own start.
"""

from __future__ import annotations

from functools import partial

from figures import Figures, Scale, compared, pairs
from programs import WITHOUT_LIBSECP256K1, libsecp256k1, python

OURS = "import pymdc"
# The package websockets imports nothing by itself; pymdc speaks its protocol through this module.
THEIRS = "import urllib3, ecdsa, websockets.client"
_LEAST = 11


def plain(scale: Scale) -> Figures:
    """Compare the imports without libsecp256k1."""
    return _compared(WITHOUT_LIBSECP256K1, OURS, THEIRS, scale)


def fast(scale: Scale) -> Figures:
    """Compare the imports with libsecp256k1, which both import."""
    libsecp256k1()
    return _compared("pass", OURS, f"{THEIRS}, btclib_secp256k1.dsa", scale)


def count(scale: Scale) -> int:
    """Return how many pairs of imports are measured."""
    return max(_LEAST, scale.pairs)


def _compared(first: str, ours: str, theirs: str, scale: Scale) -> Figures:
    both = partial(_took, first, ours), partial(_took, first, theirs)
    pairs(*both, 1)  # once, so that all of it is compiled and in memory
    return compared(pairs(*both, count(scale)), "ms")


def _took(first: str, statement: str) -> float:
    """Return how many ms *statement* takes after *first*."""
    begun, took = "begun = time.perf_counter()", "time.perf_counter() - begun"
    return float(python(f"import sys, time; {first}; {begun}; {statement}; print(1000 * ({took}))"))

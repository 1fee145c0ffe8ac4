"""How long ``import pymdc`` takes, compared with the import of its dependencies.

Each import runs in a fresh interpreter, whose own start is not included.
"""

from __future__ import annotations

from functools import partial

from figures import Figures, Scale, compared, pairs
from programs import WITHOUT_LIBSECP256K1, libsecp256k1, python

OURS = "import pymdc"
# The package websockets imports nothing by itself; pymdc uses this module of it.
THEIRS = "import urllib3, ecdsa, websockets.client"
_MIN_PAIRS = 11


def plain(scale: Scale) -> Figures:
    """Compare the imports without libsecp256k1."""
    return _compared(WITHOUT_LIBSECP256K1, OURS, THEIRS, scale)


def fast(scale: Scale) -> Figures:
    """Compare the imports with libsecp256k1, which both import."""
    libsecp256k1()
    return _compared("pass", OURS, f"{THEIRS}, btclib_secp256k1.dsa", scale)


def count(scale: Scale) -> int:
    """Return the number of pairs of imports."""
    return max(_MIN_PAIRS, scale.pairs)


def _compared(first: str, ours: str, theirs: str, scale: Scale) -> Figures:
    both = partial(_milliseconds, first, ours), partial(_milliseconds, first, theirs)
    pairs(*both, 1)  # a first time, so that all modules are compiled and cached
    return compared(pairs(*both, count(scale)), "ms")


def _milliseconds(first: str, statement: str) -> float:
    """Return the milliseconds that *statement* takes after *first*."""
    start, seconds = "start = time.perf_counter()", "time.perf_counter() - start"
    return float(
        python(f"import sys, time; {first}; {start}; {statement}; print(1000 * ({seconds}))")
    )

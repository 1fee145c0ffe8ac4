"""RIPEMD-160 (Dobbertin, Bosselaers, Preneel 1996), also if OpenSSL is built without it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

# The published tables, with one hexadecimal digit per step and sixteen steps per round: the word of
# the block that a step reads, and the bits by which it rotates, for the left and the right line.
_WORD_LEFT = "0123456789abcdef74d1a6f3c0952eb83ae49f812706db5c19ba08c4d37fe56240597c2ae138b6fd"
_WORD_RIGHT = "5e7092b4d6f81a3c6b370d5aef8c4912f5137e69b8c2a04d86413bf05c2d97aecfa4158762de039b"
_ROTATE_LEFT = "befc5879bdef6798768db97f7cf9b7dcbd67e9dfe8d65c75bcefef989e56865c9f5b68dc5cdeb856"
_ROTATE_RIGHT = "899bdff5778beec69df7c89b77c76fdb97fb866ecd5edd75f58bee6e69c9c5f885c9c5e68d65fdbb"
_ADD_LEFT = (0x00000000, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_ADD_RIGHT = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0x00000000)
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_MASK = 0xFFFFFFFF

_State = tuple[int, int, int, int, int]
_Mix = Callable[[int, int, int], int]
_MIX: tuple[_Mix, ...] = (
    lambda x, y, z: x ^ y ^ z,
    lambda x, y, z: (x & y) | (~x & z),
    lambda x, y, z: (x | ~y) ^ z,
    lambda x, y, z: (x & z) | (y & ~z),
    lambda x, y, z: x ^ (y | ~z),
)


def _rotate(value: int, bits: int) -> int:
    value &= _MASK
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _line(
    state: _State,
    block: tuple[int, ...],
    words: str,
    rotations: str,
    adds: tuple[int, ...],
    mixes: tuple[_Mix, ...],
) -> _State:
    a, b, c, d, e = state
    for step, (word, bits) in enumerate(zip(words, rotations, strict=True)):
        number = step // 16
        mixed = a + mixes[number](b, c, d) + block[int(word, 16)] + adds[number]
        a, b, c, d, e = e, (_rotate(mixed, int(bits, 16)) + e) & _MASK, b, _rotate(c, 10), d
    return a, b, c, d, e


def _compress(state: _State, block: tuple[int, ...]) -> _State:
    a, b, c, d, e = _line(state, block, _WORD_LEFT, _ROTATE_LEFT, _ADD_LEFT, _MIX)
    f, g, h, i, j = _line(state, block, _WORD_RIGHT, _ROTATE_RIGHT, _ADD_RIGHT, _MIX[::-1])
    p, q, r, s, t = state
    sums = (q + c + i, r + d + j, s + e + f, t + a + g, p + b + h)
    return tuple(value & _MASK for value in sums)  # type: ignore[return-value]  # it has five items


def pure_ripemd160(data: bytes) -> bytes:
    """Return the 20 bytes of RIPEMD-160 over *data*, computed in Python."""
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + struct.pack("<Q", len(data) * 8)
    state: _State = _START
    for block in struct.iter_unpack("<16I", padded):
        state = _compress(state, block)
    return struct.pack("<5I", *state)


def _openssl_ripemd160(data: bytes) -> bytes:
    return hashlib.new("ripemd160", data, usedforsecurity=False).digest()


def _available() -> bool:
    try:
        _openssl_ripemd160(b"")
    except ValueError:
        return False
    return True


ripemd160 = _openssl_ripemd160 if _available() else pure_ripemd160

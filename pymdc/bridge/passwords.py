"""Passwords, stored as slow salted hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any

_COST = {"n": 2**14, "r": 8, "p": 1}
_UNMATCHED = "scrypt$16384$8$1$" + 32 * "0" + "$" + 128 * "0"


class Passwords:
    """Hashes passwords with *scrypt*, a function with the parameters of `hashlib.scrypt`."""

    def __init__(self, scrypt: Callable[..., bytes] = hashlib.scrypt) -> None:
        self._scrypt = scrypt

    def hash(self, password: str) -> str:
        """Return a new salted hash of *password*, preceded by its parameters."""
        salt = secrets.token_bytes(16)
        digest = self._derive(password, salt, **_COST)
        return "$".join(("scrypt", *map(str, _COST.values()), salt.hex(), digest.hex()))

    def matches(self, password: str, stored: str | None) -> bool:
        """Say whether *stored* is a hash of *password*; for None, do the same work and say no."""
        _, n, r, p, salt, expected = (stored or _UNMATCHED).split("$")
        digest = self._derive(password, bytes.fromhex(salt), n=int(n), r=int(r), p=int(p))
        return hmac.compare_digest(digest, bytes.fromhex(expected))

    def _derive(self, password: str, salt: bytes, **cost: Any) -> bytes:
        return self._scrypt(password.encode(), salt=salt, **cost)

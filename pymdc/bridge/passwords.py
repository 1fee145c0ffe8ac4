"""Passwords, stored as slow salted hashes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Any

from pymdc.bridge.settings import PASSWORD_COST

_UNMATCHED = "scrypt$16384$8$1$" + 32 * "0" + "$" + 128 * "0"


class Passwords:
    """Hashes passwords with *scrypt*, a function with the parameters of `hashlib.scrypt`.

    *cost* is its parameter n; by default, that of `PASSWORD_COST`.
    """

    def __init__(
        self, scrypt: Callable[..., bytes] = hashlib.scrypt, cost: int | None = None
    ) -> None:
        self._scrypt = scrypt
        self._cost = PASSWORD_COST if cost is None else PASSWORD_COST | {"n": cost}

    def hash(self, password: str) -> str:
        """Return a new salted hash of *password*, preceded by its parameters."""
        salt = secrets.token_bytes(16)
        digest = self._derive(password, salt, **self._cost)
        return "$".join(("scrypt", *map(str, self._cost.values()), salt.hex(), digest.hex()))

    def matches(self, password: str, stored: str | None) -> bool:
        """Say whether *stored* is a hash of *password*; for None, do the same work and say no."""
        _, n, r, p, salt, expected = (stored or _UNMATCHED).split("$")
        digest = self._derive(password, bytes.fromhex(salt), n=int(n), r=int(r), p=int(p))
        return hmac.compare_digest(digest, bytes.fromhex(expected))

    def _derive(self, password: str, salt: bytes, **cost: Any) -> bytes:
        return self._scrypt(password.encode(), salt=salt, **cost)

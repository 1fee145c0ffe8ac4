"""Who asks: anybody, a user, a key that a bucket lists, or the holder of a token."""

from __future__ import annotations

import re
from dataclasses import dataclass

import sqlalchemy as sa

from pymdc._crypto.secp256k1 import parse_signature, point, verify
from pymdc._crypto.signing import contract
from pymdc.bridge.context import State
from pymdc.bridge.errors import Refused
from pymdc.bridge.js_number import number
from pymdc.bridge.serving.request import Asked
from pymdc.bridge.storage.tables import find_bucket, public_keys, spend, tokens, users

_HEX = re.compile(r"([0-9a-fA-F]{2})+")
_USER_BY_KEY = sa.select(users).join(public_keys).where(public_keys.c.key == sa.bindparam("key"))


@dataclass(frozen=True)
class Who:
    """A user by e-mail, and the key that signed if one did; a listed key comes without a user.

    Of the holder of a token only what it is for is known.
    """

    email: str = ""
    key: str = ""
    bucket: str = ""
    operation: str = ""


def anybody(_state: State, _asked: Asked) -> Who:
    """Let anybody in."""
    return Who()


def user(state: State, asked: Asked) -> Who:
    """Let a user in, by password or by key."""
    return _by_password(state, asked) or _by_key(state, asked)


def user_or_listed_key(state: State, asked: Asked) -> Who:
    """Let in a user, or a key that nobody registered and the bucket lists."""
    return _by_password(state, asked) or _by_key(state, asked, listed=True)


def token_holder(state: State, asked: Asked) -> Who:
    """Let in whoever presents a token, which is spent whatever comes of the request."""
    with state.database.write() as connection:
        row = spend(connection, tokens, asked.headers.get("x-token", ""), state.now())
    if row is None:
        raise Refused(401, "Invalid or expired token")
    return Who(bucket=row["bucket"], operation=row["operation"])


def _by_password(state: State, asked: Asked) -> Who | None:
    if asked.credentials is None:
        return None
    email, password = asked.credentials
    with state.database.read() as connection:
        statement = sa.select(users).where(users.c.email == email.lower())
        row = connection.execute(statement).mappings().first()
    if not state.passwords.matches(password, row["password"] if row else None) or not row:
        raise Refused(401, "Invalid email or password")
    return Who(_activated(row))


def _by_key(state: State, asked: Asked, listed: bool = False) -> Who:
    key = _signing_key(asked)
    with state.database.write() as connection:
        row = connection.execute(_USER_BY_KEY, {"key": key}).mappings().first()
        if row is None and not listed:
            raise Refused(401, "Public key not registered")
        if row is None and key not in find_bucket(connection, asked.bucket)["pubkeys"]:
            raise Refused(404, "Bucket not found")
        email = "" if row is None else _activated(row)
        # The key's own too: once its user has removed it, a bucket may still list it.
        owners = [owner for owner in (email, point(bytes.fromhex(key)).hex()) if owner]
        if not state.nonces.spend(connection, owners, _nonce(asked), _r(asked)):
            raise Refused(401, "Invalid nonce supplied")
    return Who(email, key)


def _signing_key(asked: Asked) -> str:
    """Return the key by which the request is signed."""
    key, signature = asked.headers.get("x-pubkey"), asked.headers.get("x-signature")
    if not key or not signature:
        raise Refused(401, "No authentication strategy detected")
    if not _HEX.fullmatch(key) or not _HEX.fullmatch(signature):
        raise Refused(401, "Invalid signature")
    try:
        der = bytes.fromhex(signature)
        if not _signs(asked, key, der):
            parse_signature(der)
            raise Refused(401, "Invalid signature")
    except ValueError:
        raise Refused(400, "Signature without r or s") from None
    return key


def _signs(asked: Asked, key: str, der: bytes) -> bool:
    payload = asked.body if asked.has_body else asked.query.encode("latin-1")
    try:
        return verify(bytes.fromhex(key), contract(asked.method, asked.path, payload), der)
    except ValueError:
        return False


def _r(asked: Asked) -> str:
    """Return r of the signature, which is valid: 64 hexadecimal digits."""
    r, _ = parse_signature(bytes.fromhex(asked.headers["x-signature"]))
    return f"{r:064x}"


def _activated(row: sa.RowMapping) -> str:
    if row["activation"] is not None:
        raise Refused(401, "User account has not been activated")
    return str(row["email"])


def _nonce(asked: Asked) -> float:
    supplied = (asked.fields if asked.has_body else asked.arguments).get("__nonce")
    try:
        nonce = number(supplied or 0)
    except ValueError:
        raise Refused(400, "User validation failed") from None
    if nonce <= 0:
        raise Refused(401, "Invalid nonce supplied")
    return nonce

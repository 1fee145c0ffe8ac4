"""The public keys of users."""

from __future__ import annotations

import re

import sqlalchemy as sa

from pymdc._crypto.secp256k1 import point
from pymdc.bridge.auth import Who
from pymdc.bridge.context import State
from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import Answer, Asked
from pymdc.bridge.storage.database import insert_new
from pymdc.bridge.storage.tables import public_keys

_KEY = re.compile(r"[0-9a-fA-F]{66}|[0-9a-fA-F]{130}")


def list_keys(state: State, _asked: Asked, who: Who) -> Answer:
    """List the user's public keys."""
    statement = sa.select(public_keys.c.key).where(public_keys.c.user == who.email)
    with state.database.read() as connection:
        keys = connection.execute(statement.order_by(public_keys.c.number)).scalars().all()
    return Answer([_present_key(who, key) for key in keys])


def register_key(state: State, asked: Asked, who: Who) -> Answer:
    """Register a public key."""
    key = public_key(asked.fields.get("key"))
    with state.database.write() as connection:
        if not insert_new(connection, public_keys, user=who.email, key=key):
            raise Refused(400, "Public key is already registered")
    return Answer(_present_key(who, key))


def remove_key(state: State, asked: Asked, who: Who) -> Answer:
    """Remove a public key."""
    mine = public_keys.c.user == who.email
    statement = sa.delete(public_keys).where(mine, public_keys.c.key == asked.parameters["key"])
    with state.database.write() as connection:
        if connection.execute(statement).rowcount != 1:
            raise Refused(404, "Public key was not found")
    return Answer()


def public_key(value: object) -> str:
    """Return *value*, as it is spelled, if it is a point of the curve in 33 or 65 bytes of hex."""
    try:
        if not isinstance(value, str) or not _KEY.fullmatch(value):
            raise ValueError("not the hexadecimal digits of a key")
        point(bytes.fromhex(value))
    except ValueError:
        raise Refused(400, "Invalid public key supplied") from None
    return value


def _present_key(who: Who, key: str) -> dict[str, str]:
    return {"user": who.email, "key": key, "id": key}

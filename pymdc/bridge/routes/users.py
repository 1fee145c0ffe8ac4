"""Users: registering, activating, and their public keys."""

from __future__ import annotations

import re
import secrets
from urllib.parse import quote

import sqlalchemy as sa

from pymdc._crypto.secp256k1 import point
from pymdc.bridge.auth import Who
from pymdc.bridge.context import State, iso
from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import Answer, Asked
from pymdc.bridge.storage.database import insert_new, public_keys, users

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_PASSWORD = re.compile(r"[0-9a-fA-F]{64}")
_KEY = re.compile(r"[0-9a-fA-F]{66}|[0-9a-fA-F]{130}")


def register(state: State, asked: Asked, _who: Who) -> Answer:
    """Register a user, who is sent an activation link."""
    email, password = _credentials(asked)
    key = None if asked.fields.get("pubkey") is None else public_key(asked.fields["pubkey"])
    hashed, activation, now = state.passwords.hash(password), secrets.token_hex(32), state.now()
    row = {"email": email, "password": hashed, "activation": activation, "created": now}
    with state.database.write() as connection:
        if not insert_new(connection, users, **row):
            raise Refused(400, "Email is already registered")
        if key and not insert_new(connection, public_keys, user=email, key=key):
            raise Refused(400, "Public key is already registered")
    link, target = f"{state.endpoint}/activations/{activation}", asked.fields.get("redirect")
    if isinstance(target, str):
        link += f"?redirect={quote(target, safe='')}"
    state.mail.send_activation(email, link)
    return Answer(_present(email, now, activated=False) | ({"pubkey": key} if key else {}))


def activate(state: State, asked: Asked, _who: Who) -> Answer:
    """Activate the user who was sent this token; redirect if the query says where to."""
    statement = sa.update(users).where(users.c.activation == asked.parameters["token"])
    statement = statement.values(activation=None)
    with state.database.write() as connection:
        row = connection.execute(statement.returning(users.c.email, users.c.created)).first()
    if row is None:
        raise Refused(400, "Invalid activation token")
    target = quote(asked.arguments.get("redirect", ""), safe=":/%#?=@[]!$&'()*+,;")
    if target:
        return Answer(status=302, headers=(("Location", target),))
    return Answer(_present(*row, activated=True))


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


def _credentials(asked: Asked) -> tuple[str, str]:
    email, password = asked.fields.get("email"), asked.fields.get("password")
    if not isinstance(password, str) or not _PASSWORD.fullmatch(password):
        raise Refused(400, "Password must be hex encoded SHA-256 hash")
    if not isinstance(email, str) or not _EMAIL.fullmatch(email) or len(email) > 254:
        raise Refused(400, "User validation failed")
    return email.lower(), password


def _present(email: str, created: int, *, activated: bool) -> dict[str, object]:
    return {"activated": activated, "created": iso(created), "email": email, "id": email}


def _present_key(who: Who, key: str) -> dict[str, str]:
    return {"user": who.email, "key": key, "id": key}

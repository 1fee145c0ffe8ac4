"""Users: registering and activating."""

from __future__ import annotations

import re
import secrets
from urllib.parse import quote

import sqlalchemy as sa

from pymdc.bridge.auth import Who
from pymdc.bridge.context import State, iso
from pymdc.bridge.errors import Refused
from pymdc.bridge.routes.keys import public_key
from pymdc.bridge.serving.request import Answer, Asked
from pymdc.bridge.storage.database import insert_new
from pymdc.bridge.storage.tables import public_keys, users

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_PASSWORD = re.compile(r"[0-9a-fA-F]{64}")


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


def _credentials(asked: Asked) -> tuple[str, str]:
    email, password = asked.fields.get("email"), asked.fields.get("password")
    if not isinstance(password, str) or not _PASSWORD.fullmatch(password):
        raise Refused(400, "Password must be hex encoded SHA-256 hash")
    if not isinstance(email, str) or not _EMAIL.fullmatch(email) or len(email) > 254:
        raise Refused(400, "User validation failed")
    return email.lower(), password


def _present(email: str, created: int, *, activated: bool) -> dict[str, object]:
    return {"activated": activated, "created": iso(created), "email": email, "id": email}

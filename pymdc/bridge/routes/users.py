"""Users: registration and activation."""

from __future__ import annotations

import re
import secrets
from urllib.parse import quote

import sqlalchemy as sa

from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context, iso_time
from pymdc.bridge.errors import Refused
from pymdc.bridge.mail import ACTIVATION
from pymdc.bridge.routes.keys import claim_key, public_key
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import MAX_REDIRECT
from pymdc.bridge.storage.database import insert_new
from pymdc.bridge.storage.tables import invitations, public_keys, users

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_PASSWORD = re.compile(r"[0-9a-fA-F]{64}")


def register(context: Context, request: Request, _identity: Identity) -> Response:
    """Register a user, who is sent an activation link."""
    email, password = _credentials(request)
    key = None if request.fields.get("pubkey") is None else public_key(request.fields["pubkey"])
    hashed, activation, now = context.passwords.hash(password), secrets.token_hex(32), context.now()
    row = {"email": email, "password": hashed, "activation": activation, "created": now}
    with context.database.write() as connection:
        _check_invited(context, connection, request, email)
        if not insert_new(connection, users, **row) and not _register_again(connection, row):
            raise Refused(400, "Email is already registered")
        if key:
            claim_key(connection, email, key, proven=False)
    link, redirect = f"{context.endpoint}/activations/{activation}", request.fields.get("redirect")
    if isinstance(redirect, str) and len(redirect) <= MAX_REDIRECT:
        link += f"?redirect={quote(redirect, safe='')}"
    context.mailer.send(ACTIVATION, email, link)
    return Response(_user_json(email, now, activated=False) | ({"pubkey": key} if key else {}))


def activate(context: Context, request: Request, _identity: Identity) -> Response:
    """Activate the user who was sent this token; redirect if the query says where to."""
    statement = sa.update(users).where(users.c.activation == request.path_parameters["token"])
    statement = statement.values(activation=None)
    with context.database.write() as connection:
        row = connection.execute(statement.returning(users.c.email, users.c.created)).first()
    if row is None:
        raise Refused(400, "Invalid activation token")
    target = quote(request.query_parameters.get("redirect", ""), safe=":/%#?=@[]!$&'()*+,;")
    if target:
        return Response(status=302, headers=(("Location", target),))
    return Response(_user_json(*row, activated=True))


def _register_again(connection: sa.Connection, row: dict[str, object]) -> bool:
    """Replace a registration that nobody has activated, so that its last link alone is good."""
    waiting = users.c.activation.is_not(None), users.c.email == row["email"]
    again = connection.execute(sa.update(users).where(*waiting).values(**row)).rowcount == 1
    if again:
        mine = public_keys.c.user == row["email"]
        connection.execute(sa.delete(public_keys).where(mine))
    return again


def _check_invited(
    context: Context, connection: sa.Connection, request: Request, email: str
) -> None:
    """Refuse a registration where it is closed, or where it takes an invitation."""
    if context.registration == "open":
        return
    code = request.fields.get("invitation")
    if context.registration == "closed" or not isinstance(code, str):
        raise Refused(403, "Registration is closed")
    unused = invitations.c.code == code, invitations.c.email.is_(None)
    used = sa.update(invitations).where(*unused).values(email=email)
    if connection.execute(used).rowcount != 1:
        raise Refused(403, "The invitation is not valid")


def _credentials(request: Request) -> tuple[str, str]:
    email, password = request.fields.get("email"), request.fields.get("password")
    if not isinstance(password, str) or not _PASSWORD.fullmatch(password):
        raise Refused(400, "Password must be hex encoded SHA-256 hash")
    if not isinstance(email, str) or not _EMAIL.fullmatch(email) or len(email) > 254:
        raise Refused(400, "User validation failed")
    return email.lower(), password


def _user_json(email: str, created: int, *, activated: bool) -> dict[str, object]:
    return {"activated": activated, "created": iso_time(created), "email": email, "id": email}

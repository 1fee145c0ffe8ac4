"""The public keys of users."""

from __future__ import annotations

import re

import sqlalchemy as sa

from pymdc._crypto.secp256k1 import point
from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.storage.database import insert_new
from pymdc.bridge.storage.tables import public_keys

_KEY = re.compile(r"[0-9a-fA-F]{66}|[0-9a-fA-F]{130}")


def list_keys(context: Context, _request: Request, identity: Identity) -> Response:
    """List the user's public keys."""
    statement = sa.select(public_keys.c.key).where(public_keys.c.user == identity.email)
    with context.database.read() as connection:
        keys = connection.execute(statement.order_by(public_keys.c.number)).scalars().all()
    return Response([_key_json(identity, key) for key in keys])


def register_key(context: Context, request: Request, identity: Identity) -> Response:
    """Register a public key."""
    key = public_key(request.fields.get("key"))
    with context.database.write() as connection:
        if not insert_new(connection, public_keys, user=identity.email, key=key):
            raise Refused(400, "Public key is already registered")
    return Response(_key_json(identity, key))


def remove_key(context: Context, request: Request, identity: Identity) -> Response:
    """Remove a public key."""
    mine = public_keys.c.user == identity.email
    statement = sa.delete(public_keys).where(
        mine, public_keys.c.key == request.path_parameters["key"]
    )
    with context.database.write() as connection:
        if connection.execute(statement).rowcount != 1:
            raise Refused(404, "Public key was not found")
    return Response()


def public_key(value: object) -> str:
    """Return *value* unchanged if it is a public key in hexadecimal; else refuse it."""
    try:
        if not isinstance(value, str) or not _KEY.fullmatch(value):
            raise ValueError("not the hexadecimal digits of a key")
        point(bytes.fromhex(value))
    except ValueError:
        raise Refused(400, "Invalid public key supplied") from None
    return value


def _key_json(identity: Identity, key: str) -> dict[str, str]:
    return {"user": identity.email, "key": key, "id": key}

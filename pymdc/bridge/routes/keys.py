"""The public keys of users.

A registration that the key itself has signed is proven: whoever made it has the private key.
One without a signature is a mere claim. It gives way to a proven one.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from pymdc._crypto.secp256k1 import point
from pymdc.bridge.auth import Identity, has_proof, lock_identity
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import MAX_KEYS
from pymdc.bridge.storage.accounts import unlist
from pymdc.bridge.storage.database import insert_new, lock_name
from pymdc.bridge.storage.tables import lock_user, public_keys

_KEY = re.compile(r"[0-9a-fA-F]{66}|[0-9a-fA-F]{130}")


def list_keys(context: Context, _request: Request, identity: Identity) -> Response:
    """List the user's public keys."""
    statement = sa.select(public_keys.c.key).where(public_keys.c.user == identity.email)
    with context.database.read() as connection:
        keys = connection.execute(statement.order_by(public_keys.c.number)).scalars().all()
    return Response([_key_json(identity, key) for key in keys])


def register_key(context: Context, request: Request, identity: Identity) -> Response:
    """Register a public key; the key itself may sign the request besides the user's password."""
    key = public_key(request.fields.get("key"))
    with context.database.write() as connection:
        # The signature is for one user: a request that another bridge was sent proves nothing here.
        named = str(request.fields.get("user")).lower() == identity.email
        proven = not identity.key and named and has_proof(context, connection, request, key)
        lock_identity(connection, identity)
        claim_key(connection, identity.email, key, proven=proven)
    return Response(_key_json(identity, key))


def claim_key(connection: sa.Connection, email: str, key: str, *, proven: bool) -> None:
    """Register *key* for a user; refuse if somebody else has it, or a better claim to it.

    The caller has locked the user.
    """
    row = {"user": email, "key": key, "point": _point(key), "proven": proven}
    lock_name(connection, f"key {row['point']}")
    others = sa.and_(public_keys.c.point == row["point"], public_keys.c.user != email)
    if proven:
        same = sa.or_(others, public_keys.c.key == key)
        connection.execute(sa.delete(public_keys).where(same, ~public_keys.c.proven))
    mine = sa.select(sa.func.count()).where(public_keys.c.user == email).scalar_subquery()
    query = sa.select(sa.exists().where(others), mine >= MAX_KEYS)
    taken, full = connection.execute(query).one()
    if full:
        raise Refused(403, f"An account has at most {MAX_KEYS} public keys")
    if taken or not insert_new(connection, public_keys, **row):
        raise Refused(400, "Public key is already registered")


def remove_key(context: Context, request: Request, identity: Identity) -> Response:
    """Remove a public key, and take it off the lists of the user's buckets."""
    key, mine = request.path_parameters["key"], public_keys.c.user == identity.email
    with context.database.write() as connection:
        lock_user(connection, identity.email)
        this = sa.delete(public_keys).where(mine, public_keys.c.key == key)
        removed = connection.execute(this.returning(public_keys.c.point)).scalar()
        if removed is None:
            raise Refused(404, "Public key was not found")
        other_form = sa.exists().where(mine, public_keys.c.point == removed)
        if not connection.execute(sa.select(other_form)).scalar():
            unlist(connection, identity.email, {removed})
    return Response()


def public_key(value: object) -> str:
    """Return *value* unchanged if it is a public key in hexadecimal; else refuse it."""
    try:
        if not isinstance(value, str) or not _KEY.fullmatch(value):
            raise ValueError("not the hexadecimal digits of a key")
        _point(value)
    except ValueError:
        raise Refused(400, "Invalid public key supplied") from None
    return value


def _point(key: str) -> str:
    return point(bytes.fromhex(key)).hex()


def _key_json(identity: Identity, key: str) -> dict[str, str]:
    return {"user": identity.email, "key": key, "id": key}

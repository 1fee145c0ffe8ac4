"""Buckets, and the tokens for uploads and downloads."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

import sqlalchemy as sa

from pymdc.bridge.auth import Identity, lock_identity
from pymdc.bridge.context import Context, iso_time
from pymdc.bridge.errors import Refused
from pymdc.bridge.js_number import js_number, json_number
from pymdc.bridge.routes.keys import public_key
from pymdc.bridge.routes.pages import listed
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import (
    BUCKETS_PAGE,
    MAX_BUCKETS,
    MAX_LISTED_KEYS,
    MAX_NAME,
    TOKEN_LIFETIME,
)
from pymdc.bridge.storage.prepared import Prepared, Row
from pymdc.bridge.storage.removal import remove_piece
from pymdc.bridge.storage.tables import buckets, find_bucket, tokens, total

_INSERT_TOKEN = Prepared(
    sa.insert(tokens).values({column.name: sa.bindparam(column.name) for column in tokens.c})
)
_DEFAULTS: dict[str, Any] = {"name": "New Bucket", "storage": 10, "transfer": 30, "pubkeys": []}


def list_buckets(context: Context, _request: Request, identity: Identity) -> Response:
    """List the user's buckets."""
    statement = sa.select(buckets).where(*_owned_by(identity.email))
    return listed(context, statement, buckets.c.number, BUCKETS_PAGE, _bucket_json)


def create(context: Context, request: Request, identity: Identity) -> Response:
    """Create a bucket, which lists the key that signed."""
    values = _DEFAULTS | _changes(request)
    if identity.key and identity.key not in values["pubkeys"]:
        values["pubkeys"] = [*values["pubkeys"], identity.key]
    # As MongoDB makes ids: 8 digits of the time, and 16 random ones.
    bucket = f"{int(context.clock()) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"
    values |= {"id": bucket, "user": identity.email, "created": context.now()}
    count = sa.select(sa.func.count()).where(*_owned_by(identity.email)).scalar_subquery()
    row = [sa.literal(value, buckets.c[name].type) for name, value in values.items()]
    fits = sa.select(*row).where(count < MAX_BUCKETS)
    insert = sa.insert(buckets).from_select([*values], fits)
    with context.database.write() as connection:
        lock_identity(connection, identity)
        if connection.execute(insert).rowcount != 1:
            raise Refused(403, f"An account has at most {MAX_BUCKETS} buckets")
        if request.fields.get("pubkeys"):
            _check_listed_keys(connection, identity.email)
        return Response(_bucket_json(find_bucket(connection, bucket)))


def show(context: Context, request: Request, identity: Identity) -> Response:
    """Show a bucket."""
    with context.database.read() as connection:
        return Response(_bucket_json(find_bucket(connection, request.bucket, identity.email)))


def change(context: Context, request: Request, identity: Identity) -> Response:
    """Change the name, storage, transfer or public keys of a bucket."""
    bucket, values = request.bucket, _changes(request)
    if request.fields.get("pubkeys", ()) is None:
        raise Refused(400, "Bucket validation failed")
    statement = sa.update(buckets).where(buckets.c.id == bucket, buckets.c.user == identity.email)
    with context.database.write() as connection:
        if "pubkeys" in values:  # an empty list too: it may be read to take a key off it
            lock_identity(connection, identity)
        if values:
            connection.execute(statement.values(**values))
        if values.get("pubkeys"):
            _check_listed_keys(connection, identity.email)
        return Response(_bucket_json(find_bucket(connection, bucket, identity.email)))


def remove(context: Context, request: Request, identity: Identity) -> Response:
    """Remove a bucket and its files."""
    with context.database.write() as connection:
        bucket = find_bucket(connection, request.bucket, identity.email)["id"]
        this = sa.update(buckets).where(buckets.c.id == bucket, buckets.c.removed.is_(None))
        if connection.execute(this.values(removed=context.now())).rowcount != 1:
            raise Refused(404, "Bucket not found")
    piece = partial(remove_piece, context.database, context.objects, bucket)
    return Response(status=204, piece=partial(context.load.run, piece, share=1))


def create_token(context: Context, request: Request, identity: Identity) -> Response:
    """Create a token for bringing a file into the bucket (PUSH) or out of it (PULL)."""
    now, token, operation = context.now(), secrets.token_hex(32), request.fields.get("operation")
    expires = now + TOKEN_LIFETIME
    with context.database.write_once() as connection:
        bucket = find_bucket(connection, request.bucket, identity.email)["id"]
        if operation not in ("PUSH", "PULL"):
            raise Refused(400, "Token validation failed")
        row = {"bucket": bucket, "operation": operation, "expires": expires, "token": token}
        _INSERT_TOKEN.count(connection, row)
    return Response(row | {"expires": iso_time(expires), "id": token})


def _check_listed_keys(connection: sa.Connection, email: str) -> None:
    """Refuse if all buckets of a user list too many keys; the caller rolls back."""
    size = sa.func.length(sa.cast(buckets.c.pubkeys, sa.Text))
    listed = sa.select(total(size)).where(*_owned_by(email))
    if connection.execute(listed).scalar_one() > MAX_LISTED_KEYS:
        raise Refused(403, "The buckets of the account list too many public keys")


def _owned_by(email: str) -> tuple[sa.ColumnElement[bool], ...]:
    return buckets.c.user == email, buckets.c.removed.is_(None)


def _changes(request: Request) -> dict[str, Any]:
    """Return the columns that a request sets, and their values."""
    readers = {"name": _name, "storage": _quota, "transfer": _quota}
    try:
        values: dict[str, Any] = {
            name: read(request.fields[name])
            for name, read in readers.items()
            if name in request.fields
        }
    except ValueError:
        raise Refused(400, "Bucket validation failed") from None
    if isinstance(request.fields.get("pubkeys"), list):
        values["pubkeys"] = [public_key(key) for key in request.fields["pubkeys"]]
    return values


def _name(value: object) -> str | None:
    if value is None or isinstance(value, str):
        if value and len(value) > MAX_NAME:
            raise ValueError("the name is too long")
        return value
    return str(json_number(js_number(value)))


def _quota(value: object) -> float | None:
    quota = None if value is None else js_number(value)
    if quota is not None and quota < 0:
        raise ValueError("the quota is negative")
    return quota


def _bucket_json(row: Row | sa.RowMapping) -> dict[str, object]:
    names = ("user", "name", "pubkeys", "id")
    quotas = {name: json_number(row[name]) for name in ("storage", "transfer")}
    rest = {"created": iso_time(row["created"]), "status": "Active"}
    return {name: row[name] for name in names} | quotas | rest

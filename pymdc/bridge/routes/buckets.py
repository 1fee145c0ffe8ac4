"""Buckets, and the tokens by which files go in and out."""

from __future__ import annotations

import secrets
from typing import Any

import sqlalchemy as sa

from pymdc.bridge.auth import Who
from pymdc.bridge.context import State, iso
from pymdc.bridge.errors import Refused
from pymdc.bridge.js_number import number, plain
from pymdc.bridge.routes.files import remove_files
from pymdc.bridge.routes.keys import public_key
from pymdc.bridge.serving.request import Answer, Asked
from pymdc.bridge.settings import TOKEN_LIFETIME
from pymdc.bridge.storage.tables import buckets, find_bucket, issue, tokens

_OWNED = buckets.c.user == sa.bindparam("user")
_USERS_BUCKETS = sa.select(buckets).where(_OWNED).order_by(buckets.c.number)
_DEFAULTS: dict[str, Any] = {"name": "New Bucket", "storage": 10, "transfer": 30, "pubkeys": []}


def list_buckets(state: State, _asked: Asked, who: Who) -> Answer:
    """List the user's buckets."""
    with state.database.read() as connection:
        rows = connection.execute(_USERS_BUCKETS, {"user": who.email}).mappings()
        return Answer([_present(row) for row in rows])


def create(state: State, asked: Asked, who: Who) -> Answer:
    """Create a bucket, which lists the key that signed."""
    values = _DEFAULTS | _changes(asked)
    if who.key and who.key not in values["pubkeys"]:
        values["pubkeys"] = [*values["pubkeys"], who.key]
    # An id is made as MongoDB makes them: 8 digits of time, the others of chance.
    bucket = f"{int(state.clock()) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"
    values |= {"id": bucket, "user": who.email, "created": state.now()}
    with state.database.write() as connection:
        connection.execute(sa.insert(buckets).values(**values))
        return Answer(_present(find_bucket(connection, bucket)))


def show(state: State, asked: Asked, who: Who) -> Answer:
    """Show a bucket."""
    with state.database.read() as connection:
        return Answer(_present(find_bucket(connection, asked.bucket, who.email)))


def change(state: State, asked: Asked, who: Who) -> Answer:
    """Change the name, storage, transfer or public keys of a bucket."""
    bucket, values = asked.bucket, _changes(asked)
    if asked.fields.get("pubkeys", ()) is None:
        raise Refused(400, "Bucket validation failed")
    statement = sa.update(buckets).where(buckets.c.id == bucket, buckets.c.user == who.email)
    with state.database.write() as connection:
        if values:
            connection.execute(statement.values(**values))
        return Answer(_present(find_bucket(connection, bucket, who.email)))


def remove(state: State, asked: Asked, who: Who) -> Answer:
    """Remove a bucket and its files."""
    with state.database.write() as connection:
        bucket = find_bucket(connection, asked.bucket, who.email)["id"]
        objects = remove_files(connection, bucket)
        connection.execute(sa.delete(buckets).where(buckets.c.id == bucket))
    state.shards.delete(objects)
    return Answer(status=204)


def create_token(state: State, asked: Asked, who: Who) -> Answer:
    """Create a token for bringing a file into the bucket (PUSH) or out of it (PULL)."""
    now, token, operation = state.now(), secrets.token_hex(32), asked.fields.get("operation")
    expires = now + TOKEN_LIFETIME
    with state.database.write() as connection:
        bucket = find_bucket(connection, asked.bucket, who.email)["id"]
        if operation not in ("PUSH", "PULL"):
            raise Refused(400, "Token validation failed")
        row = {"bucket": bucket, "operation": operation, "expires": expires, "token": token}
        issue(connection, tokens, now, [row])
    return Answer(row | {"expires": iso(expires), "id": token})


def _changes(asked: Asked) -> dict[str, Any]:
    """Return the values that a request sets in a bucket."""
    readers = {"name": _name, "storage": _quota, "transfer": _quota}
    try:
        values: dict[str, Any] = {
            name: read(asked.fields[name]) for name, read in readers.items() if name in asked.fields
        }
    except ValueError:
        raise Refused(400, "Bucket validation failed") from None
    if isinstance(asked.fields.get("pubkeys"), list):
        values["pubkeys"] = [public_key(key) for key in asked.fields["pubkeys"]]
    return values


def _name(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else str(plain(number(value)))


def _quota(value: object) -> float | None:
    return None if value is None else number(value)


def _present(row: sa.RowMapping) -> dict[str, object]:
    names = ("user", "name", "pubkeys", "id")
    quotas = {name: plain(row[name]) for name in ("storage", "transfer")}
    rest = {"created": iso(row["created"]), "status": "Active"}
    return {name: row[name] for name in names} | quotas | rest

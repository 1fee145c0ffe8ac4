"""The files in a bucket, and the pointers to their shards."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import sqlalchemy as sa

from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import TOKEN_LIFETIME
from pymdc.bridge.storage.tables import (
    BATCH,
    file_shards,
    files,
    find_bucket,
    insert_tokens,
    pointers,
    shards,
)

_REFUSALS = {
    "PUSH": "Not authorized to store in bucket",
    "PULL": "Not authorized to retrieve from bucket",
}


def list_files(context: Context, request: Request, identity: Identity) -> Response:
    """List the files in a bucket."""
    with context.database.read() as connection:
        bucket = find_bucket(connection, request.bucket, identity.email)["id"]
        statement = sa.select(files).where(files.c.bucket == bucket).order_by(files.c.number)
        return Response([_file_json(row) for row in connection.execute(statement).mappings()])


def list_pointers(context: Context, request: Request, identity: Identity) -> Response:
    """Spend a PULL token on pointers to the shards of a file, in order; sizes are in bytes."""
    bucket, file_hash, now = request.bucket, request.path_parameters["hash"], context.now()
    rest = {"operation": "PULL", "channel": request.channel_url}
    with context.database.write() as connection:
        check_token(connection, identity, bucket, "PULL")
        if _find_file(connection, bucket, file_hash) is None:
            raise Refused(404, "The requested file was not found")
        answer = [
            {"hash": part["hash"], "token": secrets.token_hex(20), "size": part["size"]} | rest
            for part in _shards(connection, bucket, file_hash)
        ]
        expires = now + TOKEN_LIFETIME
        rows = [
            {"token": pointer["token"], "shard": pointer["hash"], "expires": expires}
            for pointer in answer
        ]
        insert_tokens(connection, pointers, now, rows)
    return Response(answer)


def remove(context: Context, request: Request, identity: Identity) -> Response:
    """Remove a file."""
    file_hash = request.path_parameters["hash"]
    with context.database.write() as connection:
        bucket = find_bucket(connection, request.bucket, identity.email)["id"]
        if _find_file(connection, bucket, file_hash) is None:
            raise Refused(404, "File not found")
        objects = remove_files(connection, bucket, file_hash)
    context.objects.delete(objects)
    return Response(status=204)


def check_token(connection: sa.Connection, identity: Identity, bucket: str, operation: str) -> None:
    """Refuse unless the bucket exists and the token was for this operation on it."""
    find_bucket(connection, bucket)
    if (identity.bucket, identity.operation) != (bucket, operation):
        raise Refused(401, _REFUSALS[operation])


def _find_file(connection: sa.Connection, bucket: str, file_hash: str) -> sa.RowMapping | None:
    """Return the row of a file, or None."""
    statement = sa.select(files).where(files.c.bucket == bucket, files.c.hash == file_hash)
    return connection.execute(statement).mappings().first()


def remove_files(connection: sa.Connection, bucket: str, file_hash: str = "") -> list[str]:
    """Delete a file's row, or all in a bucket; return the objects that no file needs now."""
    hashes = [part["hash"] for part in _shards(connection, bucket, file_hash)]
    statement = sa.delete(files).where(files.c.bucket == bucket)
    connection.execute(statement.where(files.c.hash == file_hash) if file_hash else statement)
    needed = sa.exists().where(file_shards.c.shard == shards.c.hash)
    unneeded = sa.delete(shards).where(~needed).returning(shards.c.object)
    objects: list[str] = []
    for start in range(0, len(hashes), BATCH):
        batch = shards.c.hash.in_(hashes[start : start + BATCH])
        objects += connection.execute(unneeded.where(batch)).scalars()
    return objects


def _file_json(row: sa.RowMapping) -> dict[str, object]:
    """Return a file as the API shows it."""
    return {name: row[name] for name in ("bucket", "mimetype", "filename", "size", "hash")}


def _shards(connection: sa.Connection, bucket: str, file_hash: str) -> Sequence[sa.RowMapping]:
    """Return the hash and size of each shard of a file in order, or of all in a bucket."""
    joined = file_shards.join(files).join(shards)
    statement = sa.select(shards.c.hash, shards.c.size).select_from(joined)
    statement = statement.where(files.c.bucket == bucket)
    if file_hash:
        statement = statement.where(files.c.hash == file_hash)
    return connection.execute(statement.order_by(file_shards.c.position)).mappings().all()

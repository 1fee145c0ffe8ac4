"""The files in a bucket, and the pointers to their shards."""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa

from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context, iso_time
from pymdc.bridge.errors import Refused
from pymdc.bridge.routes.multipart import base_name
from pymdc.bridge.routes.pages import listed
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import BATCH, LIMIT_DIGITS, PAGE, TOKEN_LIFETIME
from pymdc.bridge.storage.prepared import Prepared, Row
from pymdc.bridge.storage.removal import remove_files
from pymdc.bridge.storage.tables import (
    file_shards,
    files,
    find_bucket,
    has_name,
    lock_bucket,
    objects_in_use,
    pointers,
    shards,
)
from pymdc.bridge.storage.usage import add_transfer, spend_transfer

_LIMIT = re.compile(rf"[0-9]{{1,{LIMIT_DIGITS}}}")
_THIS = files.c.bucket == sa.bindparam("in"), files.c.hash == sa.bindparam("its")
_FILE = Prepared(sa.select(files).where(*_THIS))
_FILE_SHARDS = (
    sa.select(shards)
    .select_from(file_shards.join(files).join(shards))
    .where(*_THIS, file_shards.c.position >= sa.bindparam("first"))
    .order_by(file_shards.c.position)
    .limit(sa.bindparam("count"))
)
_REFUSALS = {
    "PUSH": "Not authorized to store in bucket",
    "PULL": "Not authorized to retrieve from bucket",
}


def list_files(context: Context, request: Request, identity: Identity) -> Response:
    """List the files in a bucket: all, those with a *name*, or *limit* of them *after* a hash."""
    wanted = request.query_parameters
    limit = _limit(wanted.get("limit"))
    statement = sa.select(files).where(files.c.bucket == request.bucket)
    with context.database.read() as connection:
        find_bucket(connection, request.bucket, identity.email)
        if "after" in wanted:
            last = find_file(connection, request.bucket, wanted["after"])
            if last is None:
                raise Refused(404, "File not found")
            statement = statement.where(files.c.number > last["number"])
    if "name" in wanted:
        statement = statement.where(has_name(wanted["name"]))
    return listed(context, statement, files.c.number, PAGE, _file_json, limit)


def _limit(text: str | None) -> int | None:
    if text is not None and not _LIMIT.fullmatch(text):
        raise Refused(400, f"The limit is {text[:20]}; expected a number of files")
    return None if text is None else int(text)


def list_pointers(context: Context, request: Request, identity: Identity) -> Response:
    """Spend a PULL token on pointers to the shards of a file, in order; sizes are in bytes."""
    file_hash, now = request.path_parameters["hash"], context.now()
    with context.database.write(durable=False) as connection:
        bucket = find_bucket(connection, request.bucket)
        if not is_for(identity, request.bucket, "PULL"):
            raise not_authorized("PULL")
        found = requested_file(connection, request.bucket, file_hash)
        made = _Pointers(request.channel_url, found, now)
        spend_transfer(connection, bucket, made.month, found["size"])
        first = made.add(connection, now)
        if len(first) < BATCH and sum(pointer["size"] for pointer in first) != found["size"]:
            raise _not_found()  # it was removed meanwhile
    made.count(first)
    if len(first) < BATCH:
        return Response(first)
    return Response(pages=made.pages(context, first))


class _Pointers:
    """The pointers to the shards of a *file*, made `BATCH` at a time.

    *left* is how many bytes there are to which no pointer is made yet. *in_doubt* is how many of
    them have pointers that may be committed, or not: if they are, they are given back when they
    expire, and must not be given back before.
    """

    def __init__(self, channel_url: str, file: Row, now: int) -> None:
        self.left: int = file["size"]
        self.in_doubt = 0
        self.month = iso_time(now)[:7]
        self._file = file["bucket"], file["hash"]
        self._made = 0
        self._rest = {"operation": "PULL", "channel": channel_url}

    def add(self, connection: sa.Connection, now: int) -> list[dict[str, Any]]:
        """Make the next ones, and return them; `count` has to follow."""
        self.in_doubt = 0  # a deadlock may have ended the transaction before
        parts = find_shards(connection, *self._file, self._made)
        spent = {"bucket": self._file[0], "month": self.month, "expires": now + TOKEN_LIFETIME}
        answer, rows = [], []
        for part in parts:
            token = secrets.token_hex(20)
            answer.append({"hash": part["hash"], "token": token, "size": part["size"]} | self._rest)
            rows.append({"token": token, "shard": part["hash"], "size": part["size"]} | spent)
        if rows:
            connection.execute(sa.insert(pointers), rows)
        self.in_doubt = sum(part["size"] for part in parts)
        return answer

    def count(self, added: list[dict[str, Any]]) -> None:
        """Count those that were *added* as made, once that is committed."""
        self._made += len(added)
        self.left -= sum(pointer["size"] for pointer in added)
        self.in_doubt = 0

    def pages(
        self, context: Context, first: list[dict[str, Any]]
    ) -> Generator[list[dict[str, Any]]]:
        """Yield *first* and the others; each page is made in a transaction of its own."""
        try:
            page = first
            while page:
                yield page
                page = context.load.run(partial(self._add_next, context))
                self.count(page)
            if self.left:
                raise Refused(404, "The file was removed while its pointers were made")
        finally:
            if self.left:
                context.load.run(partial(self._give_back, context))

    def _add_next(self, context: Context) -> list[dict[str, Any]]:
        now = context.now()
        with context.database.write(durable=False) as connection:
            return self.add(connection, now)

    def _give_back(self, context: Context) -> None:
        with context.database.write(durable=False) as connection:
            unmade = self.left - self.in_doubt
            add_transfer(connection, self._file[0], self.month, -unmade)


def rename(context: Context, request: Request, identity: Identity) -> Response:
    """Give a file another name, which is cut as that of an upload."""
    file_hash, name = request.path_parameters["hash"], request.fields.get("filename")
    if not isinstance(name, str):
        raise Refused(400, 'The body has no name of a file; expected {"filename": "..."}')
    this = files.c.bucket == request.bucket, files.c.hash == file_hash
    renamed = sa.update(files).where(*this).values(filename=base_name(name) or file_hash)
    with context.database.write() as connection:
        find_bucket(connection, request.bucket, identity.email)
        row = connection.execute(renamed.returning(files)).mappings().first()
        if row is None:
            raise Refused(404, "File not found")
    return Response(_file_json(row))


def remove(context: Context, request: Request, identity: Identity) -> Response:
    """Remove a file."""
    file_hash = request.path_parameters["hash"]
    with context.database.write() as connection:
        bucket = find_bucket(connection, request.bucket, identity.email)["id"]
        lock_bucket(connection, bucket)
        file = find_file(connection, bucket, file_hash)
        if file is None:
            raise Refused(404, "File not found")
        objects = remove_files(connection, bucket, [file["number"]], context.now())
    context.objects.delete(objects)
    return Response(status=204)


def requested_file(connection: sa.Connection, bucket: str, file_hash: str) -> Row:
    """Return the row of a file that a token holder asks for; refuse with 404 if there is none."""
    found = find_file(connection, bucket, file_hash)
    if found is None:
        raise _not_found()
    return found


def _not_found() -> Refused:
    return Refused(404, "The requested file was not found")


def is_for(identity: Identity, bucket: str, operation: str) -> bool:
    """Say whether a token was for this operation on *bucket*."""
    return (identity.bucket, identity.operation) == (bucket, operation)


def not_authorized(operation: str) -> Refused:
    """Return the refusal of a token that was for something else."""
    return Refused(401, _REFUSALS[operation])


def find_file(connection: sa.Connection, bucket: str, file_hash: str) -> Row | None:
    """Return the row of a file, or None."""
    return _FILE.first(connection, {"in": bucket, "its": file_hash})


def find_shards(
    connection: sa.Connection, bucket: str, file_hash: str, first: int, limit: int = BATCH
) -> Sequence[sa.RowMapping]:
    """Return the rows of at most *limit* shards of a file, from *first* on."""
    values = {"in": bucket, "its": file_hash, "first": first, "count": limit}
    return connection.execute(_FILE_SHARDS, values).mappings().all()


def is_needed(context: Context, name: str) -> bool:
    """Say whether a shard refers to an object; if not, it was removed or replaced meanwhile."""
    with context.database.read() as connection:
        return bool(objects_in_use(connection, [name]))


def _file_json(row: sa.RowMapping) -> dict[str, object]:
    """Return a file as the API shows it."""
    names, created = ("bucket", "mimetype", "filename", "size", "hash"), row["created"]
    shown = {"created": None if created is None else iso_time(created)}
    return {name: row[name] for name in names} | shown

"""Uploads: a file is cut into shards and stored as it arrives."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable, Iterable
from functools import partial
from typing import Any

import sqlalchemy as sa

from pymdc._crypto.file_hash import FileHash
from pymdc.bridge.auth import Identity
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused
from pymdc.bridge.js_number import js_number
from pymdc.bridge.routes.files import check_token
from pymdc.bridge.routes.multipart import FilePart
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import MAX_FILE
from pymdc.bridge.storage.database import INSERTS, insert_new
from pymdc.bridge.storage.objects import ObjectStore
from pymdc.bridge.storage.tables import (
    batches,
    file_shards,
    files,
    find_bucket,
    objects_in_use,
    shards,
)
from pymdc.bridge.storage.usage import add_used, check_storage, has_file_of_size, release, reserve


async def upload(
    context: Context, request: Request, identity: Identity, body: AsyncIterable[bytes]
) -> Response:
    """Spend a PUSH token on storing the first file in a multipart/form-data body."""
    declared = _declared_size(request)
    part = FilePart(request.headers.get("content-type", ""))
    async with context.load.uploads:
        begin = partial(_begin, context, request, identity, declared)
        incoming = IncomingFile(context, declared, await context.threads.run_db_only(begin))
        try:
            async for chunk in body:
                for piece in part.feed(chunk):
                    await incoming.write(piece)
            part.finish()
            await incoming.finish()
        except BaseException:
            await incoming.discard()
            raise
        return await context.threads.run(_insert_file, context, request.bucket, part, incoming)


class IncomingFile:
    """The bytes of a file, cut into shards; one shard is stored while the next one arrives.

    *upload* is the id under which the declared bytes are reserved.
    *objects* are the names of all objects that are stored or are being stored.
    """

    def __init__(self, context: Context, declared: int, upload: str) -> None:
        self.size = 0
        self.upload = upload
        self.shards: list[dict[str, Any]] = []
        self.objects: list[str] = []
        self._context = context
        self._declared = declared
        self._hash = FileHash()
        self._buffer = bytearray()  # grows with the bytes received, whatever size was declared
        self._storing: asyncio.Task[None] | None = None

    async def write(self, piece: memoryview) -> None:
        """Add the next bytes; refuse those beyond the declared size."""
        self.size += len(piece)
        if self.size > self._declared:
            raise Refused(400, "File size exceeds declared size")
        while piece:
            count = self._context.shard_size - len(self._buffer)
            self._buffer += piece[:count]
            piece = piece[count:]
            if len(self._buffer) == self._context.shard_size:
                await self._start_storing()

    async def finish(self) -> None:
        """Store the last shard; refuse a file that is shorter than declared."""
        if self.size != self._declared:
            raise Refused(400, "File does not match the declared size")
        await self._start_storing()
        await self._wait_stored()

    def hash(self) -> str:
        """Return the hash of the file."""
        return self.shards[0]["hash"] if len(self.shards) == 1 else self._hash.hexdigest()

    async def discard(self) -> None:
        """Delete all objects, also the one that is being stored."""
        storing, self._storing = self._storing, None  # breaks a cycle with the task's exception
        if storing is not None:
            await asyncio.gather(storing, return_exceptions=True)
        await self._context.threads.run(_give_up, self._context, self.upload, self.objects)

    async def _start_storing(self) -> None:
        """Store the buffer in a task, after the shard before it, and go on with a new buffer."""
        await self._wait_stored()
        data, self._buffer = memoryview(self._buffer), bytearray()
        if data:
            self._storing = asyncio.create_task(self._context.threads.run(self._store, data))

    async def _wait_stored(self) -> None:
        if self._storing is not None:
            await asyncio.shield(self._storing)

    def _store(self, data: memoryview) -> None:
        name, shard_hash = secrets.token_hex(16), FileHash()
        shard_hash.update(data)
        if self._declared > len(data):  # else the shard is the file, and has its hash
            self._hash.update(data)
        self.objects.append(name)
        self._context.objects.put(name, data)
        self.shards.append({"hash": shard_hash.hexdigest(), "object": name, "size": len(data)})


def _declared_size(request: Request) -> int:
    try:
        size = js_number(request.headers["x-filesize"])
    except (KeyError, ValueError):
        size = -1
    if not 0 <= size <= MAX_FILE or not size.is_integer():
        raise Refused(400, "Missing or invalid x-filesize header sent")
    return int(size)


def _begin(context: Context, request: Request, identity: Identity, declared: int) -> str:
    """Reserve the declared bytes in the bucket; return the id of the upload."""
    upload = secrets.token_hex(16)
    context.load.check_room(min(declared, context.shard_size))
    with context.database.write(durable=False) as connection:
        bucket = check_token(connection, identity, request.bucket, "PUSH")
        try:
            check_storage(connection, context.limits, bucket, declared)
        except Refused:
            # Content that the bucket has already takes no room: whether it is that content is
            # known at the end.
            if not has_file_of_size(connection, request.bucket, declared):
                raise
            declared = 0
        reserve(connection, upload, request.bucket, declared, context.now())
    return upload


def _give_up(context: Context, upload: str, objects: Iterable[str]) -> None:
    context.objects.delete(objects)
    with context.database.write(durable=False) as connection:
        release(connection, upload)


def _insert_file(context: Context, bucket: str, part: FilePart, incoming: IncomingFile) -> Response:
    """Insert the file's row, and delete the objects that it does not need."""
    file_hash, unneeded = incoming.hash(), {*incoming.objects}
    entry = {"mimetype": part.mimetype, "filename": part.filename or file_hash}
    row = {"bucket": bucket, "hash": file_hash, "size": incoming.size} | entry
    try:
        context.objects.sync()
        with context.database.write() as connection:
            release(connection, incoming.upload)
            holder = find_bucket(connection, bucket)
            if insert_new(connection, files, **row, created=context.now()):
                check_storage(connection, context.limits, holder, incoming.size)
                add_used(connection, bucket, incoming.size)
                _insert_shards(connection, bucket, file_hash, incoming.shards)
            else:  # the same content is stored already: it gets the new name
                this = (files.c.bucket == bucket, files.c.hash == file_hash)
                connection.execute(sa.update(files).where(*this).values(**entry))
            unneeded |= _replace_damaged(connection, context.objects, incoming.shards)
            unneeded -= objects_in_use(connection, incoming.objects)
    except BaseException:
        _give_up(context, incoming.upload, incoming.objects)
        raise
    context.objects.delete(unneeded)
    return Response(row)


def _insert_shards(
    connection: sa.Connection, bucket: str, file_hash: str, parts: list[dict[str, Any]]
) -> None:
    """Insert the shards of a new file."""
    this = sa.and_(files.c.bucket == bucket, files.c.hash == file_hash)
    file = connection.execute(sa.select(files.c.number).where(this)).scalar_one()
    rows = [
        {"file": file, "position": position, "shard": part["hash"]}
        for position, part in enumerate(parts)
    ]
    if parts:
        insert = INSERTS[connection.dialect.name](shards)
        connection.execute(insert.on_conflict_do_nothing(), parts)
        connection.execute(sa.insert(file_shards), rows)


def _replace_damaged(
    connection: sa.Connection, objects: ObjectStore, parts: list[dict[str, Any]]
) -> set[str]:
    """Use the new objects for shards whose stored ones are missing or of another size.

    Return the objects that are replaced.
    """
    new, replaced = {part["hash"]: part["object"] for part in parts}, set[str]()
    for batch in batches([*new]):
        statement = sa.select(shards).where(shards.c.hash.in_(batch))
        for shard in connection.execute(statement).mappings().all():
            object_ = shard["object"]
            if object_ != new[shard["hash"]] and objects.size(object_) != shard["size"]:
                this = sa.update(shards).where(shards.c.hash == shard["hash"])
                connection.execute(this.values(object=new[shard["hash"]]))
                replaced.add(object_)
    return replaced

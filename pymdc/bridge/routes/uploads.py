"""A file on its way in."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterable
from typing import Any

import sqlalchemy as sa

from pymdc._crypto.file_hash import FileHash
from pymdc.bridge.auth import Who
from pymdc.bridge.context import State
from pymdc.bridge.errors import Refused
from pymdc.bridge.js_number import number
from pymdc.bridge.routes.files import permit
from pymdc.bridge.routes.multipart import FilePart
from pymdc.bridge.serving.request import Answer, Asked
from pymdc.bridge.storage.database import INSERTS, insert_new
from pymdc.bridge.storage.tables import file_shards, files, find_bucket, named, shards


async def upload(state: State, asked: Asked, who: Who, body: AsyncIterable[bytes]) -> Answer:
    """Spend a PUSH token on storing the first file in a multipart/form-data body."""
    declared = _declared_size(asked)
    await state.offload.briefly(_admit, state, asked, who)
    part = FilePart(asked.headers.get("content-type", ""))
    incoming = Incoming(state, declared)
    try:
        async for chunk in body:
            for piece in part.feed(chunk):
                await incoming.take(piece)
        part.finish()
        await incoming.finish()
    except BaseException:
        await incoming.discard()
        raise
    return await state.offload(_enter, state, asked.bucket, part, incoming)


class Incoming:
    """The bytes of a file, cut into shards; one is stored while the next one comes in.

    *objects* are the names under which shards were put, or were about to be.
    """

    def __init__(self, state: State, declared: int) -> None:
        self.size = 0
        self.shards: list[dict[str, Any]] = []
        self.objects: list[str] = []
        self._state = state
        self._declared = declared
        self._hash = FileHash()
        self._buffer = bytearray()  # grows with what comes, and not with what was declared
        self._storing: asyncio.Task[None] | None = None

    async def take(self, piece: memoryview) -> None:
        """Take the next bytes in; refuse those beyond the declared size."""
        self.size += len(piece)
        if self.size > self._declared:
            raise Refused(400, "File size exceeds declared size")
        while piece:
            count = self._state.shard_size - len(self._buffer)
            self._buffer += piece[:count]
            piece = piece[count:]
            if len(self._buffer) == self._state.shard_size:
                await self._pass_on()

    async def finish(self) -> None:
        """Store what is left; refuse less than the declared size."""
        if self.size != self._declared:
            raise Refused(400, "File does not match the declared size")
        await self._pass_on()
        await self._stored()

    def hash(self) -> str:
        """Return the hash of the file."""
        return self.shards[0]["hash"] if len(self.shards) == 1 else self._hash.hexdigest()

    async def discard(self) -> None:
        """Delete what was stored; a shard that is being stored is waited for."""
        if self._storing is not None:
            await asyncio.gather(self._storing, return_exceptions=True)
        await self._state.offload(self._state.shards.delete, self.objects)

    async def _pass_on(self) -> None:
        """Let what is in the buffer be stored, and go on with a new one."""
        await self._stored()
        data, self._buffer = memoryview(self._buffer), bytearray()
        if data:
            self._storing = asyncio.create_task(self._state.offload(self._store, data))

    async def _stored(self) -> None:
        if self._storing is not None:
            await asyncio.shield(self._storing)

    def _store(self, data: memoryview) -> None:
        name, shard_hash = secrets.token_hex(16), FileHash()
        shard_hash.update(data)
        if self._declared > len(data):  # else the file is this shard, and has its hash
            self._hash.update(data)
        self.objects.append(name)
        self._state.shards.put(name, data)
        self.shards.append({"hash": shard_hash.hexdigest(), "object": name, "size": len(data)})


def _declared_size(asked: Asked) -> int:
    try:
        size = number(asked.headers["x-filesize"])
    except (KeyError, ValueError):
        size = -1
    if size < 0 or not size.is_integer():
        raise Refused(400, "Missing or invalid x-filesize header sent")
    return int(size)


def _admit(state: State, asked: Asked, who: Who) -> None:
    with state.database.read() as connection:
        permit(connection, who, asked.bucket, "PUSH")


def _enter(state: State, bucket: str, part: FilePart, incoming: Incoming) -> Answer:
    """Make the file's entry; from here on its objects are kept, or deleted, by nobody else."""
    file_hash, unneeded = incoming.hash(), incoming.objects
    entry = {"mimetype": part.mimetype, "filename": part.filename or file_hash}
    try:
        with state.database.write() as connection:
            find_bucket(connection, bucket)
            row = {"bucket": bucket, "hash": file_hash, "size": incoming.size} | entry
            if insert_new(connection, files, **row):
                new = _enter_shards(connection, bucket, file_hash, incoming.shards)
            else:  # the same content is there: it gets the new name, and keeps its shards
                new = set()
                this = (files.c.bucket == bucket, files.c.hash == file_hash)
                connection.execute(sa.update(files).where(*this).values(**entry))
        unneeded = [name for name in incoming.objects if name not in new]
    finally:
        state.shards.delete(unneeded)
    return Answer(row)


def _enter_shards(
    connection: sa.Connection, bucket: str, file_hash: str, parts: list[dict[str, Any]]
) -> set[str]:
    """Enter the shards of a new file, and return the objects of those not known before."""
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
    return named(connection, [part["object"] for part in parts])

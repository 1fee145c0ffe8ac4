"""A file on its way in."""

from __future__ import annotations

import secrets
import threading
from collections.abc import AsyncIterable
from typing import Any

import sqlalchemy as sa

from pymdc._hashes import FileHash
from pymdc.bridge.asked import Answer, Asked
from pymdc.bridge.auth import Who
from pymdc.bridge.errors import Refused
from pymdc.bridge.metadata import file_shards, files, find_bucket, insert_new, shards
from pymdc.bridge.multipart import FilePart
from pymdc.bridge.number import number
from pymdc.bridge.routes.files import permit
from pymdc.bridge.state import State


async def upload(state: State, asked: Asked, who: Who, body: AsyncIterable[bytes]) -> Answer:
    """Spend a PUSH token on storing the first file in a multipart/form-data body."""
    incoming = Incoming(state, _declared_size(asked))
    await state.offload(_admit, state, asked, who)
    part = FilePart(asked.headers.get("content-type", ""))
    try:
        async for chunk in body:
            for piece in part.feed(chunk):
                await incoming.take(piece)
        part.finish()
        await incoming.finish()
    except BaseException:
        await state.offload(incoming.discard)
        raise
    return await state.offload(_enter, state, asked.bucket, part, incoming)


class Incoming:
    """The bytes of a file, cut into shards; each is stored before more are taken.

    *objects* are the names under which shards were put, or were about to be.
    """

    def __init__(self, state: State, declared: int) -> None:
        self.size = 0
        self.shards: list[dict[str, Any]] = []
        self.objects: list[str] = []
        self._state = state
        self._declared = declared
        self._hash = FileHash()
        self._buffer = memoryview(bytearray(min(declared, state.shard_size)))
        self._filled = 0
        self._storing = threading.Lock()

    async def take(self, piece: memoryview) -> None:
        """Take the next bytes in; refuse those beyond the declared size."""
        self.size += len(piece)
        if self.size > self._declared:
            raise Refused(400, "File size exceeds declared size")
        while piece:
            count = min(len(piece), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = piece[:count]
            self._filled += count
            piece = piece[count:]
            if self._filled == len(self._buffer):
                await self._state.offload(self._store)

    async def finish(self) -> None:
        """Store what is left; refuse less than the declared size."""
        if self.size != self._declared:
            raise Refused(400, "File does not match the declared size")
        if self._filled:
            await self._state.offload(self._store)

    def hash(self) -> str:
        """Return the hash of the file."""
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Delete what was stored; a shard that is being stored is waited for."""
        with self._storing:
            self._state.shards.delete(self.objects)

    def _store(self) -> None:
        data, name, shard_hash = self._buffer[: self._filled], secrets.token_hex(16), FileHash()
        self._hash.update(data)
        shard_hash.update(data)
        with self._storing:
            self.objects.append(name)
            self._state.shards.put(name, data)
        self.shards.append({"hash": shard_hash.hexdigest(), "object": name, "size": len(data)})
        self._filled = 0


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
    new = {part["object"] for part in parts if insert_new(connection, shards, **part)}
    rows = [
        {"file": file, "position": position, "shard": part["hash"]}
        for position, part in enumerate(parts)
    ]
    if rows:
        connection.execute(sa.insert(file_shards), rows)
    return new

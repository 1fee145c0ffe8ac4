"""Uploads: a file is cut into shards and stored as it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Sequence
from functools import partial

import sqlalchemy as sa

from pymdc._crypto.file_hash import FileHash
from pymdc.bridge.auth import Identity, present_token
from pymdc.bridge.context import Context, iso_time
from pymdc.bridge.errors import Refused, UnavailableError
from pymdc.bridge.js_number import js_number
from pymdc.bridge.load import Pace
from pymdc.bridge.routes.files import is_for, not_authorized
from pymdc.bridge.routes.multipart import FilePart
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import MAX_FILE, STORE_PUTS
from pymdc.bridge.storage.installation import check_still
from pymdc.bridge.storage.objects import new_upload, object_name
from pymdc.bridge.storage.tables import Shard, find_bucket
from pymdc.bridge.storage.uploads import insert_file, release, replace_object, reserve


async def upload(context: Context, request: Request, body: AsyncIterable[bytes]) -> Response:
    """Spend a PUSH token on storing the first file in a multipart/form-data body."""
    async with context.load.uploads:
        begin = partial(_begin, context, request)
        begun = await context.threads.run_db_only(partial(context.load.run, begin, share=0))
        incoming = IncomingFile(context, *begun)
        try:
            part = FilePart(request.headers.get("content-type", ""))
            pace = Pace(context.load.uploads)
            async for chunk in body:
                pace.add(len(chunk))
                for piece in part.feed(chunk):
                    await incoming.write(piece)
            part.finish()
            await incoming.finish()
        except BaseException:
            await incoming.discard()
            raise
        finish = partial(_finish, context, request.bucket, part, incoming)
        return await context.threads.run(partial(context.load.run, finish, share=0))


class IncomingFile:
    """The bytes of a file, cut into shards; some are stored while the next one arrives.

    *upload* is the id under which the *declared* bytes are reserved.
    *objects* are the names of all objects that are stored or are being stored.
    """

    def __init__(self, context: Context, upload: str, declared: int) -> None:
        self.size = 0
        self.upload = upload
        self.parts: list[Shard] = []
        self.objects: list[str] = []
        self._context = context
        self._declared = declared
        self._hash = FileHash()
        self._buffer = bytearray()  # grows with the bytes received, whatever size was declared
        self._in_turn = asyncio.Lock()  # who waits longest gets it: shards are hashed in order
        self._most_storing = STORE_PUTS if context.objects.is_remote else 1
        self._storing: deque[asyncio.Task[Shard]] = deque()

    async def write(self, piece: memoryview) -> None:
        """Add the next bytes; refuse those beyond the declared size."""
        self.size += len(piece)
        if self.size > self._declared:
            raise Refused(400, "File size exceeds declared size")
        while piece:
            if len(self._buffer) == self._context.shard_size:
                await self._start_storing()
            count = self._context.shard_size - len(self._buffer)
            self._buffer += piece[:count]
            piece = piece[count:]

    async def finish(self) -> None:
        """Wait until the shards but the last are stored; refuse a file shorter than declared."""
        if self.size != self._declared:
            raise Refused(400, "File does not match the declared size")
        while self._storing:
            await self._wait_stored()

    def store_last(self) -> None:
        """Store the last shard; blocks."""
        if self._buffer:
            data, name = memoryview(self._buffer), self._new_object()
            self._put(name, data)
            if self.parts:  # else the shard is the file, and has its hash
                self._hash.update(data)
            self.parts.append(Shard(_hash(data), name, len(data)))

    def hash(self) -> str:
        """Return the hash of the file."""
        return self.parts[0].hash if len(self.parts) == 1 else self._hash.hexdigest()

    async def discard(self) -> None:
        """Delete all objects, also those that are being stored."""
        storing, self._storing = self._storing, deque()  # breaks a cycle with an exception
        if storing:
            await asyncio.gather(*storing, return_exceptions=True)
        await self._context.threads.run(_give_up, self._context, self)

    async def _start_storing(self) -> None:
        """Store the buffer in a task when it is its turn, and go on with a new buffer."""
        if len(self._storing) == self._most_storing:
            await self._wait_stored()
        data, self._buffer = memoryview(self._buffer), bytearray()
        self._storing.append(asyncio.create_task(self._store(self._new_object(), data)))

    async def _wait_stored(self) -> None:
        """Wait for the oldest of the shards that are being stored."""
        self.parts.append(await asyncio.shield(self._storing[0]))
        self._storing.popleft()

    async def _store(self, name: str, data: memoryview) -> Shard:
        run = self._context.threads.run
        shard_hash, *_ = await asyncio.gather(
            run(_hash, data), self._add_to_hash(data), run(self._put, name, data)
        )
        return Shard(shard_hash, name, len(data))

    async def _add_to_hash(self, data: memoryview) -> None:
        async with self._in_turn:
            await self._context.threads.run(self._hash.update, data)

    def _new_object(self) -> str:
        self.objects.append(object_name(self.upload, len(self.objects)))
        return self.objects[-1]

    def _put(self, name: str, data: memoryview) -> None:
        with self._context.load.room_for(len(data)):
            self._context.objects.put(name, [data])


def _hash(data: memoryview) -> str:
    found = FileHash()
    found.update(data)
    return found.hexdigest()


def _declared_size(request: Request) -> int | None:
    """Return the size of the file in bytes; None if the request says none that a file can have."""
    try:
        size = js_number(request.headers["x-filesize"])
    except (KeyError, ValueError):
        return None
    return int(size) if 0 <= size <= MAX_FILE and size.is_integer() else None


def _begin(context: Context, request: Request) -> tuple[str, int]:
    """Spend the token and reserve the declared bytes; return the upload's id and the bytes."""
    context.load.reserve.fill()  # here, where it holds up no other transaction
    upload, refusal, declared = new_upload(), None, _declared_size(request)
    # After a power cut, the reservation tells whose the shards are that are stored meanwhile.
    durable = declared is not None and declared > context.shard_size
    with context.database.write(durable=durable) as connection:
        identity = present_token(context, connection, request)
        try:
            if declared is None:
                raise Refused(400, "Missing or invalid x-filesize header sent")
            _reserve(context, connection, request.bucket, identity, upload, declared)
        except Refused as refused:  # the token is spent all the same
            refusal = refused
    try:
        if refusal is not None:
            raise refusal
    finally:
        del refusal  # else a cycle: its traceback has this frame
    assert declared is not None
    return upload, declared


def _reserve(
    context: Context,
    connection: sa.Connection,
    bucket: str,
    identity: Identity,
    upload: str,
    size: int,
) -> None:
    if not is_for(identity, bucket, "PUSH"):
        find_bucket(connection, bucket)
        raise not_authorized("PUSH")
    context.load.check_room(min(size, context.shard_size))
    reserve(connection, context.limits, upload, bucket, size, context.now())


def _give_up(context: Context, incoming: IncomingFile) -> None:
    """Delete the objects of an upload, and end its reservation."""
    context.objects.delete(incoming.objects)
    _release(context, incoming.upload)


def _release(context: Context, upload: str, objects: Sequence[str] = ()) -> None:
    """End the reservation of an upload, and delete its *objects* unless it has become a file.

    The reservation tells: it ends with the transaction that stores the file. If it is still there,
    nothing can be stored any more once it is deleted.
    """

    def end() -> None:
        with context.database.write(durable=False) as connection:
            released = release(connection, upload)
        if released:
            context.objects.delete(objects)

    try:
        context.load.run(end, share=1)
    except (UnavailableError, Refused):  # Refused: another process writes to the file
        context.housekeeper.postpone(end)


def _finish(context: Context, bucket: str, part: FilePart, incoming: IncomingFile) -> Response:
    """Store the last shard, insert the rows of the file, and delete unneeded objects."""
    try:
        incoming.store_last()
        file_hash, now = incoming.hash(), context.now()
        entry = {"mimetype": part.mimetype, "filename": part.filename or file_hash}
        file = {"bucket": bucket, "hash": file_hash, "size": incoming.size} | entry
        insert = partial(
            insert_file,
            limits=context.limits,
            upload=incoming.upload,
            file=file,
            parts=incoming.parts,
            now=now,
        )
        unneeded, stored = context.commits.run(insert)
    except Refused:
        _give_up(context, incoming)
        raise
    except BaseException:  # the file may be committed all the same, and need its objects
        _release(context, incoming.upload, incoming.objects)
        raise
    context.objects.delete(unneeded ^ _replaced(context, incoming.parts, stored))
    if stored:
        _release(context, incoming.upload)
    return Response(file | {"created": iso_time(now)})


def _replaced(context: Context, parts: list[Shard], stored: list[Shard]) -> set[str]:
    """Use the new objects for *stored* shards whose objects are missing or of another size.

    Return the objects that were put in use, and those that they replaced.
    """
    new, replaced = {part.hash: part.object for part in parts}, set[str]()
    sizes = context.objects.sizes([shard.object for shard in stored])
    lost = [shard for shard, size in zip(stored, sizes, strict=True) if size != shard.size]
    if lost:  # or is it another store, as when a disk is not mounted any more?
        check_still(context.database, context.objects)
    for shard in lost:
        use_new = partial(replace_object, stored=shard, new=new[shard.hash])
        if context.commits.run(use_new):
            replaced |= {shard.object, new[shard.hash]}
    return replaced

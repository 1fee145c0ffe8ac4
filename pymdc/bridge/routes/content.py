"""The content of files by plain HTTP, whole or in part (RFC 9110), for browsers, curl and links."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NoReturn

import sqlalchemy as sa

from pymdc.bridge.auth import spend_token_of_bearer, token_bearer
from pymdc.bridge.context import Context, iso_time
from pymdc.bridge.errors import Refused
from pymdc.bridge.logs import log_damage
from pymdc.bridge.routes.content_headers import description, has_it, validators, wanted_range
from pymdc.bridge.routes.files import find_shards, is_for, is_needed, not_authorized, requested_file
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.settings import BATCH
from pymdc.bridge.storage.objects import ObjectReader, ObjectStore
from pymdc.bridge.storage.prepared import Row
from pymdc.bridge.storage.tables import find_bucket
from pymdc.bridge.storage.usage import add_transfer, spend_transfer


async def send(context: Context, request: Request) -> Response:
    """Send the content of a file; GET spends a PULL token when it sends something of it."""
    run = context.threads.run_db_only
    file, shard_size = await run(partial(context.load.run, partial(_find, context, request)))
    if has_it(request.headers, file["hash"]):
        return Response(status=304, headers=validators(file["hash"]))
    if request.method == "HEAD":
        return Response(headers=description(file, None))
    part = wanted_range(request.headers, file["hash"], file["size"])
    content = Content(context, file, shard_size, part or range(file["size"]))
    await content.check()
    spend = partial(_spend, context, request, content.left)
    content.month = await run(partial(context.load.run, spend))
    status = 206 if part else 200
    return Response(status=status, headers=description(file, part), blocks=content)


class Content:
    """The *wanted* bytes of a file, which are read as they are sent.

    All its shards have *shard_size* bytes, but the last one.
    *month* is the month in which the bytes are counted as transfer.
    """

    month = ""

    def __init__(self, context: Context, file: Row, shard_size: int, wanted: range) -> None:
        self.left = len(wanted)
        self._context = context
        self._file = file
        self._shard_size = shard_size
        self._end = wanted.stop
        self._first = 0  # the number of the first of the shards that are known
        self._shards: Sequence[sa.RowMapping] = ()
        self._reader: ObjectReader | None = None  # of the shard with the next byte

    async def check(self) -> None:
        """Refuse with 500 if the next bytes are known to be missing."""
        if self.left:
            await self._find_shards(self._place()[0])

    async def read(self) -> memoryview:
        """Return the next bytes; refuse if the file is damaged, or has been removed."""
        number, offset = self._place()
        if not self._first <= number < self._first + len(self._shards):
            await self._find_shards(number)
        left = min(self.left, self._size(number) - offset)
        block = await self._read(number, offset, left)
        if not block:  # the object may have been removed or replaced
            await self._find_shards(number)
            block = await self._read(number, offset, left)
        if not block:
            _report_damage(f"object {self._shards[number - self._first]['object']} has no end")
        self.left -= len(block)
        if len(block) == left:
            self._close_reader()
        return block

    async def close(self) -> None:
        """Count what was not sent no longer."""
        self._close_reader()
        if self.left:
            give_back = partial(self._context.load.run, self._give_back)
            await self._context.threads.run_db_only(give_back)

    def _place(self) -> tuple[int, int]:
        """Return the number of the shard with the next byte, and the place of that byte in it."""
        return divmod(self._end - self.left, self._shard_size)

    def _size(self, number: int) -> int:
        return min(self._shard_size, int(self._file["size"]) - number * self._shard_size)

    async def _read(self, number: int, offset: int, left: int) -> memoryview:
        """Return at most *left* bytes of a shard; nothing, and no reader, if there are none."""
        if self._reader is None:
            name = self._shards[number - self._first]["object"]
            self._reader = self._context.objects.open(name, offset)
        size = min(self._context.load.block_size(), left)
        try:
            block = (await self._context.threads.run(self._reader.read, size))[:left]
        except FileNotFoundError:
            block = memoryview(b"")
        if not block:
            self._close_reader()
        return block

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _find_shards(self, number: int) -> None:
        """Find the shards from *number* on, and check that their objects are there."""
        last = (self._end - 1) // self._shard_size
        find = partial(self._query, number, min(last - number + 1, BATCH))
        threads = self._context.threads
        while True:
            self._first, self._shards = number, await threads.run_db_only(find)
            if not self._shards:
                raise Refused(404, "The file was removed while it was sent")
            sizes = [(row["object"], self._size(number + n)) for n, row in enumerate(self._shards)]
            fault = await threads.run(_find_fault, self._context.objects, sizes)
            if fault is None:
                return
            if await threads.run_db_only(is_needed, self._context, fault[0]):
                _report_damage(f"object {' '.join(fault)}")

    def _query(self, first: int, count: int) -> Sequence[sa.RowMapping]:
        with self._context.database.read() as connection:
            this = self._file["bucket"], self._file["hash"]
            return find_shards(connection, *this, first, count)

    def _give_back(self) -> None:
        with self._context.database.write(durable=False) as connection:
            add_transfer(connection, self._file["bucket"], self.month, -self.left)


def _find(context: Context, request: Request) -> tuple[Row, int]:
    """Return the row of the file that the holder of a token asks for, and its shards' size."""
    identity, bucket = token_bearer(context, request), request.bucket
    with context.database.read() as connection:
        find_bucket(connection, bucket)
        if not is_for(identity, bucket, "PULL"):
            raise not_authorized("PULL")
        file = requested_file(connection, bucket, request.path_parameters["hash"])
        shards = find_shards(connection, bucket, file["hash"], 0, 1)
        return file, shards[0]["size"] if shards else 1


def _spend(context: Context, request: Request, size: int) -> str:
    """Spend the token, and *size* bytes of the transfer; return the month of which."""
    now = context.now()
    month = iso_time(now)[:7]
    with context.database.write(durable=False) as connection:
        spend_token_of_bearer(context, connection, request)
        bucket = find_bucket(connection, request.bucket)
        spend_transfer(connection, bucket, month, size)
    return month


def _find_fault(objects: ObjectStore, sizes: Sequence[tuple[str, int]]) -> tuple[str, str] | None:
    """Return the first object that is missing or of another size, and what it is."""
    names = [name for name, _ in sizes]
    for (name, size), found in zip(sizes, objects.sizes(names), strict=True):
        if found is None:
            return name, "is missing"
        if found != size:
            return name, f"has {found:,} of {size:,} bytes"
    return None


def _report_damage(fault: str) -> NoReturn:
    log_damage(fault)
    raise Refused(500, "The file is damaged")

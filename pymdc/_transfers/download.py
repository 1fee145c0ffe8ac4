"""A download: shards are fetched in parallel, verified, and written at their offsets in a file."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import BinaryIO

from pymdc._calls.cancel_scope import CancelScope, NestedScope
from pymdc._calls.capture import without_frames
from pymdc._calls.waiting import Queue
from pymdc._crypto.file_hash import Block, FileHash
from pymdc._transfers.pointers import Pointers, check_pointers, sizes_of
from pymdc._transfers.progress import Progress
from pymdc._transfers.shard import Shard, check_hash
from pymdc._transfers.target import Output, PartialFile, TargetPath, open_target
from pymdc.client import Answer, Client
from pymdc.exceptions import (
    BridgeError,
    Cancelled,
    ChannelError,
    IntegrityError,
    NetworkError,
    PymdcError,
    refused,
    unwrap,
)

_log = logging.getLogger("pymdc")

# What a worker returns for a shard: its number and its size, or the exception that it raised.
Result = tuple[int, int] | BaseException


def download_file(
    client: Client,
    file_hash: str,
    to: TargetPath | BinaryIO,
    progress: Progress,
    ask: Callable[[CancelScope], Answer],
    renewable: bool,
    scope: CancelScope,
) -> Answer:
    """Write the file to *to*; return its size and path, or the bridge's refusal.

    *ask* asks the bridge for pointers; it may be called again if they are *renewable*.
    """

    def renew() -> Pointers:
        return check_pointers(unwrap(ask(scope)), scope.operation)

    answer = ask(scope)
    if refused(answer):
        return answer
    pointers = check_pointers(answer, scope.operation)
    try:
        with open_target(to, file_hash) as out:
            shards = Download(client, file_hash, pointers, out, progress, scope)
            size = shards.run(pointers, renew if renewable else None)
    except BridgeError as refusal:
        return refusal.answer
    progress.finish(size)
    return {"size": size, "path": out.path}


class Download:
    """Fetches the shards of one file into *out*.

    Each shard has its own worker, which fetches, hashes and writes it. The worker of the call waits
    for the shards, adds them in order to the hash of the file, and alone reports *progress*.
    Up to ``client.channels`` shards are fetched at a time. If *out* is an open file, or if the
    *pointers* have no sizes, shards are fetched one at a time, in order.
    """

    def __init__(
        self,
        client: Client,
        file_hash: str,
        pointers: Pointers,
        out: Output,
        progress: Progress,
        scope: CancelScope,
    ) -> None:
        self._client, self._name = client, file_hash
        self._out, self._progress, self._scope = out, progress, scope
        self._hashes = [pointer["hash"] for pointer in pointers]
        self._sizes = sizes_of(pointers)
        self._offsets = [0, *accumulate(self._sizes or ())]  # as far as the sizes are known
        progress.total = self._offsets[-1] if self._sizes is not None else None
        self._side_by_side = self._sizes is not None and not out.in_order
        self._limit = client.channels if self._side_by_side else 1
        self._running = self._hashed = 0  # running workers; shards in the file hash
        self._results: Queue[Result] = Queue()  # from the workers
        self._verified: dict[int, int] = {}  # sizes of shards by their numbers
        self._verified_size = 0
        self._file_hash = FileHash()
        self._blocks: Iterator[Block] | None = None  # of the shard that is being hashed

    def run(self, pointers: Pointers, renew: Callable[[], Pointers] | None) -> int:
        """Fetch the file and return its size in bytes.

        If a channel fails, *renew* returns new pointers, as long as the last pointers have brought
        a shard. If the download was resumed, the first pointers need not have brought a shard:
        they may have expired while the part file was verified.
        """
        self._resume(pointers)
        before = 0
        while True:
            try:
                self._fetch(pointers)
                break
            except (ChannelError, NetworkError) as error:
                self._scope.check()
                if renew is None or len(self._verified) == before:
                    raise
                _log.warning("%s; going on with new pointers", without_frames(error))
            before, pointers = len(self._verified), renew()
        found = self._hashes[0] if len(self._hashes) == 1 else self._file_hash.hexdigest()
        if found != self._name:
            with suppress(OSError):  # the hash is the reason
                self._out.discard(0)
        check_hash(f"{self._name}: the file", found, self._name)
        return self._verified_size

    def _resume(self, pointers: Pointers) -> None:
        """Take over the shards that an earlier download left in the part file."""
        out = self._out
        if not isinstance(out, PartialFile):
            return
        if not self._side_by_side:
            out.discard(0)
            out.resumable = False
            return
        for shard in self._missing(pointers):
            start, end = self._offsets[shard.number : shard.number + 2]
            if len(out) < end:
                break
            if shard.is_in(self._scope.heartbeats(out.read(start, end - start))):
                self._add(shard.number, end - start)
                while self._can_hash:
                    self._hash_block()

    def _missing(self, pointers: Pointers) -> list[Shard]:
        if [pointer["hash"] for pointer in pointers] != self._hashes:
            raise IntegrityError(f"{self._name}: its shards have changed in the meantime")
        sizes: Sequence[int | None] = self._sizes or [None] * len(pointers)
        return [
            Shard(number, f"{self._name}: shard {number + 1} of {len(pointers)}", pointer, size)
            for number, (pointer, size) in enumerate(zip(pointers, sizes, strict=True))
            if number not in self._verified
        ]

    def _fetch(self, pointers: Pointers) -> None:
        """Fetch the missing shards.

        When a shard fails, no other shard is started, and the failure is raised once the shards on
        their way have ended. An error of this machine, such as a full disk, ends them at once.
        """
        missing, scope = deque(self._missing(pointers)), NestedScope(self._scope)
        failure: PymdcError | None = None
        try:
            while True:
                startable = missing and failure is None and self._may_start
                if startable and not self._results:
                    self._start(missing.popleft(), scope)
                elif self._can_hash and not self._results:
                    self._hash_block()
                elif self._running:
                    failed = self._take(self._results.get())
                    failure = failure or failed
                else:
                    break
            if failure is not None:
                raise failure
        except BaseException:
            self._end_workers(scope)
            with suppress(OSError):  # the download has failed for another reason
                self._out.discard(self._end)
            raise
        self._end_workers(scope)
        self._out.discard(self._end)

    @property
    def _may_start(self) -> bool:
        # If an open file is slow, only the shard that is being written and the next are buffered.
        buffered = len(self._verified) - self._hashed if self._out.in_order else 0
        return self._running < self._limit and buffered < 2

    def _start(self, shard: Shard, scope: CancelScope) -> None:
        """Fetch *shard* on another worker, or on this thread if none can be started."""
        write = self._out.writer(self._offsets[shard.number])
        fetch = partial(shard.fetch, self._client.transport, scope, write)
        self._client.spawn(fetch, self._results.put)
        self._running += 1

    def _take(self, result: Result) -> PymdcError | None:
        """Note the *result* of a worker; return it if it is the failure of a shard."""
        self._running -= 1
        if isinstance(result, PymdcError):
            return result
        if isinstance(result, BaseException):
            raise result
        number, size = result
        if self._sizes is None:
            self._offsets.append(self._offsets[number] + size)
        self._add(number, size)
        return None

    def _end_workers(self, scope: CancelScope) -> None:
        scope.fail(Cancelled(f"{self._name}: the download has failed"))
        while self._running:
            self._results.get()
            self._running -= 1
        scope.detach()

    @property
    def _end(self) -> int:
        return self._offsets[max(self._verified, default=-1) + 1]

    def _add(self, number: int, size: int) -> None:
        self._verified[number] = size
        self._verified_size += size
        if not self._out.in_order:
            self._progress.report(self._verified_size)

    @property
    def _can_hash(self) -> bool:
        """Whether the next shard for the file hash is verified."""
        single = len(self._hashes) == 1 and not self._out.in_order  # its hash is the file's
        return not single and self._hashed in self._verified

    def _hash_block(self) -> None:
        """Add the next block to the file hash; an open file gets the block at this moment."""
        start, size = self._offsets[self._hashed], self._verified[self._hashed]
        if self._blocks is None:
            self._blocks = self._out.flush(start, size)
        block = next(self._blocks, None)
        if block is not None:
            self._scope.heartbeat()
            self._file_hash.update(block)
            return
        self._blocks = None
        self._hashed += 1
        self._progress.report(start + size)

"""From pointers to a file: each shard verified and put in its place, then the whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any, TypedDict

from pymdc._hashes import Block, FileHash
from pymdc._part import Part, Stream
from pymdc._progress import Progress
from pymdc.exceptions import ChannelError, IntegrityError, NetworkError

_log = logging.getLogger("pymdc")


class Pointer(TypedDict, total=False):
    """Where a shard is; the bridge of 2016 told no ``size``."""

    hash: str
    token: str
    channel: str
    size: int


Pointers = Sequence[Pointer]


def checked(pointers: Any, tried: str) -> Pointers:
    """Return *pointers*, what *tried* was answered, if they are a list of them, or raise."""
    keys = ("hash", "token", "channel")
    if not isinstance(pointers, list) or not all(
        isinstance(pointer, dict) and all(isinstance(pointer.get(key), str) for key in keys)
        for pointer in pointers
    ):
        raise IntegrityError(
            f"{tried}: the answer is no list of pointers with hash, token and channel;"
            " is something else listening at the endpoint?"
        )
    return pointers


class Assembly:
    """The file with the hash *file_hash*, made in *out* from the shards behind *pointers*.

    Where the pointers tell the shards' sizes, and *out* takes bytes at any place, the shards may
    come side by side, and what a try before has left in *out* is used. Else they come in order.
    *step* is called for each block; it raises when the transfer shall end.
    Raises `IntegrityError` when a shard or the whole has another hash or size than it should.
    """

    def __init__(
        self,
        pointers: Pointers,
        file_hash: str,
        out: Stream | Part,
        progress: Progress,
        step: Callable[[], None],
    ) -> None:
        self._hashes = [pointer["hash"] for pointer in pointers]
        self._sizes = _sizes(pointers)
        self._name, self._out, self._progress, self._step = file_hash, out, progress, step
        self.in_order = self._sizes is None or not isinstance(out, Part)
        self._places = [0]  # of the shards, as far as they are known
        for size in self._sizes or ():
            self._places.append(self._places[-1] + size)
        if self._sizes is not None:
            progress.total = self._places[-1]
        self._coming: dict[int, tuple[FileHash, int]] = {}
        self._verified: dict[int, int] = {}  # the sizes of those that are in their places
        self._whole, self._hashed = FileHash(), 0  # over so many shards from the first one on

    @property
    def verified(self) -> int:
        """How many shards are in their places."""
        return len(self._verified)

    @property
    def stuck(self) -> bool:
        """Say whether a shard that has begun can't begin anew."""
        return isinstance(self._out, Stream) and bool(self._coming)

    def resume(self) -> None:
        """Take over the shards that stand in *out* already."""
        if self.in_order or self._sizes is None or not isinstance(self._out, Part):
            self._keep(0)
            return
        for number, size in enumerate(self._sizes):
            if len(self._out) < self._places[number + 1]:
                break
            found = self._hash(FileHash(), number, size)
            if found.hexdigest() == self._hashes[number]:
                self._enter(number, size)

    def missing(self, pointers: Pointers) -> list[tuple[int, Pointer]]:
        """Return those of *pointers* whose shards have to come, each with its number."""
        if [pointer["hash"] for pointer in pointers] != self._hashes:
            raise IntegrityError(f"{self._name}: its shards have changed in the meantime")
        self._coming.clear()
        return [pair for pair in enumerate(pointers) if pair[0] not in self._verified]

    def take(self, number: int, block: Block) -> None:
        """Put the next *block* of a shard in its place; an empty one says that it is whole."""
        self._step()
        found, size = self._coming.get(number) or (FileHash(), 0)
        if not block:
            self._check(number, found, size)
            self._enter(number, size)
            return
        self._coming[number] = found, size + len(block)
        found.update(block)
        if isinstance(self._out, Stream):
            self._whole.update(block)
            self._out.write(block)
        elif self._sizes is None or size + len(block) <= self._sizes[number]:
            self._out.write(block, self._places[number] + size)

    def finish(self) -> int:
        """Return the file's size in bytes, when the whole of it is right."""
        size = sum(self._verified.values())
        found = self._whole.hexdigest()
        if found != self._name:
            self._verified.clear()
            raise IntegrityError(_damaged(f"{self._name}: the file", found, self._name))
        self._keep(size)
        return size

    def leave(self) -> None:
        """Leave in *out* what another try can take over, and no more."""
        ends = [] if self.in_order else [self._places[number + 1] for number in self._verified]
        self._keep(max(ends, default=0))

    def _check(self, number: int, found: FileHash, size: int) -> None:
        told = f"{self._name}: shard {number + 1} of {len(self._hashes)}"
        if found.hexdigest() != self._hashes[number]:
            raise IntegrityError(_damaged(told, found.hexdigest(), self._hashes[number]))
        if self._sizes is not None and size != self._sizes[number]:
            raise IntegrityError(
                f"{told} came with {size} bytes, and its pointer says {self._sizes[number]}"
            )

    def _enter(self, number: int, size: int) -> None:
        self._coming.pop(number, None)
        self._verified[number] = size
        if self._sizes is None:
            self._places.append(self._places[number] + size)
        self._progress.tell(sum(self._verified.values()))
        while self._hashed in self._verified:
            self._hash(self._whole, self._hashed, self._verified[self._hashed])
            self._hashed += 1

    def _hash(self, into: FileHash, number: int, size: int) -> FileHash:
        if isinstance(self._out, Part):
            for block in self._out.read(self._places[number], size):
                self._step()
                into.update(block)
        return into

    def _keep(self, size: int) -> None:
        if isinstance(self._out, Part):
            self._out.cut(size)


def assemble(
    assembly: Assembly,
    pointers: Pointers,
    pull: Callable[[list[tuple[int, Pointer]]], Generator[tuple[int, Block], None, None]],
    renew: Callable[[], Pointers] | None,
) -> int:
    """Bring the shards behind *pointers* together, and return the file's size in bytes.

    *pull* gives their blocks, each with its shard's number. Where a channel fails, *renew* gives
    other pointers, as long as each of them has brought a shard.
    """
    try:
        assembly.resume()
        while True:
            before = assembly.verified
            try:
                with closing(pull(assembly.missing(pointers))) as blocks:
                    for number, block in blocks:
                        assembly.take(number, block)
                return assembly.finish()
            except (ChannelError, NetworkError) as error:
                if renew is None or assembly.verified == before or assembly.stuck:
                    raise
                _log.warning("%s; going on with new pointers", error)
            pointers = renew()
    except BaseException:
        assembly.leave()
        raise


def _sizes(pointers: Pointers) -> list[int] | None:
    sizes = [pointer.get("size") for pointer in pointers]
    known = [size for size in sizes if type(size) is int and size >= 0]
    return known if len(known) == len(sizes) else None


def _damaged(what: str, found: str, promised: str) -> str:
    return f"{what} came with the hash {found}, not {promised}; it is damaged there or on the way"

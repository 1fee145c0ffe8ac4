"""From pointers to a file: each shard verified and put in its place, then the whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypedDict

from pymdc._calls.background import Aside
from pymdc._calls.capture import UserCodeError, Work, without_frames
from pymdc._crypto.file_hash import Block
from pymdc._transfers.channel import parsed
from pymdc._transfers.progress import Progress
from pymdc._transfers.target import Part, Stream
from pymdc._transfers.verifier import Verifier
from pymdc.exceptions import ChannelError, IntegrityError, NetworkError, PymdcError

_AT_ONCE = 1024 * 1024  # bytes that are written, and hashed aside
_LARGEST = 2**40  # bytes of a shard; what is told beyond is not believed

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
    for pointer in pointers:  # before any is tried: neither time nor other pointers mend a URL
        parsed(pointer["channel"])
    return pointers


@dataclass
class _Coming:
    """A shard that has begun: its size so far, and those bytes that are not written yet."""

    size: int = 0
    gathered: bytearray = field(default_factory=bytearray)


class Assembly:
    """The file with the hash *file_hash*, made in *out* from the shards behind *pointers*.

    Where the pointers tell the shards' sizes, and *out* takes bytes at any place, the shards may
    come side by side, and what a try before has left in *out* is used. Else they come in order.
    They are hashed *aside*. *step* is called for each block; it raises when the transfer shall end.
    Raises `IntegrityError` when a shard or the whole has another hash or size than it should.
    """

    def __init__(
        self,
        pointers: Pointers,
        file_hash: str,
        out: Stream | Part,
        progress: Progress,
        step: Callable[[], None],
        aside: Aside,
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
        # Not a method, which the verifier would hold, and this the verifier.
        self._standing = partial(_standing, out, self._places, step)
        self._verifier, self._aside = Verifier(file_hash, self._hashes, self._standing), aside
        self._coming: dict[int, _Coming] = {}
        self._ended: list[tuple[int, int]] = []  # those that are being verified, with their sizes
        self._checked = False  # what a try before has left
        self._verified: dict[int, int] = {}  # the sizes of those that are in their places

    @property
    def verified(self) -> int:
        """How many shards are in their places."""
        return len(self._verified)

    def resume(self) -> None:
        """Take over the shards that stand in *out* already."""
        if self.in_order or self._sizes is None or not isinstance(self._out, Part):
            self._keep(0)
            self._checked = True
            return
        for number, size in enumerate(self._sizes):
            if len(self._out) < self._places[number + 1]:
                break
            try:
                for block in self._standing(number, 0, size):
                    self._verifier.update(number, block)
                self._verifier.end(number)
            except IntegrityError:
                self._verifier.forget()
            else:
                self._enter(number, size)
        self._checked = True

    def missing(self, pointers: Pointers) -> list[tuple[int, Pointer]]:
        """Return those of *pointers* whose shards have to come, each with its number."""
        if [pointer["hash"] for pointer in pointers] != self._hashes:
            raise IntegrityError(f"{self._name}: its shards have changed in the meantime")
        return [pair for pair in enumerate(pointers) if pair[0] not in self._verified]

    def take(self, number: int, block: Block) -> None:
        """Put the next *block* of a shard in its place; an empty one says that it is whole."""
        self._step()
        coming = self._coming.setdefault(number, _Coming())
        if not block:
            self._end(number, coming)
            return
        size = coming.size + len(block)
        if self._sizes is not None and size > self._sizes[number]:
            raise self._missized(number, size)
        coming.size = size
        coming.gathered += block
        if len(coming.gathered) >= _AT_ONCE:
            self._do(partial(self._verifier.update, number, self._write(number, coming)))

    def begin_anew(self) -> None:
        """Forget the shards that have not come to their end: they will come anew."""
        self._settle()
        self._coming.clear()
        self._verifier.forget()
        if isinstance(self._out, Stream):
            self._out.forget()

    def finish(self) -> int:
        """Return the file's size in bytes, when the whole of it is right."""
        self._settle()
        try:
            self._verifier.finish()
        except IntegrityError:
            self._verified.clear()
            raise
        size = sum(self._verified.values())
        self._keep(size)
        return size

    def leave(self) -> None:
        """Leave in *out* what another try can take over, and no more."""
        with suppress(UserCodeError, PymdcError, OSError):  # another one ended the transfer
            self._settle()
        if not self._checked:
            return
        ends = [] if self.in_order else [self._places[number + 1] for number in self._verified]
        self._keep(max(ends, default=0))

    def _end(self, number: int, coming: _Coming) -> None:
        del self._coming[number]
        if self._sizes is None:
            self._places.append(self._places[number] + coming.size)
        elif coming.size < self._sizes[number]:
            raise self._missized(number, coming.size)
        self._do(partial(self._verifier.end, number, self._write(number, coming)))
        if isinstance(self._out, Stream):
            self._aside.wait()
            self._out.pour()
        self._ended.append((number, coming.size))

    def _write(self, number: int, coming: _Coming) -> bytearray:
        """Write the bytes that were gathered of a shard, and return them."""
        data, coming.gathered = coming.gathered, bytearray()
        if isinstance(self._out, Stream):
            self._out.hold(data)
        else:
            self._out.write(data, self._places[number] + coming.size - len(data))
        return data

    def _do(self, work: Work) -> None:
        self._settle()
        self._aside.do(work)

    def _settle(self) -> None:
        """Wait for what is done aside; then the shards that have ended are verified."""
        ended, self._ended = self._ended, []
        self._aside.wait()
        for number, size in ended:
            self._enter(number, size)

    def _enter(self, number: int, size: int) -> None:
        self._verified[number] = size
        self._progress.tell(sum(self._verified.values()))

    def _missized(self, number: int, size: int) -> IntegrityError:
        told = f"shard {number + 1} of {len(self._hashes)} came with {size} bytes"
        promised = self._sizes[number] if self._sizes else 0
        return IntegrityError(f"{self._name}: {told}, and its pointer says {promised}")

    def _keep(self, size: int) -> None:
        if isinstance(self._out, Part):
            self._out.cut(size)


def _standing(
    out: Stream | Part,
    places: Sequence[int],
    step: Callable[[], None],
    number: int,
    place: int,
    size: int,
) -> Iterator[Block]:
    """Give *size* bytes of a shard from *place* on, which were written before."""
    if isinstance(out, Part):
        for block in out.read(places[number] + place, size):
            step()
            yield block


def assemble(
    assembly: Assembly,
    pointers: Pointers,
    pull: Callable[[list[tuple[int, Pointer]]], Generator[tuple[int, Block], None, None]],
    renew: Callable[[], Pointers] | None,
) -> int:
    """Bring the shards behind *pointers* together, and return the file's size in bytes.

    *pull* gives their blocks, each with its shard's number. Where a channel fails, *renew* gives
    other pointers, as long as each of them has brought a shard; the first ones need not, if they
    may have expired while the shards of a try before were checked.
    """
    try:
        assembly.resume()
        before = -1 if assembly.verified else 0
        while True:
            try:
                with closing(pull(assembly.missing(pointers))) as blocks:
                    for number, block in blocks:
                        assembly.take(number, block)
                return assembly.finish()
            except (ChannelError, NetworkError) as error:
                assembly.begin_anew()
                if renew is None or assembly.verified == before:
                    raise
                _log.warning("%s; going on with new pointers", without_frames(error))
            before, pointers = assembly.verified, renew()
    except BaseException:
        assembly.leave()
        raise


def _sizes(pointers: Pointers) -> list[int] | None:
    sizes = [pointer.get("size") for pointer in pointers]
    known = [size for size in sizes if type(size) is int and 0 <= size <= _LARGEST]
    return known if len(known) == len(sizes) else None

"""The hashes of a file and of its shards, taken while these come in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pymdc._crypto.file_hash import Block, FileHash
from pymdc.exceptions import IntegrityError

Read = Callable[[int, int, int], Iterable[Block]]


class Verifier:
    """Compares the shards of a file with their *hashes*, and the whole with *file_hash*.

    The bytes of one shard come in order, and those of different ones in any order: for the hash of
    the whole, *read* then gives what was passed over, by a shard's number, a place in it and a
    number of bytes. Where the shards too come in order it is not called.
    """

    def __init__(self, file_hash: str, hashes: Sequence[str], read: Read) -> None:
        self._name, self._hashes, self._read = file_hash, hashes, read
        self._coming: dict[int, tuple[FileHash, int]] = {}
        self._ended: dict[int, int] = {}  # the sizes of those that were right, by number
        self._whole, self._before = FileHash(), 0  # over so many shards from the first one on
        self._running, self._run = self._whole, 0  # over so many bytes more

    def update(self, number: int, block: Block) -> None:
        """Take in the next bytes of a shard."""
        found, size = self._coming.get(number) or (FileHash(), 0)
        found.update(block)
        if number == self._before and len(self._hashes) > 1:
            self._catch_up(size)
            self._running.update(block)
            self._run = size + len(block)
        self._coming[number] = found, size + len(block)

    def end(self, number: int, block: Block = b"") -> None:
        """Take in the last bytes of a shard; raise `IntegrityError` unless it has its hash."""
        self.update(number, block)
        found, size = self._coming.pop(number)
        if found.hexdigest() != self._hashes[number]:
            told = f"{self._name}: shard {number + 1} of {len(self._hashes)}"
            raise IntegrityError(_damaged(told, found.hexdigest(), self._hashes[number]))
        self._ended[number] = size
        while self._before in self._ended and len(self._hashes) > 1:
            self._catch_up(self._ended[self._before])
            self._before += 1
            self._whole, self._run = self._running, 0

    def forget(self) -> None:
        """Forget the shards that have not come to their end: they will come anew."""
        self._coming.clear()
        self._run = 0

    def finish(self) -> None:
        """Raise `IntegrityError` unless the whole file, of which all has come, has its hash."""
        found = self._hashes[0] if len(self._hashes) == 1 else self._whole.hexdigest()
        if found != self._name:
            raise IntegrityError(_damaged(f"{self._name}: the file", found, self._name))

    def _catch_up(self, place: int) -> None:
        """Take what stands before *place* in the shard whose turn it is into the whole's hash."""
        if not self._run:
            self._running = self._whole.copy()
        if self._run < place:
            for block in self._read(self._before, self._run, place - self._run):
                self._running.update(block)
            self._run = place


def _damaged(what: str, found: str, promised: str) -> str:
    return f"{what} came with the hash {found}, not {promised}; it is damaged there or on the way"

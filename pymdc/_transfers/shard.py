"""One shard: fetched and verified on a worker of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from typing import NamedTuple

from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.file_hash import Block, FileHash
from pymdc._http.transport import Transport
from pymdc._transfers.channel import Pointer, open_shard
from pymdc.exceptions import IntegrityError

_WRITE_SIZE = 256 * 1024  # bytes in one write; frames may be smaller


class Shard(NamedTuple):
    """A shard to fetch: its *number*, from 0 on, and its *size*, if known.

    *label* names the shard in errors.
    """

    number: int
    label: str
    pointer: Pointer
    size: int | None

    def __repr__(self) -> str:
        return f"Shard({self.label})"

    def fetch(
        self, transport: Transport, scope: CancelScope, write: Callable[[Block], object]
    ) -> tuple[int, int]:
        """Fetch the shard and *write* its blocks; return its number and size.

        Raises `IntegrityError` if its size or its hash is wrong.
        """
        found, size, buffer = FileHash(), 0, bytearray()
        with closing(open_shard(self.pointer, transport, scope)) as blocks:
            for block in blocks:
                scope.heartbeat()
                size += len(block)
                if self.size is not None and size > self.size:
                    raise self._wrong_size(size)
                buffer += block
                if len(buffer) >= _WRITE_SIZE:
                    found.update(buffer)
                    write(buffer)
                    buffer.clear()
        if self.size is not None and size < self.size:
            raise self._wrong_size(size)
        found.update(buffer)
        write(buffer)
        check_hash(self.label, found.hexdigest(), self.pointer["hash"])
        return self.number, size

    def is_in(self, blocks: Iterable[Block]) -> bool:
        """Say whether *blocks* have the hash of the shard."""
        found = FileHash()
        for block in blocks:
            found.update(block)
        return found.hexdigest() == self.pointer["hash"]

    def _wrong_size(self, size: int) -> IntegrityError:
        return IntegrityError(
            f"{self.label} came with {size} bytes, and its pointer says {self.size}"
        )


def check_hash(what: str, found: str, expected: str) -> None:
    """Raise `IntegrityError` about *what* if the hash *found* is not the *expected* one."""
    if found != expected:
        raise IntegrityError(
            f"{what} came with the hash {found}, not {expected}; it is damaged there or on the way"
        )

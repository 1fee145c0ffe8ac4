"""The hash by which the bridge names a file or a shard."""

from __future__ import annotations

import hashlib

from pymdc._crypto.ripemd160 import ripemd160

Block = bytes | bytearray | memoryview


class FileHash:
    """The hash of a file or a shard, fed piece by piece.

    It is RIPEMD-160 over the lower-case hexadecimal text of SHA-256, not over its bytes.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._sha256 = hashlib.sha256(data)

    def update(self, data: Block) -> None:
        """Take the next piece in."""
        self._sha256.update(data)

    def copy(self) -> FileHash:
        """Return another one, which has taken in the same and goes its own way."""
        other = FileHash.__new__(FileHash)
        other._sha256 = self._sha256.copy()
        return other

    def hexdigest(self) -> str:
        """Return the 40 hexadecimal digits for what was taken in so far."""
        return ripemd160(self._sha256.hexdigest().encode("ascii")).hex()


def file_hash(data: bytes) -> str:
    """Return the 40 hexadecimal digits that name a file or shard of these bytes."""
    return FileHash(data).hexdigest()

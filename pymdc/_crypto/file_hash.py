"""The hash that names a file or a shard."""

from __future__ import annotations

import hashlib
import os

from pymdc._crypto.ripemd160 import ripemd160

Block = bytes | bytearray | memoryview

_BLOCK = 1024 * 1024


class FileHash:
    """The hash of a file or a shard, computed block by block.

    It is RIPEMD-160 over the lower-case hexadecimal text of SHA-256, not over its bytes.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._sha256 = hashlib.sha256(data)

    def update(self, data: Block) -> None:
        """Add the next block."""
        self._sha256.update(data)

    def copy(self) -> FileHash:
        """Return an independent copy of the state so far."""
        other = FileHash.__new__(FileHash)
        other._sha256 = self._sha256.copy()
        return other

    def hexdigest(self) -> str:
        """Return the hash of the blocks so far, as 40 hexadecimal digits."""
        return ripemd160(self._sha256.hexdigest().encode("ascii")).hex()


def file_hash(data: bytes) -> str:
    """Return the hash of *data*, as 40 hexadecimal digits."""
    return FileHash(data).hexdigest()


def hash_of_file(path: str | os.PathLike[str]) -> str:
    """Return the hash of the file at *path*, as 40 hexadecimal digits: what the bridge calls it.

    Raises OSError if it cannot be read.
    """
    file_hash = FileHash()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            file_hash.update(block)
    return file_hash.hexdigest()

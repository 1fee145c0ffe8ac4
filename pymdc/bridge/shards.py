"""The bytes of the shards, as objects in a store."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import obstore
from obstore.store import LocalStore

_READ = 1024 * 1024  # bytes that are read at once
_log = logging.getLogger("pymdc.bridge")


class Shards:
    """Objects in *folder*, which is made when missing."""

    def __init__(self, folder: Path) -> None:
        self._store = LocalStore(folder, mkdir=True)

    async def put(self, name: str, data: bytearray) -> None:
        """Store *data*, which must not change meanwhile."""
        await obstore.put_async(self._store, name, data, use_multipart=False)

    async def blocks(self, name: str, size: int) -> AsyncGenerator[bytes, None]:
        """Yield an object in blocks of *size* bytes, the last one smaller."""
        result = await obstore.get_async(self._store, name)
        rest = b""
        async for chunk in result.stream(_READ):
            data = rest + bytes(chunk)
            end = len(data) - len(data) % size
            for start in range(0, end, size):
                yield data[start : start + size]
            rest = data[end:]
        if rest:
            yield rest

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that can't be is logged, and is space lost but no more."""
        for name in names:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                pass
            except Exception:  # noqa: BLE001  # a store has errors of its own
                _log.exception("the object %s was not deleted", name)

"""The bytes of the shards, as objects in a folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import obstore
from obstore.store import LocalStore

from pymdc.bridge.errors import Refused

_NAME = re.compile(r"[0-9a-f]{32}")
_HALF_WRITTEN = re.compile(r"[0-9a-f]{32}#[0-9]+")  # LocalStore's name; it lists no such file
_FULL = "(os error 28)"
_log = logging.getLogger("pymdc.bridge")


class ObjectStore:
    """Objects in *folder*, which is created if missing.

    The methods block, so call them on a thread. obstore has coroutines too, but a process that
    exits while one of them finishes is aborted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = LocalStore(folder, mkdir=True)

    def names(self) -> Iterator[list[str]]:
        """Yield the names of all objects, in batches."""
        for entries in obstore.list(self._store, chunk_size=1000):
            yield [entry["path"] for entry in entries if _NAME.fullmatch(entry["path"])]

    def put(self, name: str, data: memoryview) -> None:
        """Store *data*; refuse with 507 if the disk is full."""
        try:
            obstore.put(self._store, name, data, use_multipart=False)
        except obstore.exceptions.BaseError as error:
            if _FULL in str(error):
                raise Refused(507, "The bridge has no space left") from error
            raise

    def read(self, name: str, start: int, size: int) -> memoryview:
        """Return *size* bytes of an object from *start* on, or fewer at its end."""
        return memoryview(obstore.get_range(self._store, name, start=start, length=size))

    def delete_half_written(self) -> None:
        """Delete what each interrupted `put` left; no other process may use the folder."""
        for path in self._folder.glob("*#*"):
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink()

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; log those that cannot be deleted, which only waste space."""
        for name in names:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                pass
            except Exception:  # noqa: BLE001  # obstore has errors of its own
                _log.exception("the object %s was not deleted", name)

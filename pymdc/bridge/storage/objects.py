"""The bytes of the shards, as objects in a store."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import obstore
from obstore.store import LocalStore

from pymdc.bridge.errors import Refused

_NAME = re.compile(r"[0-9a-f]{32}")
_HALF_WRITTEN = re.compile(r"[0-9a-f]{32}#[0-9]+")  # LocalStore calls it so, and lists it never
_FULL = "(os error 28)"
_log = logging.getLogger("pymdc.bridge")


class Shards:
    """Objects in *folder*, which is made when missing.

    Its methods block, and want a thread. The coroutines of obstore don't, but a process that
    ends while one of them winds up is aborted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = LocalStore(folder, mkdir=True)

    def names(self) -> Iterator[list[str]]:
        """Give the names of all objects, some at a time."""
        for entries in obstore.list(self._store, chunk_size=1000):
            yield [entry["path"] for entry in entries if _NAME.fullmatch(entry["path"])]

    def put(self, name: str, data: memoryview) -> None:
        """Store *data*; refuse it with 507 when the disk is full."""
        try:
            obstore.put(self._store, name, data, use_multipart=False)
        except obstore.exceptions.BaseError as error:
            if _FULL in str(error):
                raise Refused(507, "The bridge has no space left") from error
            raise

    def read(self, name: str, start: int, size: int) -> memoryview:
        """Return *size* bytes of an object from *start* on, fewer at its end."""
        return memoryview(obstore.get_range(self._store, name, start=start, length=size))

    def delete_half_written(self) -> None:
        """Delete what no `put` will finish any more; only for who is alone with the folder."""
        for path in self._folder.glob("*#*"):
            if _HALF_WRITTEN.fullmatch(path.name):
                path.unlink()

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that can't be is logged, and is space lost but no more."""
        for name in names:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                pass
            except Exception:  # noqa: BLE001  # a store has errors of its own
                _log.exception("the object %s was not deleted", name)

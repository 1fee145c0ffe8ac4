"""The bytes of the shards, as objects in a store."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import obstore
from obstore.store import LocalStore

from pymdc.bridge.errors import Refused

_FULL = "(os error 28)"
_log = logging.getLogger("pymdc.bridge")


class Shards:
    """Objects in *folder*, which is made when missing.

    Its methods block, and want a thread. The coroutines of obstore don't, but a process that
    ends while one of them winds up is aborted.
    """

    def __init__(self, folder: Path) -> None:
        self._store = LocalStore(folder, mkdir=True)

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

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; one that can't be is logged, and is space lost but no more."""
        for name in names:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                pass
            except Exception:  # noqa: BLE001  # a store has errors of its own
                _log.exception("the object %s was not deleted", name)

"""The bytes of the shards, as objects: their names, and what stores them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

_NAME = re.compile(r"[0-9a-f]{32}")
_UPLOAD_DIGITS = 24  # of a name; the others are its place in the upload
INSTALLATION = "installation"  # the object that says whose objects these are


def new_upload() -> str:
    """Return the id of a new upload."""
    return secrets.token_hex(_UPLOAD_DIGITS // 2)


def object_name(upload: str, position: int) -> str:
    """Return the name of an object of *upload*."""
    return f"{upload}{position:08x}"


def upload_of(name: str) -> str:
    """Return the id of the upload that stored an object."""
    return name[:_UPLOAD_DIGITS]


def is_object_name(name: str) -> bool:
    """Say whether *name* can be that of an object; other things may be stored beside them."""
    return bool(_NAME.fullmatch(name))


class StoredObject(NamedTuple):
    """An object; *size* is in bytes, *stored_at* in whole milliseconds since 1970.

    A store may know the second alone; then the milliseconds are 0.
    """

    name: str
    size: int
    stored_at: int


class ObjectReader(Protocol):
    """Reads one object from its beginning to its end; used by one thread at a time."""

    def read(self, size: int) -> memoryview:
        """Return the next bytes, about *size*, at least one; nothing at the end.

        The first call finds out if the object is missing: FileNotFoundError. Blocks.
        """

    def close(self) -> None:
        """Free what the reader holds; does not block."""


class ObjectStore(Protocol):
    """Where the objects are.

    The methods block, so call them on a thread; only `open` does not. Each may raise
    `UnavailableError` if the store does not answer, and OSError if it refuses.
    """

    @property
    def is_remote(self) -> bool:
        """Whether each answer takes long, so that several requests at a time pay off."""

    def check(self) -> None:
        """Raise an exception if the store cannot be used."""

    def free(self) -> int | None:
        """Return how many bytes are free for objects; None if nobody knows."""

    def names(self) -> Iterator[list[str]]:
        """Yield the names of all objects, in batches of at most `BATCH`."""

    def entries(self) -> Iterator[list[StoredObject]]:
        """Yield all objects, in batches of at most `BATCH`; in a folder slower than `names`."""

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes; None if it is missing."""

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Return the sizes of several objects, as `size` does."""

    def stored_at(self, name: str) -> int:
        """Return when an object was stored, as in `StoredObject`."""

    def put(self, name: str, blocks: Iterable[memoryview]) -> None:
        """Store *blocks* as one object, whole or not at all.

        Raises `DiskFullError` if there is no room, and what *blocks* raises.
        """

    def sync(self) -> None:
        """Wait until all objects that are stored outlast a power cut."""

    def open(self, name: str, start: int = 0) -> ObjectReader:
        """Return a reader of an object from *start* on; close it at the end."""

    def blocks(self, name: str) -> Iterator[memoryview]:
        """Yield the bytes of an object, in blocks."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; log those that cannot be deleted, which only waste space."""

    def set_aside(self, names: Iterable[str]) -> str:
        """Move objects to another place, and return it, for people.

        Raises FileNotFoundError if one is missing; those before it are moved.
        """

    def installation(self) -> str | None:
        """Return the id of the installation whose objects these are; None if there is none."""

    def set_installation(self, identity: str) -> None:
        """Store the id of the installation."""

    def delete_half_written(self) -> None:
        """Delete what each interrupted `put` left; no other process may use the store."""

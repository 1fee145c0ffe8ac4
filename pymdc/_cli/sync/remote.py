"""What is in the bucket: contents, and the manifests.

The API has no "write if unchanged", but a bucket lists its files in the order in which they were
first uploaded, to everybody the same. So of two manifests that replace the same one the first in
the list counts, and who finds another one before its own takes its own away and begins anew.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

from pymdc._cli.failures import Failure
from pymdc._cli.lookup import entries, named
from pymdc._cli.parallel import each
from pymdc._cli.sync.manifest import NAME, Manifest, decode, encode
from pymdc.api import Files
from pymdc.exceptions import BridgeError, unwrap

_GONE = {"File not found", "The requested file was not found"}
_TRIES = 5
T = TypeVar("T")


class Conflict(Exception):  # it is no error: the sync begins anew
    """Another sync has changed the bucket since this one read it."""


class Content(NamedTuple):
    """A file at the bridge; *created* is a time in ISO 8601."""

    name: str
    size: int
    created: str | None


@dataclass(frozen=True)
class State:
    """The hashes of the manifests that are *present*, and the one that counts, by its *hash*."""

    present: frozenset[str]
    hash: str
    manifest: Manifest


class Remote:
    """The bucket of *files*."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def read(self) -> State:
        """Return the manifest; an empty one if there is none."""

        def read() -> State:
            manifests = {it: decode(self._fetch(it)) for it in self._present()}
            counting = newest(manifests)
            return State(frozenset(manifests), counting, manifests.get(counting, Manifest()))

        return _again(read)

    def _present(self) -> list[str]:
        return [entry["hash"] for entry in named(self.files, NAME)]

    def _fetch(self, file_hash: str) -> bytes:
        body = io.BytesIO()
        unwrap(self.files.download(file_hash, to=body))
        return body.getvalue()

    def contents(self) -> dict[str, Content]:
        """Return all files of the bucket by their hashes.

        Read it after the manifests: what they name has been there before them.
        """
        return _again(lambda: dict(self._contents()))

    def _contents(self) -> Iterator[tuple[str, Content]]:
        for entry in entries(self.files):
            content = Content(entry["filename"], entry["size"], entry.get("created"))
            yield entry["hash"], content

    def write(self, manifest: Manifest, state: State) -> State:
        """Upload *manifest*, then remove those of *state*, which it replaces.

        `Conflict` if another manifest came first; then it counts, and this one is not there.
        """
        self.check(state)
        manifest.parents = state.present
        new = unwrap(self.files.upload(encode(manifest), name=NAME))["hash"]
        present = self._present()
        before = present[: present.index(new)] if new in present else [""]
        if not state.present.issuperset(before):
            self._drop([new])
            raise Conflict
        self._drop(state.present)
        return State(frozenset([new]), new, manifest)

    def tidy(self, state: State) -> State:
        """Remove manifests that do not count: syncs were killed before they did so."""
        old = state.present - {state.hash}
        self._drop(old)
        return State(state.present - old, state.hash, state.manifest)

    def check(self, state: State) -> None:
        """Raise `Conflict` unless just the manifests of *state* are there."""
        if set(self._present()) != state.present:
            raise Conflict

    def _drop(self, manifests: Iterable[str]) -> None:
        for it in manifests:
            try:
                unwrap(self.files.delete(it))
            except BridgeError as error:
                if error.message not in _GONE:
                    raise

    def remove(self, hashes: Iterable[str], state: State, jobs: int) -> Iterator[str]:
        """Remove contents, *jobs* at a time; yield the hash of each that is gone.

        Before each handful, look whether another sync has written a manifest, since it may name
        one of them: then `Conflict` is raised.
        """
        left = iter(hashes)
        while some := [*islice(left, jobs)]:
            self.check(state)
            with closing(each(some, self.files.delete, jobs)) as calls:
                for file_hash, _, error in calls:
                    if error and not (isinstance(error, BridgeError) and error.message in _GONE):
                        raise error
                    yield file_hash


def newest(manifests: Mapping[str, Manifest]) -> str:
    """Return which of *manifests* counts; they are in the order of the bucket's list.

    It is the last of the chain that begins with the first, in which each is followed by the first
    that names it as a parent. The others are of syncs that will take them away, or were killed
    before. Without a manifest, it is "".
    """
    name = next(iter(manifests), "")
    while children := [it for it, manifest in manifests.items() if name in manifest.parents]:
        name = children[0]
    return name


def _again(read: Callable[[], T]) -> T:
    """Return what *read* returns; read again if a file is removed meanwhile."""
    for _ in range(_TRIES):
        try:
            return read()
        except BridgeError as error:
            if error.message not in _GONE:
                raise
    raise Failure("files are removed from the bucket faster than it can be read; try again")

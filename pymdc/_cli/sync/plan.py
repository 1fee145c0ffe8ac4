"""What is to be done so that a tree becomes equal to another."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from pymdc import file_hash
from pymdc._cli.failures import Failure
from pymdc._cli.sync.remote import Content
from pymdc._cli.sync.scan import Local, Scan
from pymdc._cli.sync.tree import Entry


class Step(NamedTuple):
    """What is to be done with the file *path*.

    The *sign* is ``""`` for a file that is the same on both sides, ``"="`` for one whose content
    is there as *like*, ``"+"`` for a new file, and ``"~"`` for one whose content has changed.
    *entry* is the file in the new tree; its hash is "" if nobody knows it yet.
    """

    sign: str
    path: str
    entry: Entry
    like: str = ""


def is_same(local: Local, entry: Entry) -> bool:
    """Say whether size and mtime show that the content of a file is still that of *entry*."""
    return (local.size, local.mtime) == (entry.size, entry.mtime) and not entry.fresh


def hash_local(path: str, local: Local) -> str:
    """Return the hash of a file; a failure if it is not as it was when it was found."""
    check_same(path, local)
    found = file_hash(path)
    check_same(path, local)
    return found


def check_same(path: str, local: Local) -> None:
    """Raise a failure if a file has changed since it was found."""
    status = os.lstat(path)
    if (status.st_size, status.st_mtime_ns) != (local.size, local.mtime):
        raise Failure(f"{path} changed while it was read", remedy="run the same command again")


class Sending:
    """Which files of a folder are to be sent; *there* are those in the manifest.

    *contents* are the files of the bucket, without those that are *manifests*.
    With *checksum*, all files are read, and not only those whose size or mtime has changed.
    """

    def __init__(
        self,
        found: Scan,
        there: Mapping[str, Entry],
        contents: Mapping[str, Content],
        manifests: Mapping[str, Content],
        *,
        checksum: bool,
    ) -> None:
        self._found = found
        self._manifests = manifests
        self._there = there
        self._checksum = checksum
        # The path, or else the name at the bridge, of each content that is, or will be, there.
        self._known = {hash_: content.name for hash_, content in contents.items()}
        self._known |= {it.hash: path for path, it in there.items() if it.hash in contents}
        self._contents = contents
        self._pending = sorted(path for path in found.files if not self._is_unchanged(path))
        self._sizes = Counter({content.size for content in contents.values()})
        self._sizes.update({content.size for content in manifests.values()})
        self._sizes.update(found.files[path].size for path in self._pending)

    def unchanged(self) -> Iterator[Step]:
        """Yield the files that need not be read."""
        pending = set(self._pending)
        for path in self._found.files:
            if path not in pending:
                yield self._step("", path, self._there[path].hash)

    def changed(self, failed: Callable[[str, Exception], object]) -> Iterator[Step]:
        """Yield the other files; *failed* is called with those that cannot be read.

        A file is read only if some content has its size: no other can be equal to it.
        """
        for path in self._pending:
            before = self._there.get(path)
            sign = "~" if before else "+"
            local = self._found.files[path]
            if self._sizes[local.size] == 1:
                yield self._step(sign, path, "")
                continue
            try:
                hash_ = hash_local(self._found.path(path), local)
                if hash_ in self._manifests:  # uploaded, it would give the manifest its name
                    raise Failure("a copy of the bucket's manifest is not sent")
            except Exception as error:  # noqa: BLE001  # the other files are sent
                failed(path, error)
                continue
            if before and before.hash == hash_ and hash_ in self._contents:
                yield self._step("", path, hash_)
            elif hash_ in self._known:
                yield self._step("=", path, hash_, self._known[hash_])
            else:
                self._known[hash_] = path
                yield self._step(sign, path, hash_)

    def _is_unchanged(self, path: str) -> bool:
        entry = self._there.get(path)
        if entry is None or self._checksum or entry.hash not in self._contents:
            return False
        return is_same(self._found.files[path], entry)

    def _step(self, sign: str, path: str, hash_: str, like: str = "") -> Step:
        local = self._found.files[path]
        entry = Entry(hash_, local.size, local.mtime, local.mode, local.fresh)
        return Step(sign, path, entry, like)


class Fetching:
    """Which files of a *tree* are to be fetched; *found* is what is in the folder.

    With *checksum*, files are read also if size and mtime are those of the tree.
    """

    def __init__(self, found: Scan, tree: Mapping[str, Entry], *, checksum: bool) -> None:
        self._found = found
        self._tree = tree
        self._checksum = checksum
        self._same: dict[str, str] = {}  # the hashes of the files that are there

    def same(self, failed: Callable[[str, Exception], object]) -> Iterator[Step]:
        """Yield the files that are there already; *failed* gets those that cannot be read."""
        for path in sorted(self._tree.keys() & self._found.files.keys()):
            entry = self._tree[path]
            try:
                is_there = self._is_there(path, entry)
            except Exception as error:  # noqa: BLE001  # the other files are fetched
                failed(path, error)
                continue
            if is_there:
                self._same[path] = entry.hash
                yield Step("", path, entry)

    def other(self, failed: set[str]) -> Iterator[Step]:
        """Yield the other files, without those that have *failed*; call it after `same`."""
        known = {hash_: path for path, hash_ in self._same.items()}
        for path in sorted(self._tree.keys() - self._same.keys() - failed):
            entry = self._tree[path]
            if entry.hash in known:
                yield Step("=", path, entry, known[entry.hash])
            else:
                known[entry.hash] = path
                yield Step("~" if path in self._found.files else "+", path, entry)

    def _is_there(self, path: str, entry: Entry) -> bool:
        local = self._found.files[path]
        if not self._checksum and is_same(local, entry):
            return True
        return local.size == entry.size and hash_local(self._found.path(path), local) == entry.hash

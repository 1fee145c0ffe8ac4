"""A tree of files: what a folder holds, and what a manifest says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Entry(NamedTuple):
    """A file in a tree: its *hash* and *size*, *mtime* in nanoseconds, and *mode*.

    The mtime is None if nobody knows it, and the mode is None on systems without modes.
    A *fresh* file was read so soon after its mtime that it may have changed since without a new
    one: size and mtime do not show that such a file is the same.
    """

    hash: str
    size: int
    mtime: int | None
    mode: int | None
    fresh: bool = False


@dataclass
class Tree:
    """Files by their paths, and the empty *folders*; paths are relative, with ``/``."""

    files: dict[str, Entry] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def below(self, prefix: str) -> Tree:
        """Return the part of the tree in the folder *prefix*; all of it if that is empty."""
        if not prefix:
            return self
        start = f"{prefix}/"
        files = {
            path[len(start) :]: entry
            for path, entry in self.files.items()
            if path.startswith(start)
        }
        return Tree(files, {it[len(start) :] for it in self.folders if it.startswith(start)})

    def with_below(self, prefix: str, part: Tree) -> Tree:
        """Return the tree with *part* as the folder *prefix*."""
        if not prefix:
            return part
        start = f"{prefix}/"
        rest = Tree(
            {path: entry for path, entry in self.files.items() if not path.startswith(start)},
            {path for path in self.folders if not path.startswith(start)},
        )
        files = {f"{start}{path}": entry for path, entry in part.files.items()}
        folders = {f"{start}{path}" for path in part.folders}
        return rest.with_(Tree(files, folders if files or folders else {prefix}))

    def without(self, paths: Iterable[str], folders: Iterable[str] = ()) -> Tree:
        """Return the tree without some files and empty folders."""
        unwanted = set(paths)
        files = {path: entry for path, entry in self.files.items() if path not in unwanted}
        return Tree(files, self.folders - set(folders))

    def with_(self, other: Tree) -> Tree:
        """Return the tree with what is in *other*, which replaces what is in its way."""
        taken = parents(other.files) | parents(other.folders)
        kept = {
            path: entry
            for path, entry in self.files.items()
            if path not in taken
            and path not in other.folders
            and not any(parent in other.files for parent in parents_of(path))
        }
        files = kept | other.files
        full = parents(files)
        folders = {
            folder
            for folder in self.folders | other.folders
            if folder not in full
            and folder not in files
            and not any(parent in files for parent in parents_of(folder))
        }
        return Tree(files, folders - parents(folders))

    @property
    def hashes(self) -> set[str]:
        """The hashes of the files."""
        return {entry.hash for entry in self.files.values()}


def parents_of(path: str) -> Iterator[str]:
    """Yield the folders that *path* is in, from the innermost."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def parents(paths: Iterable[str] | Mapping[str, object]) -> set[str]:
    """Return the folders that any of *paths* is in."""
    found: set[str] = set()
    for path in paths:
        for parent in parents_of(path):
            if parent in found:
                break
            found.add(parent)
    return found

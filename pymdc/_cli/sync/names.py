"""The names that the contents of a bucket have: the last parts of their paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pymdc._cli.sync.manifest import NAME
from pymdc._cli.sync.remote import Content
from pymdc._cli.sync.tree import Tree


def entry_name(path: str) -> str:
    """Return the name at the bridge of the file *path*: no folders, and nothing but text."""
    name = path.rpartition("/")[2].replace("\\", "_")
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return name.lstrip(".") if name == NAME else name


def renamed(old: Tree, new: Tree, contents: Mapping[str, Content]) -> Iterator[tuple[str, str]]:
    """Yield those *contents* that have the name of a path in *old* and of none in *new*.

    The second value is a name that they have in *new*.
    """
    before, after = _names(old), _names(new)
    for file_hash in before.keys() & after.keys() & contents.keys():
        name = contents[file_hash].name
        if name in before[file_hash] and name not in after[file_hash]:
            yield file_hash, min(after[file_hash])


def _names(tree: Tree) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path, entry in tree.files.items():
        found.setdefault(entry.hash, set()).add(entry_name(path))
    return found

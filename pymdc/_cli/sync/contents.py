"""The contents of a bucket: the names that they have there, and which no path needs any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from pymdc._cli.sync.manifest import NAME, Former, Manifest
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


def unneeded(old: Manifest, tree: Tree, contents: Mapping[str, Content]) -> dict[str, Former]:
    """Return those *contents* that *old* knows and the new *tree* does not need."""
    needed = tree.hashes
    found = {
        it: former for it, former in still_there(old.unneeded, contents).items() if it not in needed
    }
    for path, entry in old.tree.files.items():
        if entry.hash not in needed and entry.hash in contents:
            found[entry.hash] = Former(path, contents[entry.hash].name)
    return found


def still_there(former: Mapping[str, Former], contents: Mapping[str, Content]) -> dict[str, Former]:
    """Return those that the bucket has under the same name.

    With another name, somebody has put the same content there since, and it is not ours.
    """
    return {
        file_hash: it
        for file_hash, it in former.items()
        if file_hash in contents and contents[file_hash].name == it.name
    }


def below(
    former: Mapping[str, Former], prefix: str, chosen: Callable[[str], bool]
) -> dict[str, Former]:
    """Return those that were in the folder *prefix* of the bucket, and are *chosen* in it."""
    start = f"{prefix}/" if prefix else ""
    return {
        file_hash: it
        for file_hash, it in former.items()
        if it.path.startswith(start) and chosen(it.path[len(start) :])
    }

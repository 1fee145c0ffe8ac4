"""Which contents of a bucket no path has any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pymdc._cli.sync.manifest import Former, Manifest
from pymdc._cli.sync.remote import Content
from pymdc._cli.sync.tree import Tree


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

"""The manifest: a file in the bucket that says which paths its contents have."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pymdc._cli.failures import Code, Failure
from pymdc._cli.lookup import MANIFEST
from pymdc._cli.sync.tree import Entry, Tree

NAME = MANIFEST
VERSION = 1
_HASH = re.compile("[0-9a-f]{40}")
_KEYS = {"pymdc-sync", "id", "parents", "files", "folders", "unneeded"}


class Former(NamedTuple):
    """The *path* that a content had, and the *name* of its entry in the bucket."""

    path: str
    name: str


@dataclass
class Manifest:
    """A *tree*, what is *unneeded*, and the *parents*: hashes of manifests that this one replaces.

    Unneeded are the contents that earlier manifests named and this one does not, by their hashes.
    """

    tree: Tree = field(default_factory=Tree)
    unneeded: dict[str, Former] = field(default_factory=dict)
    parents: frozenset[str] = frozenset()


def encode(manifest: Manifest) -> bytearray:
    """Return *manifest* as JSON, in ASCII; it differs each time, so that it is a file of its own.

    If it did not, an upload could give its name to the entry of an older manifest, which another
    program is about to remove.
    """
    document = {
        "pymdc-sync": VERSION,
        "id": secrets.token_hex(16),
        "parents": sorted(manifest.parents),
        "files": dict(sorted(manifest.tree.files.items())),
        "folders": sorted(manifest.tree.folders),
        "unneeded": manifest.unneeded,
    }
    return bytearray(json.dumps(document), "ascii")


def decode(body: bytes) -> Manifest:
    """Return the manifest in *body*; a failure if it is damaged, or of a newer version."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _damaged("it is not JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("pymdc-sync"), int):
        raise _damaged("it has no version")
    version = document["pymdc-sync"]
    if version > VERSION:
        message = f"the manifest {NAME} has the version {version}, and this pymdc knows {VERSION}"
        raise Failure(message, remedy="nothing was changed; use a newer pymdc")
    try:
        return _manifest(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(str(error)) from None


def _manifest(document: dict[str, Any]) -> Manifest:
    if missing := _KEYS - document.keys():
        raise ValueError(f"{min(missing)} is missing")
    files = {check_path(path): _entry(path, row) for path, row in document["files"].items()}
    folders = {check_path(path) for path in document["folders"]}
    unneeded = {
        _hash(it, "unneeded"): Former(check_path(path), str(name))
        for it, (path, name) in document["unneeded"].items()
    }
    parents = frozenset(_hash(it, "parents") for it in document["parents"])
    return Manifest(Tree(files, folders), unneeded, parents)


def _entry(path: str, row: list[Any]) -> Entry:
    file_hash, size, mtime, mode, fresh = row
    good = _is_number(size) and size >= 0
    good = good and (mtime is None or (_is_number(mtime) and abs(mtime) < 2**63))
    if not (good and (mode is None or (_is_number(mode) and 0 <= mode <= 0o777))):
        raise ValueError(f"the row of {path!r} is {row}")
    return Entry(_hash(file_hash, path), size, mtime, mode, bool(fresh))


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _hash(value: Any, where: str) -> str:
    if not (isinstance(value, str) and _HASH.fullmatch(value)):
        raise ValueError(f"{where!r} has {value!r} for a hash")
    return value


def check_path(path: Any) -> str:
    """Return *path*; ValueError if it is not one that stays in its folder.

    Names that are not UTF-8 have surrogates, as `os.fsdecode` makes them; no path has two forms.
    """
    parts = path.split("/")
    bytes_ = path.encode("utf-8", "surrogateescape")
    if (
        not {"", ".", ".."}.isdisjoint(parts)
        or "\0" in path
        or parts[0] == NAME
        or bytes_.decode("utf-8", "surrogateescape") != path
    ):
        raise ValueError(f"{path!r} is no path within the folder")
    return str(path)


def _damaged(what: str) -> Failure:
    return Failure(
        f"the manifest {NAME} is damaged: {what[:200]}",
        Code.INTEGRITY,
        "nothing was changed; without a manifest (pymdc rm) the next sync makes a new one",
    )

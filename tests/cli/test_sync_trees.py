"""sync: any two trees are made equal."""

from __future__ import annotations

import itertools
import os
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

from command_line import Verb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syncing import new_bucket

from pymdc._cli.sync.manifest import NAME
from pymdc._cli.sync.remote import Remote

Tree = dict[str, "str | Tree"]

_OLD = 1_500_000_000
_numbers = itertools.count()
_names = st.sampled_from(["a", "A", "b.txt", "é", "e\u0301", NAME])
_texts = st.sampled_from(["", "1", "2", "three"])
_inner = st.recursive(
    st.dictionaries(_names, _texts, max_size=3),
    lambda trees: st.dictionaries(_names, _texts | trees, max_size=3),
    max_leaves=6,
)
trees = _inner.map(lambda tree: {name: it for name, it in tree.items() if name != NAME})


def write(folder: Path, tree: Tree) -> None:
    folder.mkdir()
    for name, value in tree.items():
        path = folder / name
        if isinstance(value, str):
            path.write_text(value)
            # The content shows in the mtime, since only a changed mtime shows a change.
            mtime = _OLD + zlib.crc32(value.encode()) % 1000
            os.utime(path, (mtime, mtime))
        else:
            write(path, value)


def read(folder: Path) -> Tree:
    return {
        path.name: read(path) if path.is_dir() else path.read_text() for path in folder.iterdir()
    }


def paths(tree: Tree, prefix: str = "") -> set[str]:
    found = set()
    for name, value in tree.items():
        found |= {prefix + name} if isinstance(value, str) else paths(value, f"{prefix}{name}/")
    return found


def overlaid(old: Tree, new: Tree) -> Tree:
    """Return the tree after *new* was written over *old*."""
    both = old | new
    for name, value in new.items():
        before = old.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            both[name] = overlaid(before, value)
    return both


@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees, trees, trees)
def test_bucket_becomes_like_the_folder_and_a_folder_like_the_bucket(
    signed_in: object, pymdc: Verb, first: Tree, second: Tree, other: Tree
) -> None:
    files = new_bucket()
    bucket = files.bucket_id
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "1", first)
        write(folder / "2", second)
        write(folder / "3", other)
        assert pymdc("sync", folder / "1", f"{bucket}:").code == 0
        assert pymdc("sync", folder / "2", f"{bucket}:", "--delete", "-y").code == 0
        state = Remote(files).read()
        assert state.manifest.tree.files.keys() == paths(second)
        kept = {entry["hash"] for entry in files.list()} - state.present
        assert kept == state.manifest.tree.hashes
        assert pymdc("sync", f"{bucket}:", folder / "3", "--delete", "-y").code == 0
        assert read(folder / "3") == second
        assert pymdc("sync", f"{bucket}:", folder / "new").code == 0
        assert read(folder / "new") == second


@settings(
    max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(trees, trees)
def test_without_delete_nothing_is_removed(
    signed_in: object, pymdc: Verb, first: Tree, second: Tree
) -> None:
    files = new_bucket()
    bucket = files.bucket_id
    with TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "1", first)
        write(folder / "2", second)
        assert pymdc("sync", folder / "1", f"{bucket}:x/y").code == 0
        before = {entry["hash"] for entry in files.list() if entry["filename"] != NAME}
        assert pymdc("sync", folder / "2", f"{bucket}:x/y/").code == 0
        assert before <= {entry["hash"] for entry in files.list()}
        assert pymdc("sync", f"{bucket}:x/y", folder / "new").code == 0
        assert read(folder / "new") == overlaid(first, second)

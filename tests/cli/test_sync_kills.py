"""sync: killed at any point, or overtaken by another one, it loses nothing."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Verb
from syncing import Forks, SteppingProxy, forks, new_bucket, write

from pymdc._cli.sync.manifest import NAME
from pymdc._cli.sync.remote import Remote
from pymdc._crypto.file_hash import file_hash
from pymdc.api import Files
from pymdc.bridge import Bridge

OLD = {"a.txt": "old a", "b.txt": "old b", "same.txt": "same"}
NEW = {"a.txt": "newer a", "same.txt": "same", "deep/d.txt": "new d", "twin.txt": "new d"}


@pytest.fixture
def forked(signed_in: object, tmp_path: Path) -> Iterator[Forks]:
    with forks(tmp_path / "errors") as running:
        yield running


def tree_of(files: Files) -> dict[str, str]:
    """Return the hashes of the paths in the manifest; check that the contents are there."""
    tree = Remote(files).read().manifest.tree
    assert tree.hashes <= {entry["hash"] for entry in files.list()}
    return {path: entry.hash for path, entry in tree.files.items()}


def hashes(texts: dict[str, str]) -> dict[str, str]:
    return {path: file_hash(text.encode()) for path, text in texts.items()}


def check_ended(files: Files, texts: dict[str, str]) -> None:
    """Check that the bucket has one manifest, and what it names, and nothing else."""
    assert tree_of(files) == hashes(texts)
    state = Remote(files).read()
    assert not state.manifest.unneeded
    assert len(state.present) == 1
    assert {it["hash"] for it in files.list()} == state.manifest.tree.hashes | state.present


def test_sync_killed_before_any_change_of_the_bucket_loses_nothing(
    bridge: Bridge, folder: Path, pymdc: Verb, forked: Forks
) -> None:
    """Being killed after a change leaves the same as being killed before the next one."""
    write(folder / "old", OLD)
    write(folder / "new", NEW)
    for number in itertools.count():
        files = new_bucket()
        target = f"{files.bucket_id}:"
        assert pymdc("sync", "old", target).code == 0

        def hook(change: int, when: str, at: int = number) -> None:
            if (change, when) == (at, "before"):
                forked.kill()
                raise ConnectionError  # so that it is not forwarded

        with SteppingProxy(bridge, hook) as proxy:
            command = ["sync", str(folder / "new"), target, "--delete", "-y", "--jobs", "1"]
            code = forked.run(proxy.endpoint, *command)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert tree_of(files) in (hashes(OLD), hashes(NEW))
        assert pymdc("sync", "new", target, "--delete", "-y").code == 0
        check_ended(files, NEW)
    check_ended(files, NEW)
    methods = [step.partition(" ")[0] for step in proxy.changes]
    assert methods == [*["PUT"] * 3, *["DELETE"] * 3, "PUT", "DELETE"]
    assert proxy.changes[2] == f"PUT {NAME}"


# Before each change of the bucket, and after those that put a manifest there.
POINTS = [*((change, "before") for change in range(7)), (1, "after"), (5, "after")]


def test_sync_that_another_one_overtakes_loses_nothing_of_either(
    bridge: Bridge, folder: Path, pymdc: Verb, forked: Forks
) -> None:
    """The other one runs as a whole at one of the `POINTS`."""
    this = {"x": "X", "y": "newer Y", "copy": "Z"}
    other = {"y": "the other Y", "b": "B"}
    write(folder / "start", {"x": "X", "y": "Y", "z": "Z"})
    write(folder / "this", this)
    write(folder / "other", other)
    for point in POINTS:
        files = new_bucket()
        target = f"{files.bucket_id}:"
        assert pymdc("sync", "start", target).code == 0

        def hook(
            change: int, when: str, target: str = target, point: tuple[int, str] = point
        ) -> None:
            if (change, when) == point:
                assert pymdc("sync", "other", target, "--delete", "-y").code == 0

        with SteppingProxy(bridge, hook) as proxy:
            command = ["sync", str(folder / "this"), target, "--jobs", "1", "--delete", "-y"]
            assert forked.run(proxy.endpoint, *command) == 0
        tree = tree_of(files)
        if "copy" in tree:  # this one was the last, and the file b was not in its plan
            assert tree == hashes(this | {"b": "B"})
        else:
            assert tree == hashes(other)
            assert point >= (2, "before")
    assert len(proxy.changes) > 7

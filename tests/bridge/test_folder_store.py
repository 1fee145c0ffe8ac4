"""What only a folder does, as a store of objects."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest
from stored_objects import content, views

from pymdc.bridge.storage.disk import free_bytes
from pymdc.bridge.storage.folder_store import FolderStore

NAMES = ["0" * 32, "1" * 32]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "shards", fsync=True)


def test_folder_is_for_its_owner_alone(store: FolderStore, tmp_path: Path) -> None:
    store.put(NAMES[0], views(b"abc"))
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "shards").rglob("*")]
    assert modes == [0o600]
    assert (tmp_path / "shards").stat().st_mode & 0o777 == 0o700


def test_room_is_that_of_the_disk(store: FolderStore, tmp_path: Path) -> None:
    assert abs(store.free() - free_bytes(tmp_path)) < 2**30


def test_half_written_objects_are_deleted(store: FolderStore, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    store.put(NAMES[0], views(b"abc"))
    store.set_installation("one")
    for name in f"{NAMES[0]}#1", "installation#1", "note#1":
        (folder / name).touch()
    store.delete_half_written()
    assert sorted(os.listdir(folder)) == sorted([NAMES[0], "installation", "note#1"])


def test_no_file_is_open_between_two_reads(store: FolderStore, tmp_path: Path) -> None:
    store.put(NAMES[0], views(b"abcdef"))
    with closing(store.open(NAMES[0])) as reader:
        assert bytes(reader.read(3)) == b"abc"
        targets = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/dev/fd")]
        assert not [target for target in targets if target.startswith(str(tmp_path))]
        assert bytes(reader.read(5)) == b"def"


def test_object_that_is_deleted_meanwhile_is_not_listed(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        store.put(name, views(b"abc"))
    monkeypatch.setattr(store, "names", lambda: iter([[*NAMES, "2" * 32]]))
    assert [entry.name for batch in store.entries() for entry in batch] == NAMES


def test_folder_that_cannot_be_written_fails_its_check(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "shards").rmdir()
    with pytest.raises(OSError, match="can't be written"):
        store.check()


def test_objects_set_aside_lie_beside_the_folder(store: FolderStore, tmp_path: Path) -> None:
    store.put(NAMES[0], views(b"abc"))
    assert store.set_aside(NAMES[:1]) == str(tmp_path / "set-aside")
    assert content(FolderStore(tmp_path / "set-aside", fsync=False), NAMES[0]) == b"abc"

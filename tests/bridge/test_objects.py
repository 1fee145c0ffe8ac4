"""What a folder and an S3 store do alike."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest
from stored_objects import MiB, content, views

from pymdc.bridge.storage.folder_store import FolderStore
from pymdc.bridge.storage.objects import ObjectStore, new_upload, object_name
from pymdc.bridge.storage.s3_store import S3Store

CONTENT = os.urandom(3 * MiB + 5)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.distributed)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "shards", fsync=True)
    s3: S3Store = request.getfixturevalue("s3")
    return s3


@pytest.fixture
def name() -> str:
    return object_name(new_upload(), 0)


def test_object_is_stored_and_read(store: ObjectStore, name: str) -> None:
    store.put(name, views(CONTENT[:1000], b"", CONTENT[1000:]))
    store.sync()
    assert content(store, name) == CONTENT
    assert content(store, name, 1000) == CONTENT[1000:]
    assert content(store, name, len(CONTENT)) == b""
    assert b"".join(store.blocks(name)) == CONTENT
    assert store.size(name) == len(CONTENT)


def test_reader_returns_about_as_much_as_is_asked_for(store: ObjectStore, name: str) -> None:
    store.put(name, views(CONTENT))
    with closing(store.open(name)) as reader:
        sizes = [len(block) for block in iter(lambda: reader.read(MiB), memoryview(b""))]
        assert not reader.read(MiB), "the end stays the end"
    assert sum(sizes) == len(CONTENT)
    assert all(MiB <= size <= 2 * MiB for size in sizes[:-1])


def test_empty_object_is_stored_and_read(store: ObjectStore, name: str) -> None:
    store.put(name, [])
    assert content(store, name) == b""
    assert store.size(name) == 0


def test_block_of_a_buffer_that_grew_is_stored(store: ObjectStore, name: str) -> None:
    store.put(name, [memoryview(bytearray(b"abc"))])
    assert content(store, name) == b"abc"


def test_missing_object_is_found_out(store: ObjectStore, name: str) -> None:
    assert store.size(name) is None
    with closing(store.open(name)) as reader, pytest.raises(FileNotFoundError) as raised:
        reader.read(1000)
    assert str(raised.value.filename).endswith(f"/{name}")
    with pytest.raises(FileNotFoundError):
        next(store.blocks(name))
    with pytest.raises(FileNotFoundError):
        store.stored_at(name)


def test_objects_are_listed(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [*store.names(), *store.entries()] == []
    upload = new_upload()
    names = [object_name(upload, position) for position in range(5)]
    for number, name in enumerate(names):
        store.put(name, views(bytes(number)))
    store.put("something-else", views(b"1"))
    for module in "folder_store", "s3_store":
        monkeypatch.setattr(f"pymdc.bridge.storage.{module}.BATCH", 2)
    assert sorted(chain.from_iterable(store.names())) == names
    assert all(len(batch) <= 2 for batch in store.names())
    entries = sorted(chain.from_iterable(store.entries()))
    assert [(entry.name, entry.size) for entry in entries] == [*zip(names, range(5), strict=True)]
    assert [entry.stored_at for entry in entries] == [*map(store.stored_at, names)]
    assert store.sizes([*names, new_upload()]) == [0, 1, 2, 3, 4, None]


def test_time_of_an_object_is_that_of_its_storing(store: ObjectStore, tmp_path: Path) -> None:
    name = object_name(new_upload(), 0)
    (before := tmp_path / "before").touch()
    store.put(name, views(b"abc"))
    # The clock of files is some milliseconds behind the other one, by which a store may go.
    begin, end = before.stat().st_mtime_ns // 10**9, time.time_ns() // 10**9
    assert begin <= store.stored_at(name) // 1000 <= end


def test_objects_are_deleted_in_bulk(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    upload = new_upload()
    names = [object_name(upload, position) for position in range(50)]
    for name in names:
        store.put(name, views(b"abc"))
    store.delete([])
    store.delete(iter([*names[1:], new_upload()]))
    assert list(store.names()) == [names[:1]]
    assert not caplog.records


def test_nothing_is_stored_if_the_blocks_raise(store: ObjectStore, name: str) -> None:
    def blocks() -> Iterator[memoryview]:
        yield memoryview(b"abc")
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        store.put(name, blocks())
    assert store.size(name) is None


def test_objects_are_set_aside(store: ObjectStore, name: str) -> None:
    store.put(name, views(b"abc"))
    place = store.set_aside([name])
    assert place.endswith("/set-aside")
    assert list(store.names()) == []
    with pytest.raises(FileNotFoundError):
        store.set_aside([name])


def test_installation_is_stored(store: ObjectStore) -> None:
    assert store.installation() is None
    store.set_installation("one")
    store.set_installation("another")
    assert store.installation() == "another"
    assert list(store.names()) == [], "it is no object of a shard"


def test_store_that_works_passes_its_check(store: ObjectStore) -> None:
    store.check()
    store.delete_half_written()
    assert list(store.names()) == []

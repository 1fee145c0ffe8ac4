"""The bridge on a store behind a network."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from plain_client import DATA, User, ask, pull
from processes import MINUTE
from seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS
from websockets.sync.client import connect

from pymdc.bridge import Bridge
from pymdc.bridge.storage import s3_store
from pymdc.bridge.storage.folder_store import FolderReader, FolderStore

MiB = 2**20


def test_requests_get_503_while_the_store_is_away_and_succeed_afterwards(
    own_seaweedfs: SeaweedFS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with Bridge(tmp_path / "data", store=own_seaweedfs.store_url("a"), shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        file_hash = alice.upload(bucket, DATA).json["hash"]
        pointer, *_ = alice.pointers(bucket, file_hash).json
        content = f"/buckets/{bucket}/files/{file_hash}/content"
        own_seaweedfs.kill()
        replies = [
            alice.upload(bucket, DATA + b"more"),
            alice.upload(bucket, b"short"),
            ask(bridge, "GET", content, headers={"x-token": alice.token(bucket, "PULL")}),
        ]
        for reply in replies:
            assert reply.error == (503, "The storage does not answer")
            assert int(reply.headers["retry-after"]) > 0
        with pytest.raises(AssertionError, match='"code":503,"message":"The storage does not an'):
            pull(pointer)
        assert ask(bridge, "GET", "/ready").status == 503
        assert alice.ask("GET", f"/buckets/{bucket}/files").status == 200
        own_seaweedfs.start()
        assert alice.download(bucket, file_hash) == DATA
        assert alice.upload(bucket, DATA + b"more").status == 200
        assert ask(bridge, "GET", "/ready").status == 200
    assert "did not answer: connection refused" in caplog.text
    assert "Traceback" not in caplog.text
    assert SECRET_KEY not in caplog.text
    assert ACCESS_KEY not in caplog.text


def test_channel_goes_on_after_the_store_was_started_again(
    own_seaweedfs: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_store, "STORE_RETRY_SECONDS", MINUTE)
    data = os.urandom(48 * MiB)  # more than what waits in the buffers of sockets
    with Bridge(tmp_path / "data", store=own_seaweedfs.store_url(), shard_size=len(data)) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        [pointer] = alice.pointers(bucket, alice.upload(bucket, data).json["hash"]).json
        with connect(pointer["channel"], compression=None, max_queue=1) as channel:
            channel.send(json.dumps(pointer))
            received = [channel.recv()]
            own_seaweedfs.kill()
            own_seaweedfs.start()
            received += channel
    assert b"".join(frame for frame in received if isinstance(frame, bytes)) == data


def test_two_shards_are_stored_at_a_time_and_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, stored, second = FolderStore.put, list[str](), threading.Event()

    def put_second_first(store: FolderStore, name: str, blocks: Iterable[memoryview]) -> None:
        if name.endswith("0"):
            assert second.wait(MINUTE)
        put(store, name, blocks)
        if len(name) == 32:
            stored.append(name[-1])
            second.set()

    monkeypatch.setattr(FolderStore, "put", put_second_first)
    monkeypatch.setattr(FolderStore, "is_remote", True)
    data = os.urandom(4500)
    with Bridge(tmp_path / "data", shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        assert alice.download(bucket, alice.upload(bucket, data).json["hash"]) == data
    assert stored[:2] == ["1", "0"]
    assert sorted(stored) == ["0", "1", "2", "3", "4"]


def test_upload_whose_shard_is_refused_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, third = FolderStore.put, threading.Event()

    def refuse_second(store: FolderStore, name: str, blocks: Iterable[memoryview]) -> None:
        if name.endswith("1"):
            assert third.wait(MINUTE)
            raise OSError("refused")
        put(store, name, blocks)
        if name.endswith("2"):
            third.set()

    monkeypatch.setattr(FolderStore, "put", refuse_second)
    monkeypatch.setattr(FolderStore, "is_remote", True)
    with Bridge(tmp_path / "data", shard_size=1000) as bridge:
        alice = User(bridge, "alice")
        assert alice.upload(alice.bucket(), os.urandom(4500)).status == 500
    assert not [*(tmp_path / "data" / "shards").glob("?" * 32)]


def leave_a_channel(alice: User, bucket: str, file_hash: str) -> None:
    [pointer] = alice.pointers(bucket, file_hash).json
    with connect(pointer["channel"], compression=None, max_queue=1) as channel:
        channel.send(json.dumps(pointer))
        channel.recv()
        channel.socket.close()


def read_content(alice: User, bucket: str, file_hash: str, **fields: str) -> None:
    headers = {"x-token": alice.token(bucket, "PULL"), **fields}
    path = f"/buckets/{bucket}/files/{file_hash}/content"
    assert ask(alice.bridge, "GET", path, headers=headers).status in (200, 206)


READINGS: dict[str, Callable[[User, str, str], object]] = {
    "channel": User.download,
    "channel that is left": leave_a_channel,
    "content": read_content,
    "part of the content": partial(read_content, Range="bytes=5-9"),
}


@pytest.mark.parametrize("reading", READINGS)
def test_reader_is_closed_however_the_reading_ends(
    reading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_, close, readers = FolderStore.open, FolderReader.close, set[FolderReader]()

    def open_and_note(store: FolderStore, name: str, start: int = 0) -> FolderReader:
        readers.add(reader := open_(store, name, start))
        return reader

    def close_and_note(reader: FolderReader) -> None:
        close(reader)
        readers.remove(reader)
        closed.set()

    closed = threading.Event()
    monkeypatch.setattr(FolderStore, "open", open_and_note)
    monkeypatch.setattr(FolderReader, "close", close_and_note)
    with Bridge(tmp_path / "data", shard_size=16 * MiB) as bridge:
        alice = User(bridge, "alice")
        bucket = alice.bucket()
        READINGS[reading](alice, bucket, alice.upload(bucket, os.urandom(16 * MiB)).json["hash"])
        assert closed.wait(MINUTE)
    assert not readers

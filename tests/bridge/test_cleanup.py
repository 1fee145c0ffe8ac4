"""Objects without a row, when a bridge starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from backends import Backend
from plain_client import Count, Rows, User, address, form
from processes import MINUTE, bridge_process

from pymdc.bridge import Bridge


def upload_in_flight(user: User, bucket: str, body: bytes, size: int) -> socket.socket:
    wire = socket.create_connection(address(user.bridge), timeout=MINUTE)
    wire.sendall(user.upload_head(bucket, size, len(form(bytes(size)))) + body)
    return wire


def test_objects_of_a_killed_bridge_are_deleted(data: Path, objects: Count) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        stored = user.upload(bucket, b"abc").json["hash"]
    (data / "shards" / "notes.txt").touch()
    with bridge_process(data) as (bridge.endpoint, process):
        with upload_in_flight(user, bucket, form(bytes(18_000_000))[:-20], 18_000_000):
            while objects() < 3:  # one of the two new ones may be half-written
                pass
            process.kill()
            process.wait(MINUTE)
    (data / "shards" / f"{32 * 'f'}#1").touch()  # the name of an object while it is written
    with Bridge(data) as user.bridge:
        assert objects() == 1
        assert (data / "shards" / "notes.txt").exists()
        [listed] = user.ask("GET", f"/buckets/{bucket}/files").json
        assert listed["hash"] == stored
        assert user.download(bucket, stored) == b"abc"
    assert not (data / "set-aside").exists(), "the database knows their upload"


def test_objects_of_another_running_bridge_are_kept(
    alice: User, data: Path, objects: Count
) -> None:
    bucket, body = alice.bucket(), form(bytes(range(250)) * 10)
    with upload_in_flight(alice, bucket, body[:-20], 2500) as wire:
        while objects() < 2:
            pass
        with Bridge(data):
            pass
        wire.sendall(body[-20:])
        assert wire.recv(1000).startswith(b"HTTP/1.1 200 ")
    [stored] = alice.ask("GET", f"/buckets/{bucket}/files").json
    assert len(alice.download(bucket, stored["hash"])) == 2500


def test_removal_that_was_broken_off_is_finished(
    backend: Backend, objects: Count, rows: Rows
) -> None:
    with backend.bridge() as bridge:
        user = User(bridge, "alice")
        kept, removed = user.bucket(), user.bucket()
        for number in range(3):
            user.upload(removed, bytes(number))
        stored = user.upload(kept, bytes(2)).json["hash"]
    backend.execute("UPDATE buckets SET removed = 1 WHERE id = :id", {"id": removed})
    with backend.bridge() as user.bridge:
        assert [bucket["id"] for bucket in user.ask("GET", "/buckets").json] == [kept]
        user.bridge._housekeeper.keep_house()
        assert (objects(), rows("files"), rows("buckets")) == (1, 1, 1)
        assert user.download(kept, stored) == bytes(2)


def test_older_database_put_back_loses_no_newer_shard(data: Path, objects: Count) -> None:
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        kept, removed = (user.upload(bucket, name).json["hash"] for name in (b"kept", b"removed"))
    database, newer = data / "metadata.sqlite", data / "newer.sqlite"
    older, aside = database.read_bytes(), data / "set-aside"
    with bridge_process(data) as (bridge.endpoint, _):
        second = user.upload(bucket, b"second").json["hash"]
        assert user.ask("DELETE", f"/buckets/{bucket}/files/{removed}").status == 204
    database.rename(newer)
    database.write_bytes(older)
    with bridge_process(data) as (bridge.endpoint, process):
        assert user.download(bucket, kept) == b"kept"
        assert objects() == 1
        assert user.upload(bucket, b"third").status == 200
        process.terminate()
        assert process.stderr
        told = process.stderr.read()
    assert "1 objects in the store are newer than the database" in told
    assert f"they are set aside in {aside}" in told
    assert len([*aside.iterdir()]) == 1
    newer.replace(database)
    for path in aside.iterdir():
        path.rename(data / "shards" / path.name)
    with bridge_process(data) as (bridge.endpoint, _):
        assert user.download(bucket, kept) == b"kept"
        assert user.download(bucket, second) == b"second"


def test_objects_of_another_bridge_are_kept(data: Path, tmp_path: Path, objects: Count) -> None:
    """The database of another one, in which more was written since, is put into the folder."""
    with Bridge(data) as bridge:
        user = User(bridge, "alice")
        user.upload(user.bucket(), b"abc")
    with Bridge(tmp_path / "other") as bridge:
        User(bridge, "bob").bucket()
    (tmp_path / "other" / "metadata.sqlite").replace(data / "metadata.sqlite")
    with pytest.raises(OSError, match="the store is not that of the database"), Bridge(data):
        pass
    assert objects() == 1

"""Client and bridge report a full disk, and leave no half-written file."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from modes import Ask
from plain_client import User
from processes import bridge_process

import pymdc
from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.load import Load
from pymdc.bridge.settings import RESERVE
from pymdc.testing import Account

DATA = random.Random(3).randbytes(16 * 1024 * 1024)  # two shards; neither fits


@contextmanager
def file_system(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 6 MB."""
    with file_system(tmp_path / "small", "6m") as folder:
        yield folder


@pytest.fixture
def larger(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 64 MB."""
    with file_system(tmp_path / "larger", "64m") as folder:
        yield folder


def test_download_to_a_full_disk_is_an_error_and_leaves_no_file(
    ask: Ask, bucket: pymdc.api.Bucket, small: Path
) -> None:
    name = bucket.files.upload(io.BytesIO(DATA))["hash"]
    value = ask(bucket.files.download, name, to=small / "back")
    assert isinstance(value, OSError)
    assert value.strerror == "No space left on device"
    assert str(small) in str(value)
    assert os.listdir(small) == []


def test_upload_to_a_bridge_with_full_disk_is_refused(
    ask: Ask, small: Path, account: Account
) -> None:
    with Bridge(small / "data", min_free=2**20) as bridge, pymdc.Client(bridge.endpoint) as client:
        user = pymdc.api.Users("you@example.com", client=client)
        user.register()
        user.activate(bridge.activation_key(user.username))
        pymdc.api.Keys(user).create(account.key_pair)
        made = pymdc.api.Buckets(account.key_pair, client=client).create("b", 1, 1, [])
        files = pymdc.api.Files(made["id"], account.key_pair, client=client)
        assert ask(files.upload, io.BytesIO(DATA)) == {"error": "The bridge has no space left"}
        assert files.list() == []
        assert list((small / "data" / "shards").glob("[0-9a-f]*")) == []
        assert ask(files.upload, io.BytesIO(b"small"))["size"] == 5


@pytest.mark.parametrize("size", [7 * 2**20, 16 * 2**20], ids=["one shard", "two shards"])
def test_upload_is_refused_by_a_disk_that_others_fill_meanwhile(
    small: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(Load, "check_room", lambda *_: None)  # there was room then
    with Bridge(small / "data") as bridge:
        user = User(bridge, "alice")
        assert user.upload(user.bucket(), DATA[:size]).error == NO_SPACE
        assert [*(small / "data" / "shards").glob("[0-9a-f]*")] == []


def test_uploads_that_fill_the_disk_are_stopped_before_it_is_full(larger: Path) -> None:
    least = RESERVE + 16 * 2**20
    with Bridge(larger / "data", min_free=least, shard_size=2**18, fsync=True) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        lowest = shutil.disk_usage(larger).free
        with ThreadPoolExecutor(2) as threads:
            uploads = [threads.submit(user.upload, bucket, DATA) for _ in range(2)]
            while not all(upload.done() for upload in uploads):
                lowest = min(lowest, shutil.disk_usage(larger).free)
        assert [upload.result().error for upload in uploads] == 2 * [NO_SPACE]
        assert lowest >= least - 2**20
        assert [*(larger / "data" / "shards").glob("[0-9a-f]*")] == []


NO_SPACE = (507, "The bridge has no space left")
MIN_FREE = 4 * 2**20
FILE = 2**20
OPTIONS = ("--min-free", "4", "--log-level", "warning")


def fill(folder: Path) -> None:
    """Fill the file system to the last byte."""
    with open(folder / "filling", "ab", 0) as file:
        for size in (2**20, 2**12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    assert shutil.disk_usage(folder).free == 0


def content(number: int) -> bytes:
    return random.Random(number).randbytes(FILE)


def upload_until_refused(user: User, bucket: str) -> tuple[int, tuple[int, str]]:
    """Upload files; return how many were taken, and the refusal."""
    for number in range(64):
        reply = user.upload(bucket, content(number))
        if reply.status != 200:
            return number, reply.error
    raise AssertionError("the disk did not become full")


def everything_else(user: User, bucket: str) -> None:
    for _ in range(25):
        assert user.ask("GET", f"/buckets/{bucket}").status == 200
    assert user.ask("PATCH", f"/buckets/{bucket}", {"name": "full"}).status == 200
    assert user.download(bucket, file_hash(content(0))) == content(0)


def test_full_disk_stops_uploads_alone_until_something_is_removed(larger: Path) -> None:
    with Bridge(larger / "data", min_free=MIN_FREE) as bridge:
        alice, bob = User(bridge, "alice"), User(bridge, "bob")
        bucket, other = alice.bucket(), alice.bucket()
    with bridge_process(larger / "data", *OPTIONS) as (bridge.endpoint, _):
        count, refusal = upload_until_refused(alice, bucket)
        assert refusal == NO_SPACE
        assert MIN_FREE / 2 < shutil.disk_usage(larger).free < MIN_FREE + 2 * FILE
        everything_else(alice, bucket)
        fill(larger)
        assert bob.upload(bob.bucket(), b"abc").error == NO_SPACE
        everything_else(alice, bucket)
    fill(larger)
    with bridge_process(larger / "data", *OPTIONS) as (bridge.endpoint, _):
        assert (larger / "data" / "reserve").stat().st_size < RESERVE
        everything_else(alice, bucket)
        assert alice.ask("DELETE", f"/buckets/{other}").status == 204
        for number in range(1, count):
            path = f"/buckets/{bucket}/files/{file_hash(content(number))}"
            assert alice.ask("DELETE", path).status == 204
        assert alice.upload(bucket, content(1)).status == 200
        everything_else(alice, bucket)
        assert alice.ask("DELETE", f"/buckets/{bucket}").status == 204

"""Client and bridge report a full disk, and leave no half-written file."""

from __future__ import annotations

import io
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import Account
from modes import Ask

import pymdc
from pymdc.bridge import Bridge

DATA = random.Random(3).randbytes(16 * 1024 * 1024)  # two shards; neither fits


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 6 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system can't be mounted here: that takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


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
        assert list((small / "data" / "shards").iterdir()) == []
        assert ask(files.upload, io.BytesIO(b"small"))["size"] == 5

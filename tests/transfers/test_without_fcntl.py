"""Downloads where Python has no fcntl, as on Windows: files cannot be locked there."""

from __future__ import annotations

import os
from pathlib import Path

from fake_bridge import DATA, HASH, SHARDS, FakeBridge, part_path, send_damaged
from processes import python

PROGRAM = """
import sys
sys.modules["fcntl"] = None
import pymdc

with pymdc.Client(sys.argv[1], channels=1) as client:
    files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
    value = files.download(sys.argv[2], *sys.argv[4:], to=sys.argv[3])
print(value.get("size") if isinstance(value, dict) else type(value).__name__)
"""


def download(fake: FakeBridge, target: Path, *token: str) -> str:
    ended = python("-c", PROGRAM, fake.endpoint, HASH, target, *token)
    assert (ended.stderr, ended.returncode) == ("", 0)
    return ended.stdout


def test_download_without_locks_is_whole_and_has_the_mode_of_its_target(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with FakeBridge() as fake:
        assert download(fake, target) == f"{len(DATA)}\n"
    assert target.read_bytes() == DATA
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["out"]


def test_failed_download_without_locks_leaves_nothing(tmp_path: Path) -> None:
    with FakeBridge() as fake:
        fake.handlers[5] = send_damaged
        assert download(fake, tmp_path / "out", "given") == "IntegrityError\n"
    assert os.listdir(tmp_path) == []


def test_part_file_of_another_download_is_not_used_without_locks(tmp_path: Path) -> None:
    part_path(tmp_path).write_bytes(DATA)
    with FakeBridge() as fake:
        assert download(fake, tmp_path / "out") == f"{len(DATA)}\n"
        assert sorted(fake.requested) == list(range(len(SHARDS)))
    assert sorted(os.listdir(tmp_path)) == [part_path(tmp_path).name, "out"]

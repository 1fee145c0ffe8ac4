"""The hash of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

import pymdc
from pymdc._crypto.file_hash import file_hash

EMPTY = "ba084d3f143f2896809d3f1d7dffed472b39d8de"  # as the bridge of 2016 has it


@pytest.mark.parametrize("size", [1, 1024 * 1024, 2 * 1024 * 1024 + 1])
def test_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(content)
    assert pymdc.file_hash(tmp_path / "file") == file_hash(content)


def test_hash_of_an_empty_file_is_that_of_2016(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert pymdc.file_hash(str(tmp_path / "empty")) == EMPTY


def test_missing_file_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pymdc.file_hash(tmp_path / "missing")

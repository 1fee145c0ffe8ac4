"""File names that somebody else chose: they leave no folder, and do nothing to a terminal."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from command_line import Verb
from terminal import Tty

from pymdc._cli import lookup
from pymdc.testing import TestBridge

NAMES = ["-rf", "\x1b[31mred", "\x9b31mred", "\u202egnp.exe", "$(reboot)", "a\tb", " ", "ü"]
LEAVING = ["../x", "/etc/x", "..", "a/b", ""]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def bridge(data: Path) -> Iterator[TestBridge]:
    with TestBridge(data) as running:
        yield running


@pytest.fixture
def put(photos: str, folder: Path, pymdc: Verb) -> list[Path]:
    """Put a file with each of the names."""
    for number, name in enumerate(NAMES):
        (folder / name).write_text(str(number))
    paths = [folder / name for name in NAMES]
    assert pymdc("put", *paths, "photos:").code == 0
    return paths


def rename(data: Path, old: str, new: str) -> None:
    """Give a file a name that the bridge itself would refuse."""
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection, connection:
        connection.execute("UPDATE files SET filename = ? WHERE filename = ?", (new, old))


def is_harmless(text: str) -> bool:
    """Say whether *text* has nothing but lines of what is shown."""
    return all(line.isprintable() for line in text.splitlines())


@pytest.mark.usefixtures("put")
def test_names_are_shown_with_escapes_and_fetched_as_they_are(
    folder: Path, data: Path, pymdc: Verb
) -> None:
    rename(data, "a\tb", "new\nline")
    long = pymdc("ls", "-l", "photos:").out
    assert is_harmless(long)
    assert len(long.splitlines()) == len(NAMES)
    assert is_harmless(pymdc("ls", "photos:").out)
    assert is_harmless(pymdc("info", "photos:*").out)
    assert is_harmless(pymdc("get", "-n", "photos:").out)
    assert is_harmless(pymdc("rm", "-n", "photos:*").out)
    assert pymdc("get", "photos:", "back/").code == 0
    names = [name.replace("a\tb", "new\nline") for name in NAMES]
    assert sorted(path.name for path in (folder / "back").iterdir()) == sorted(names)
    assert {record["filename"] for record in pymdc("ls", "--json", "photos:").records} == {*names}


def test_messages_show_escapes(
    photos: str, pymdc: Verb, tty: Tty, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    (folder / "\x1b[31mred").write_text("a")
    for arguments in (
        ["ls", "\x1b[31mno:"],
        ["cat", "photos:\x1b[31mno"],
        ["put", "\x1b[31mno", "photos:"],
        ["put", "\x1b[31mred", "photos:"],
        ["get", "photos:", "new/"],
        ["\x1b[31mno"],
        ["mb", "\x1b[31mno:a"],
    ):
        done = pymdc(*arguments, tty=tty)
        assert is_harmless(tty.read() + done.out), arguments


def test_names_that_leave_the_folder_are_not_written(
    put: list[Path], folder: Path, data: Path, pymdc: Verb
) -> None:
    for old, new in zip(NAMES, LEAVING, strict=False):
        rename(data, old, new)
    before = {*folder.parent.iterdir()}
    done = pymdc("get", "photos:", "back/")
    staying = len(NAMES) - len(LEAVING)
    assert (done.code, done.out) == (1, f"{staying} files, {staying} B\n")
    for name in LEAVING:
        assert f"{name!r} is no name of a file here" in done.err
    assert len([*(folder / "back").iterdir()]) == staying
    assert {*folder.parent.iterdir()} == before
    for refused in done.err.split("#")[1:]:
        assert pymdc("get", f"photos:#{refused.split()[0]}", "mine").code == 0
        assert (folder / "mine").read_text() in "01234"


@pytest.mark.usefixtures("put")
def test_long_lists_are_read_in_pages(pymdc: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pymdc("ls", "photos:").out
    for size in 1, 2, len(NAMES) - 1, len(NAMES), len(NAMES) + 1:
        monkeypatch.setattr(lookup, "PAGE", size)
        assert pymdc("ls", "photos:").out == whole


def test_pipe_is_put_as_a_file(photos: str, folder: Path, pymdc: Verb) -> None:
    os.mkfifo(folder / "pipe")
    writer = threading.Thread(target=(folder / "pipe").write_text, args=("from a program",))
    writer.start()
    assert pymdc("put", "pipe", "photos:out.txt").code == 0
    writer.join()
    assert pymdc("cat", "photos:out.txt").out == "from a program"

"""Files: put, get, ls, cat, rm, mv and info."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Program, Verb

from pymdc.testing import Account, TestBridge


@pytest.fixture
def two(photos: str, folder: Path, pymdc: Verb) -> None:
    """Put two files into the bucket photos."""
    (folder / "a.txt").write_text("a")
    (folder / "b.jpg").write_text("bb")
    done = pymdc("put", "a.txt", "b.jpg", "photos:")
    assert (done.code, done.out, done.err) == (0, "2 files, 3 B\n", "")


@pytest.mark.usefixtures("two")
def test_put_files_are_listed_printed_and_fetched(folder: Path, pymdc: Verb) -> None:
    assert sorted(pymdc("ls", "photos:").out.split()) == ["a.txt", "b.jpg"]
    assert pymdc("cat", "photos:b.jpg", "photos:a.txt").out == "bba"
    assert pymdc("get", "photos:b.jpg", "-").out == "bb"
    refused = pymdc("get", "photos:", "new")
    assert (refused.code, refused.err.splitlines()[1:]) == (2, ["  new/ makes the folder"])
    assert pymdc("get", "photos:", "new/").out == "2 files, 3 B\n"
    assert (folder / "new" / "a.txt").read_text() == "a"
    assert pymdc("get", "photos:a.txt", "c.txt").code == 0
    assert (folder / "c.txt").read_text() == "a"


@pytest.mark.usefixtures("two")
def test_long_list_has_size_type_name_and_hash(pymdc: Verb) -> None:
    line = next(line for line in pymdc("ls", "-l", "photos:").out.splitlines() if "b.jpg" in line)
    assert line.split()[:2] == ["2", "B"]
    assert line.split()[-3:-1] == ["image/jpeg", "b.jpg"]
    assert len(line.split()[-1]) == 40


@pytest.mark.usefixtures("two")
def test_pattern_names_the_files_that_match(folder: Path, pymdc: Verb) -> None:
    assert pymdc("ls", "photos:*.txt").out == "a.txt\n"
    assert pymdc("ls", "photos:", "--exclude", "*.txt").out == "b.jpg\n"
    assert pymdc("get", "photos:*.jpg", "only/").out == "1 file, 2 B\n"
    assert [path.name for path in (folder / "only").iterdir()] == ["b.jpg"]
    assert pymdc("rm", "photos:*", "--include", "*.txt", "-n").out == "would remove a.txt\n"
    assert pymdc("rm", "photos:*", "--include", "*.txt").code == 0
    assert pymdc("ls", "photos:").out == "b.jpg\n"
    nothing = pymdc("ls", "photos:*.gif")
    assert (nothing.code, nothing.err) == (3, "pymdc: nothing matches photos:*.gif\n")


@pytest.mark.usefixtures("two")
def test_file_that_is_there_already_is_not_fetched_again(folder: Path, pymdc: Verb) -> None:
    (folder / "a.txt").write_text("A")
    done = pymdc("get", "photos:", ".")
    assert (done.code, done.out) == (1, "1 file there already\n")
    assert done.err == "pymdc: ./a.txt is there and differs\n  -y replaces it\n"
    assert pymdc("get", "photos:", ".", "-y").code == 0
    assert (folder / "a.txt").read_text() == "a"


@pytest.mark.usefixtures("two")
def test_typed_name_replaces_the_file_here(folder: Path, pymdc: Verb) -> None:
    (folder / "a.txt").write_text("A")
    assert pymdc("get", "photos:a.txt").code == 0
    assert (folder / "a.txt").read_text() == "a"


@pytest.mark.usefixtures("two")
def test_name_of_two_files_lists_their_hashes(folder: Path, pymdc: Verb) -> None:
    (folder / "a.txt").write_text("other")
    told = pymdc("put", "a.txt", "photos:")
    assert told.code == 0
    assert told.err.startswith("photos:a.txt is there 2 times now; --replace keeps one:\n")
    refused = pymdc("cat", "photos:a.txt")
    assert refused.code == 1
    message, *lines = refused.err.splitlines()
    assert message == "pymdc: 2 files are photos:a.txt; type the hash of one instead"
    typed = [line.split()[0] for line in lines]
    assert {pymdc("cat", address).out for address in typed} == {"a", "other"}
    assert {pymdc("cat", address[:15]).out for address in typed} == {"a", "other"}
    clash = pymdc("get", "photos:a*", "new/")
    assert (clash.code, clash.out) == (1, "1 file, 1 B\n")
    assert "is the name of another file too" in clash.err
    assert pymdc("put", "--replace", "a.txt", "photos:").err == ""
    assert pymdc("cat", "photos:a.txt").out == "other"


def test_file_whose_twins_cannot_be_looked_for_counts_as_sent(
    photos: str, folder: Path, bridge: TestBridge, pymdc: Verb
) -> None:
    (folder / "a.txt").write_text("a")
    bridge.fail(403, route="GET /buckets/{id}/files")
    done = pymdc("put", "a.txt", "photos:")
    assert (done.code, done.out) == (1, "1 file, 1 B\n")
    assert done.err == "pymdc: a.txt: the bridge refused: Failed by bridge.fail(403)\n"


@pytest.mark.usefixtures("two")
def test_every_verb_prints_records(folder: Path, pymdc: Verb) -> None:
    (entry,) = pymdc("--json", "ls", "photos:a.txt").records
    assert entry["filename"] == "a.txt"
    assert pymdc("ls", "--json", "photos:a.txt").records == [entry]
    assert pymdc("put", "--json", "a.txt", "photos:").records[0]["hash"] == entry["hash"]
    (got,) = pymdc("get", "--json", "photos:a.txt", "c").records
    assert (got["path"], got["fetched"], got["hash"]) == ("c", True, entry["hash"])
    again = pymdc("ls", "--json", "photos:a.txt").records  # the second upload has its own time
    assert pymdc("info", "--json", "photos:a.txt").records == again
    (removed,) = pymdc("rm", "--json", "photos:a.txt").records
    assert (removed["removed"], removed["filename"]) == (True, "a.txt")
    missing = pymdc("rm", "--json", "photos:a.txt")
    assert (missing.code, missing.out) == (3, "")
    assert missing.err == '{"error": "there is no file photos:a.txt", "code": 3}\n'


def test_stdin_is_put(photos: str, pymdc: Verb, program: Program) -> None:
    done = pymdc("put", "-", "photos:d.tar", stdin=b"\xff" * 100_000)
    assert done == (0, "1 file, 100 KB\n", "")
    assert program("cat", "photos:d.tar").stdout == b"\xff" * 100_000
    unnamed = pymdc("put", "-", "photos:")
    assert unnamed == (2, "", "pymdc: stdin has no name; expected photos:NAME\n")


@pytest.mark.usefixtures("two")
def test_file_and_bucket_are_renamed(pymdc: Verb) -> None:
    assert pymdc("mv", "-n", "photos:a.txt", "photos:c.txt").out == "would rename a.txt to c.txt\n"
    assert pymdc("mv", "photos:a.txt", "photos:c.txt").code == 0
    assert sorted(pymdc("ls", "photos:").out.split()) == ["b.jpg", "c.txt"]
    assert pymdc("mv", "photos:", "holiday:").code == 0
    assert pymdc("ls").out == "holiday:\n"
    assert pymdc("mv", "holiday:nothing", "holiday:new").code == 3


def test_folder_is_sent_by_sync(photos: str, folder: Path, pymdc: Verb) -> None:
    (folder / "docs").mkdir()
    done = pymdc("put", "docs", "photos:")
    assert done.code == 2
    assert done.err.startswith("pymdc: docs: it is a folder\n  pymdc sync docs photos:")
    (folder / "a").write_text("a")
    others = pymdc("put", "docs", "a", "photos:")
    assert (others.code, others.out) == (1, "1 file, 1 B; 1 not sent\n")


def test_missing_file_is_named(signed_in: Account, photos: str, folder: Path, pymdc: Verb) -> None:
    done = pymdc("put", "nothing.jpg", "photos:")
    assert (done.code, done.err) == (3, "pymdc: nothing.jpg: No such file or directory\n")
    (folder / "a").write_text("a")
    assert pymdc("put", "nothing.jpg", "a", "photos:").code == 1
    assert pymdc("put", "nothing.jpg", "nobucket:").code == 3

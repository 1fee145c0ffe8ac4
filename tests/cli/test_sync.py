"""sync: a folder and a bucket are made equal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import Verb
from processes import ROOT
from syncing import OLD, content, write
from terminal import Tty


@pytest.fixture
def docs(photos: str, folder: Path) -> Path:
    """Give a folder with twins, to sync with the bucket photos."""
    write(folder / "docs", {"a.txt": "same", "b.txt": "same", "deep/c.txt": "other"})
    return folder / "docs"


def test_dry_run_says_what_would_be_done(docs: Path, pymdc: Verb) -> None:
    (docs / "deep" / "c.txt").unlink()
    done = pymdc("sync", "-n", "docs", "photos:")
    assert done == (0, "+ a.txt\n= b.txt (same content as a.txt)\n2 to send, 0 to remove\n", "")
    assert pymdc("ls", "photos:").out == ""


def test_folder_comes_back_as_it_was(docs: Path, folder: Path, pymdc: Verb) -> None:
    (docs / "empty").mkdir()
    (docs / "nothing").touch()
    (docs / "a.txt").chmod(0o640)
    done = pymdc("sync", "docs", "photos:")
    assert done == (0, "4 sent, 0 unchanged, 0 removed, 9 B\n", "")
    assert pymdc("sync", "docs", "photos:").out == "0 sent, 4 unchanged, 0 removed, 0 B\n"
    done = pymdc("sync", "photos:", "back")
    assert done == (0, "4 fetched, 0 unchanged, 0 removed, 9 B\n", "")
    assert content(folder / "back") == content(docs)
    status = (folder / "back" / "a.txt").stat()
    assert (status.st_mtime, status.st_mode & 0o777) == (OLD, 0o640)
    assert (folder / "back" / "empty").is_dir()
    assert not (folder / "back" / ".pymdc-sync").exists()
    assert pymdc("sync", "photos:", "back").out == "0 fetched, 4 unchanged, 0 removed, 0 B\n"


def test_json_has_a_line_for_each_file_and_one_for_the_whole(docs: Path, pymdc: Verb) -> None:
    records = pymdc("sync", "--json", "docs", "photos:").records
    told = {it["path"]: it["action"] for it in records[:-1]}
    assert told == {"a.txt": "send", "b.txt": "copy", "deep/c.txt": "send"}
    assert all(it["done"] and len(it["hash"]) == 40 for it in records[:-1])
    assert records[-1] == {"sent": 3, "unchanged": 0, "removed": 0, "bytes": 9, "done": True}
    records = pymdc("sync", "--json", "-n", "photos:", "back").records
    assert records[-1] == {"fetched": 3, "unchanged": 0, "removed": 0, "bytes": 0, "done": False}


def test_changed_file_is_noticed_by_size_or_time_or_if_wished_by_content(
    docs: Path, pymdc: Verb
) -> None:
    assert pymdc("sync", "docs", "photos:").code == 0
    write(docs, {"a.txt": "SAME"})
    assert pymdc("sync", "docs", "photos:").out.startswith("0 sent, 3 unchanged")
    assert pymdc("sync", "-n", "--checksum", "docs", "photos:").out.startswith("~ a.txt\n1 to")
    (docs / "a.txt").write_text("SAME")
    assert pymdc("sync", "docs", "photos:").out.startswith("1 sent, 2 unchanged")
    (docs / "a.txt").touch()
    assert pymdc("sync", "docs", "photos:").out.startswith("0 sent, 3 unchanged")


def test_file_written_twice_within_a_tick_of_the_clock_is_noticed(docs: Path, pymdc: Verb) -> None:
    (docs / "a.txt").write_text("1")
    status = (docs / "a.txt").stat()
    assert pymdc("sync", "docs", "photos:").code == 0
    (docs / "a.txt").write_text("2")
    os.utime(docs / "a.txt", ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert pymdc("sync", "docs", "photos:").out.startswith("1 sent")


def test_without_delete_nothing_is_removed_and_older_versions_are_told(
    docs: Path, folder: Path, pymdc: Verb
) -> None:
    assert pymdc("sync", "docs", "photos:").code == 0
    (docs / "a.txt").write_text("changed")
    (docs / "deep" / "c.txt").unlink()
    (docs / "b.txt").unlink()
    done = pymdc("sync", "docs", "photos:")
    assert done.out == "1 sent, 0 unchanged, 0 removed, 7 B\n"
    assert done.err == ""
    (docs / "a.txt").write_text("again")
    note = "an older version is kept in the bucket; --delete removes what is not needed\n"
    assert pymdc("sync", "docs", "photos:").err == note
    assert pymdc("sync", "photos:", "back").code == 0
    assert content(folder / "back") == {"a.txt": "again", "b.txt": "same", "deep/c.txt": "other"}


def test_delete_is_refused_unasked(docs: Path, folder: Path, pymdc: Verb) -> None:
    assert pymdc("sync", "docs", "photos:").code == 0
    (docs / "deep" / "c.txt").unlink()
    (docs / "deep").rmdir()
    assert pymdc("sync", "-n", "--delete", "docs", "photos:").out == (
        "- deep/c.txt\n0 to send, 1 to remove\n"
    )
    done = pymdc("sync", "--delete", "docs", "photos:")
    assert (done.code, done.out) == (1, "")
    assert "- deep/c.txt" in done.err
    assert "Remove 1 file, 5 B, from photos:" in done.err
    assert pymdc("sync", "photos:", "back").out.startswith("3 fetched")
    assert pymdc("sync", "--delete", "-y", "docs", "photos:").out == (
        "0 sent, 2 unchanged, 1 removed, 0 B\n"
    )
    done = pymdc("sync", "--delete", "photos:", "back")
    assert done.code == 1
    assert "Remove 1 file, 5 B, from back" in done.err
    assert len(content(folder / "back")) == 3
    assert pymdc("sync", "--delete", "-y", "photos:", "back").code == 0
    assert content(folder / "back") == content(docs)
    assert not (folder / "back" / "deep").exists()


def test_empty_source_empties_nothing_without_y(docs: Path, folder: Path, pymdc: Verb) -> None:
    assert pymdc("sync", "docs", "photos:").code == 0
    (folder / "unmounted").mkdir()
    done = pymdc("sync", "--delete", "unmounted", "photos:")
    message = "unmounted is empty, and --delete would empty photos: (3 files, 13 B)"
    assert (done.code, done.err) == (1, f"pymdc: {message}\n  if that is right, -y\n")
    missing = pymdc("sync", "--delete", "-y", "missing", "photos:")
    assert (missing.code, missing.err) == (3, "pymdc: missing: No such file or directory\n")
    assert pymdc("mb", "empty").code == 0
    done = pymdc("sync", "--delete", "empty:", "docs")
    assert "empty: is empty, and --delete would empty docs" in done.err
    assert len(content(docs)) == 3
    assert pymdc("sync", "--delete", "-y", "unmounted", "photos:").out.endswith("3 removed, 0 B\n")


def test_files_of_no_sync_are_neither_fetched_nor_removed(
    docs: Path, folder: Path, pymdc: Verb
) -> None:
    assert pymdc("sync", "docs", "photos:").code == 0
    write(folder, {"by hand.txt": "by hand"})
    assert pymdc("put", "by hand.txt", "photos:").code == 0
    (docs / "deep" / "c.txt").unlink()
    assert pymdc("sync", "docs", "photos:", "--delete", "-y").out.endswith("1 removed, 0 B\n")
    assert pymdc("cat", "photos:by hand.txt").out == "by hand"
    done = pymdc("sync", "photos:", "back")
    assert done.out.startswith("2 fetched")
    write(docs, {"by hand.txt": "by hand"})
    planned = pymdc("sync", "-n", "docs", "photos:").out
    assert "= by hand.txt (same content as a file in the bucket)\n" in planned
    assert done.err == "1 file in the bucket is of no sync, and not fetched; see pymdc ls\n"


def test_bucket_that_nothing_was_synced_to_is_fetched_by_its_names(
    photos: str, folder: Path, pymdc: Verb
) -> None:
    write(folder, {"a": "1", "b": "2", "c": "3"})
    assert pymdc("put", "a", "b", "photos:").code == 0
    assert pymdc("put", "c", "photos:a").code == 0
    done = pymdc("sync", "photos:", "back")
    assert done.err == "a: several files have this name, and the newest is fetched\n"
    assert content(folder / "back") == {"a": "3", "b": "2"}
    assert pymdc("sync", "photos:", "back").out.startswith("0 fetched, 2 unchanged")


def test_folder_in_the_bucket_is_a_part_of_it(docs: Path, folder: Path, pymdc: Verb) -> None:
    assert pymdc("sync", "docs", "photos:backup/docs").code == 0
    assert pymdc("sync", "docs/deep", "photos:/other/").code == 0
    assert pymdc("sync", "photos:backup/docs/deep", "one").code == 0
    assert content(folder / "one") == {"c.txt": "other"}
    assert pymdc("sync", "photos:", "all").out.startswith("4 fetched")
    assert content(folder / "all" / "backup" / "docs") == content(docs)
    (folder / "nothing").mkdir()
    assert pymdc("sync", "nothing", "photos:other", "--delete", "-y").code == 0
    assert pymdc("sync", "photos:", "all").out.startswith("0 fetched, 3 unchanged")
    done = pymdc("sync", "photos:missing", "all")
    assert (done.code, done.err) == (3, "pymdc: there is nothing in photos:missing\n")


def test_filters_choose_what_takes_part(docs: Path, folder: Path, pymdc: Verb) -> None:
    write(docs, {"build/x.o": "x", "deep/build/y.o": "y", "deep/d.md": "d"})
    done = pymdc("sync", "-n", "docs", "photos:", "--exclude", "build")
    assert "x.o" not in done.out
    assert "y.o" not in done.out
    done = pymdc("sync", "docs", "photos:", "--include", "*.txt", "--include", "deep")
    assert done.out.startswith("5 sent")
    done = pymdc("sync", "docs", "photos:", "--exclude", "*.txt", "--delete", "-y")
    assert done.out.startswith("1 sent, 2 unchanged, 0 removed")
    done = pymdc("sync", "photos:", "back", "--exclude", "*.o", "--exclude", "c.*")
    assert content(folder / "back") == {"a.txt": "same", "b.txt": "same", "deep/d.md": "d"}


@pytest.mark.parametrize("arguments", [("a", "b"), ("photos:", "other:"), ("a", "photos:../b")])
def test_other_addresses_are_refused(photos: str, pymdc: Verb, arguments: tuple[str, ...]) -> None:
    done = pymdc("sync", *arguments)
    assert done.code == 2
    assert "expected" in done.err


def test_manifest_is_hidden_from_other_verbs(docs: Path, pymdc: Verb) -> None:
    assert pymdc("sync", "docs", "photos:").code == 0
    assert sorted(pymdc("ls", "photos:").out.split()) == ["a.txt", "c.txt"]
    assert sorted(pymdc("ls", "-a", "photos:").out.split()) == [".pymdc-sync", "a.txt", "c.txt"]
    assert pymdc("get", "photos:", "all/").out == "2 files, 9 B\n"
    assert pymdc("rm", "photos:*").code == 0
    assert pymdc("ls", "-a", "photos:").out == ".pymdc-sync\n"
    assert pymdc("sync", "docs", "photos:").out.startswith("3 sent")


def test_first_lesson_of_the_page_is_true(photos: str, folder: Path, pymdc: Verb) -> None:
    page = (ROOT / "docs" / "sync.rst").read_text(encoding="utf-8")
    lesson = page.partition("code-block:: console\n\n")[2].partition("\n\n")[0]
    write(folder / "docs", {"a.txt": "same", "b.txt": "same"})
    for command in lesson.removeprefix("    $ ").split("\n    $ "):
        line, _, printed = command.partition("\n")
        assert pymdc(*line.split()[1:]).out == printed.replace("    ", "").rstrip() + "\n"


def test_moved_file_is_not_sent_again_and_gets_its_new_name(docs: Path, pymdc: Verb) -> None:
    assert pymdc("sync", "docs", "photos:").code == 0
    (docs / "deep" / "c.txt").rename(docs / "moved.txt")
    done = pymdc("sync", "docs", "photos:", "--delete", "-y")
    assert done.out == "1 sent, 2 unchanged, 1 removed, 0 B\n"
    assert sorted(pymdc("ls", "photos:").out.split()) == ["a.txt", "moved.txt"]


def test_terminal_shows_progress_and_is_asked_before_files_are_removed(
    docs: Path, pymdc: Verb, tty: Tty
) -> None:
    assert pymdc("sync", "docs", "photos:", tty=tty).out == "3 sent, 0 unchanged, 0 removed, 9 B\n"
    assert "100 % 5 B" in tty.read()
    (docs / "a.txt").unlink()
    (docs / "b.txt").unlink()
    tty.type("n")
    assert pymdc("sync", "docs", "photos:", "--delete", tty=tty).code == 1
    shown = tty.read()
    assert "- a.txt\n- b.txt\nRemove 2 files, 8 B, from photos:? [y/N]: " in shown
    assert "pymdc: nothing was changed" in shown
    tty.type("y")
    done = pymdc("sync", "docs", "photos:", "--delete", tty=tty)
    assert done.out == "0 sent, 1 unchanged, 2 removed, 0 B\n"

"""sync: what is peculiar about files on this machine."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Verb
from filesystems import as_other_user, world_writable_folder
from syncing import Forks, SteppingProxy, content, forks, write

from pymdc._cli.failures import Failure
from pymdc._cli.sync.manifest import NAME
from pymdc._cli.sync.place import Folder
from pymdc._cli.sync.scan import Filter, Scan, scan
from pymdc._cli.sync.tree import Entry
from pymdc.bridge import Bridge


@pytest.fixture
def forked(signed_in: object, tmp_path: Path) -> Iterator[Forks]:
    with forks(tmp_path / "errors") as running:
        yield running


def test_links_and_special_files_are_told_and_left_alone(
    photos: str, folder: Path, pymdc: Verb
) -> None:
    write(folder / "docs", {"a": "a", "deep/b": "b"})
    (folder / "docs" / "link").symlink_to("a")
    (folder / "docs" / "up").symlink_to("..")
    os.mkfifo(folder / "docs" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("docs/socket")
    done = pymdc("sync", "docs", "photos:")
    assert (done.code, done.out[:6]) == (0, "2 sent")
    assert done.err.splitlines() == [
        "link: a symbolic link, which is not followed",
        "pipe: no regular file",
        "socket: no regular file",
        "up: a symbolic link, which is not followed",
    ]
    assert pymdc("sync", "photos:", "docs", "--delete", "-y").code == 0
    assert len(os.listdir("docs")) == 6


def test_names_of_all_kinds_come_back(photos: str, folder: Path, pymdc: Verb) -> None:
    names = [b"\xff\xfe", b"new\nline", b"back\\slash", b'"', b"\xc3\xa9", b"e\xcc\x81", b" "]
    names += [b"-n", b".hidden", b"A", b"a", b"\xfd/" + NAME.encode(), b"x" * 255]
    for number, name in enumerate(names):
        path = os.path.join(b"docs", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_text(str(number))
    done = pymdc("sync", "docs", "photos:")
    assert (done.code, done.err) == (0, "")
    assert pymdc("sync", "photos:", "back").code == 0
    assert content(folder / "back") == content(folder / "docs")
    assert sorted(os.listdir(b"back")) == sorted(os.listdir(b"docs"))
    assert "pymdc-sync" in pymdc("ls", "photos:").out.splitlines()


def test_what_cannot_be_read_is_told_and_then_nothing_is_removed(
    photos: str, folder: Path, pymdc: Verb
) -> None:
    with world_writable_folder() as root:
        write(root, {"open/a": "a", "closed/b": "b"})
        (root / "closed").chmod(0o700)
        found = as_other_user(lambda: scan(str(root), Filter()))
        assert [*found.files] == ["open/a"]
        assert [it.message for it in found.failures] == [f"{root}/closed: Permission denied"]


def test_files_that_could_not_be_read_stay_in_the_bucket(
    photos: str, folder: Path, bridge: Bridge, pymdc: Verb, forked: Forks
) -> None:
    """While the first file is sent, another one is removed."""
    write(folder / "docs", {"a": "1", "b": "22", "gone": "gone"})
    assert pymdc("sync", "docs", "photos:").code == 0
    write(folder / "docs", {"a": "333", "b": "4444"})
    (folder / "docs" / "gone").unlink()

    def hook(change: int, when: str) -> None:
        if (change, when) == (0, "before"):
            (folder / "docs" / "a").write_text("changed")
            (folder / "docs" / "b").unlink(missing_ok=True)

    with SteppingProxy(bridge, hook) as proxy:
        command = ["sync", "docs", "photos:", "--jobs", "1", "--delete", "-y"]
        assert forked.run(proxy.endpoint, *command) == 1
    errors = (folder.parent / "errors").read_text()
    assert "a changed while it was read" in errors
    assert "b: No such file or directory" in errors
    assert forked.printed == ["0 sent, 0 unchanged, 0 removed, 0 B; 2 failed\n"]
    assert pymdc("sync", "photos:", "back").code == 0
    assert content(folder / "back") == {"a": "1", "b": "22", "gone": "gone"}


def test_fetch_killed_at_any_file_leaves_none_half_written(
    photos: str, folder: Path, bridge: Bridge, pymdc: Verb, forked: Forks
) -> None:
    old = {"a": "old", "b": "old as well", "c": "old too", "same": "same"}
    new = {"a": "new a", "b": "new b!", "c": "the new c", "deep/d": "new d", "same": "same"}
    write(folder / "new", new)
    assert pymdc("sync", "new", "photos:").code == 0
    for number in itertools.count():
        shutil.rmtree(folder / "here", ignore_errors=True)
        write(folder / "here", old)

        def hook(change: int, when: str, at: int = number) -> None:
            if (change, when) == (at, "after"):
                forked.kill()

        with SteppingProxy(bridge, hook, watched=("POST",)) as proxy:
            code = forked.run(proxy.endpoint, "sync", "photos:", "here", "--jobs", "2")
        if code == 0:
            break
        assert code == -signal.SIGKILL
        for path, text in content(folder / "here").items():
            if not path.startswith(f"{NAME}/"):
                assert text in (old.get(path), new[path])
        assert pymdc("sync", "photos:", "here").code == 0
        assert content(folder / "here") == new
    assert number == 5  # the manifest, and four files


def test_other_spelling_of_a_name_that_is_there_is_refused(tmp_path: Path) -> None:
    """Where A and a are one file, the second is not in what was found, and yet it is there."""
    write(tmp_path, {"a": "a", "deep/b": "b"})
    folder = Folder(Scan(str(tmp_path)))
    for path in ("a", "deep/b", "deep/c"):
        with pytest.raises(Failure, match="is here already under another spelling"):
            folder.check(path)


def test_private_file_is_never_readable_for_others(photos: str, folder: Path, pymdc: Verb) -> None:
    write(folder / "docs", {"secret": "secret"})
    (folder / "docs" / "secret").chmod(0o600)
    assert pymdc("sync", "docs", "photos:").code == 0
    found = Scan(str(folder / "docs"))
    staged = Path(Folder(found).staged("x"))
    assert staged.parent.stat().st_mode & 0o777 == 0o700
    assert pymdc("sync", "photos:", "back").code == 0
    assert (folder / "back" / "secret").stat().st_mode & 0o777 == 0o600


def test_file_is_moved_whole_to_another_file_system(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    root = tmp_path / "root"
    root.mkdir()
    other = shared / f"pymdc-{os.getpid()}"
    other.mkdir()
    try:
        found = Scan(str(root), folders={"mount"})
        # A mount would need root; to this folder, a link to it is the same.
        found.path = lambda path: str(other / path)  # type: ignore[method-assign]  # as said
        folder = Folder(found)
        staged = Path(folder.staged("x"))
        staged.write_text("x")
        folder.place(str(staged), "a", Entry("x", 1, 1_500_000_000_000_000_000, 0o640))
        assert content(other) == {"a": "x"}
        assert ((other / "a").stat().st_mtime, (other / "a").stat().st_mode & 0o777) == (
            1_500_000_000,
            0o640,
        )
        assert not staged.exists()
    finally:
        for path in other.iterdir():
            path.unlink()
        other.rmdir()


def test_bridge_that_goes_away_ends_the_sync_and_the_next_one_goes_on(
    photos: str, folder: Path, bridge: Bridge, pymdc: Verb, forked: Forks
) -> None:
    write(folder / "docs", {str(number): f"text {number}" for number in range(12)})

    def hook(change: int, when: str) -> None:
        if change >= 3:
            raise ConnectionError

    with SteppingProxy(bridge, hook) as proxy:
        assert forked.run(proxy.endpoint, "sync", "docs", "photos:", "--jobs", "2") == 5
        assert len(proxy.changes) < 12
    errors = (folder.parent / "errors").read_text()
    assert "pymdc: not all files were sent\n  run the same command again" in errors
    assert pymdc("sync", "docs", "photos:").out.startswith("12 sent, 0 unchanged")

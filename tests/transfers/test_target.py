"""The part file of a download: locks, owners, modes and access control lists."""

from __future__ import annotations

import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_bridge import DATA, HASH, SHARD, SHARDS, FakeBridge, download, part_path, send_damaged
from filesystems import OTHER_USER, as_other_user, without_flock, world_writable_folder
from modes import PATIENCE, Ask
from processes import MINUTE, SUPPORT
from websockets.sync.server import ServerConnection

from pymdc import exceptions

ERRORS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
DAY = 24 * 60 * 60


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error])
def test_download_works_without_file_locks(ask: Ask, tmp_path: Path, error: int) -> None:
    with FakeBridge() as fake:
        value = without_flock(error, lambda: download(ask, fake, tmp_path / "out"))
    assert value["size"] == len(DATA)
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: errno.errorcode[error])
def test_failed_download_leaves_nothing_without_file_locks(
    ask: Ask, tmp_path: Path, error: int
) -> None:
    with FakeBridge() as fake:
        fake.handlers[5] = send_damaged
        value = without_flock(error, lambda: download(ask, fake, tmp_path / "out", "given"))
    assert type(value) is exceptions.IntegrityError
    assert os.listdir(tmp_path) == []


def test_two_simultaneous_downloads_are_both_complete_without_file_locks(
    ask: Ask, tmp_path: Path
) -> None:
    def both() -> list[Any]:
        reached, go_on, got = threading.Event(), threading.Event(), list[Any]()

        def hold(connection: ServerConnection) -> None:
            reached.set()
            go_on.wait(PATIENCE)
            connection.send(SHARDS[0])

        fake.handlers[0] = hold
        target = tmp_path / "out"
        first = threading.Thread(target=lambda: got.append(download(ask, fake, target)))
        first.start()
        assert reached.wait(PATIENCE)
        got.append(download(ask, fake, target))
        go_on.set()
        first.join(PATIENCE)
        return got

    with FakeBridge() as fake:
        got = without_flock(errno.ENOLCK, both)
    assert [value["size"] for value in got] == [len(DATA)] * 2
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]


def test_part_files_older_than_a_day_are_removed_without_file_locks(
    ask: Ask, tmp_path: Path
) -> None:
    names = [f".pymdc-{HASH}.part", f".pymdc-{HASH}-{'0' * 16}.part", f".pymdc-{HASH}-1.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"left")
    for name in names[:2]:
        before = os.stat(tmp_path / name).st_mtime - DAY
        os.utime(tmp_path / name, (before, before))
    with FakeBridge() as fake:
        without_flock(errno.ENOSYS, lambda: download(ask, fake, tmp_path / "out"))
    assert sorted(os.listdir(tmp_path)) == [names[2], "out"]


def test_download_resumes_where_new_files_belong_to_another_user(ask: Ask) -> None:
    with FakeBridge() as fake, world_writable_folder() as folder:
        target = folder / "out"
        fake.handlers[5] = send_damaged
        value = as_other_user(lambda: download(ask, fake, target, "given"))
        assert type(value) is exceptions.IntegrityError
        assert os.listdir(folder) == [part_path(folder).name]
        assert part_path(folder).stat().st_uid == OTHER_USER
        pulled = len(fake.requested)
        value = as_other_user(lambda: download(ask, fake, target))
        assert value["size"] == len(DATA)
        assert target.read_bytes() == DATA
        assert len(fake.requested) - pulled < len(SHARDS)
        assert os.listdir(folder) == ["out"]


def test_part_file_of_another_user_is_left_alone(ask: Ask) -> None:
    if os.geteuid():
        pytest.skip("to make a file of another user takes root")
    with FakeBridge() as fake, world_writable_folder() as folder:
        part_path(folder).write_bytes(b"planted")
        os.chown(part_path(folder), OTHER_USER, -1)
        assert download(ask, fake, folder / "out")["size"] == len(DATA)
        assert (folder / "out").stat().st_uid == os.geteuid()
        assert part_path(folder).read_bytes() == b"planted"


CANCELLED = """
import errno, pymdc, sys
from filesystems import refuse_flock

refuse_flock(errno.ENOSYS)
client = pymdc.Client(sys.argv[1])
pymdc.api.Files("b", pymdc.ECDSA(), client=client).download(sys.argv[2], to=sys.argv[3])
"""


@contextmanager
def hold_shard(fake: FakeBridge, number: int) -> Iterator[threading.Event]:
    """Hold the request for the shard *number*; give the event that it sets."""
    reached, go_on = threading.Event(), threading.Event()

    def hold(connection: ServerConnection) -> None:
        reached.set()
        go_on.wait(PATIENCE)

    fake.handlers[number] = hold
    yield reached
    go_on.set()


def test_ctrl_c_leaves_nothing_without_file_locks(tmp_path: Path) -> None:
    with FakeBridge() as fake, hold_shard(fake, 6) as reached:
        command = [sys.executable, "-c", CANCELLED, fake.endpoint, HASH, str(tmp_path / "out")]
        path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path}
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            assert reached.wait(PATIENCE)
            process.send_signal(signal.SIGINT)
            assert b"KeyboardInterrupt" in process.communicate(timeout=MINUTE)[1]
    assert os.listdir(tmp_path) == []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def part_file_modes(folder: Path, target: Path, ask: Ask, fake: FakeBridge) -> list[int]:
    """Download *target* and return the modes that the part files had meanwhile."""
    seen: list[int] = []

    def look(connection: ServerConnection) -> None:
        seen.extend(mode(path) for path in folder.iterdir() if path.name.endswith(".part"))
        connection.send(SHARDS[5])

    fake.handlers[5] = look
    assert download(ask, fake, target)["size"] == len(DATA)
    return seen


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("given", [0o600, 0o640, 0o644, 0o400, 0o755], ids=oct)
def test_part_file_is_private_and_gets_the_mode_of_its_target(
    ask: Ask, tmp_path: Path, given: int
) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(given)
    with FakeBridge() as fake:
        assert part_file_modes(tmp_path, target, ask, fake) == [0o600]
    assert mode(target) == given


def test_new_target_has_the_mode_of_any_new_file(ask: Ask, tmp_path: Path, umask: int) -> None:
    with FakeBridge() as fake:
        assert part_file_modes(tmp_path, tmp_path / "out", ask, fake) == [0o600]
    (tmp_path / "other").write_bytes(b"")
    assert mode(tmp_path / "out") == mode(tmp_path / "other") == 0o666 & ~umask


def test_readable_part_file_is_made_private_before_use(ask: Ask, tmp_path: Path) -> None:
    part_path(tmp_path).write_bytes(DATA[: 2 * SHARD])
    part_path(tmp_path).chmod(0o644)
    with FakeBridge() as fake:
        assert part_file_modes(tmp_path, tmp_path / "out", ask, fake) == [0o600]
        assert 0 not in fake.requested


def test_second_part_file_is_private(ask: Ask, tmp_path: Path) -> None:
    part_path(tmp_path).mkdir()
    with FakeBridge() as fake:
        seen = part_file_modes(tmp_path, tmp_path / "out", ask, fake)
    assert sorted(seen) == [0o600, mode(part_path(tmp_path))]


@pytest.mark.parametrize("given", [0o640, 0o664, 0o604], ids=oct)
def test_target_keeps_its_owner_and_group(ask: Ask, tmp_path: Path, given: int) -> None:
    if os.geteuid():
        pytest.skip("to make a file of another user takes root")
    target = tmp_path / "out"
    target.write_bytes(b"old")
    os.chown(target, OTHER_USER, OTHER_USER + 1)
    target.chmod(given)
    with FakeBridge() as fake:
        download(ask, fake, target)
    assert (target.stat().st_uid, target.stat().st_gid) == (OTHER_USER, OTHER_USER + 1)
    assert mode(target) == given


@pytest.mark.parametrize(("given", "kept"), [(0o640, 0o600), (0o644, 0o644), (0o660, 0o600)])
def test_target_whose_group_cannot_be_kept_gives_its_group_the_rights_of_others(
    ask: Ask, given: int, kept: int
) -> None:
    with FakeBridge() as fake, world_writable_folder() as folder:
        target = folder / "out"
        target.write_bytes(b"old")
        target.chmod(given)
        if os.geteuid() == 0:
            os.chown(target, OTHER_USER, OTHER_USER + 1)
        value = as_other_user(lambda: download(ask, fake, target))
        assert value["size"] == len(DATA)
        assert target.stat().st_uid == OTHER_USER
        assert target.stat().st_gid != OTHER_USER + 1
        assert mode(target) == kept


ACCESS, FOR_NEW = "system.posix_acl_access", "system.posix_acl_default"


def control_list(somebody: int) -> bytes:
    """Return an access control list that lets the user *somebody* read, and no group."""
    nobody = 0xFFFFFFFF
    owner, user, group, mask, others = (1, 6, nobody), (2, 4, somebody), (4, 0, nobody), 16, 32
    entries = [owner, user, group, (mask, 4, nobody), (others, 0, nobody)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def set_list(path: Path, name: str) -> None:
    try:
        os.setxattr(path, name, control_list(OTHER_USER))
    except OSError:
        pytest.skip("there are no access control lists here")


def test_target_keeps_its_access_control_list(ask: Ask, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    set_list(target, ACCESS)
    with FakeBridge() as fake:
        assert part_file_modes(tmp_path, target, ask, fake) == [0o600]
    assert os.getxattr(target, ACCESS) == control_list(OTHER_USER)


def test_target_without_access_control_list_gets_none_from_its_folder(
    ask: Ask, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    target.chmod(0o640)
    set_list(tmp_path, FOR_NEW)
    with FakeBridge() as fake:
        assert part_file_modes(tmp_path, target, ask, fake) == [0o600]
    assert os.listxattr(target) == []
    assert mode(target) == 0o640


def test_new_target_gets_the_access_control_list_of_its_folder(ask: Ask, tmp_path: Path) -> None:
    set_list(tmp_path, FOR_NEW)
    with FakeBridge() as fake:
        assert part_file_modes(tmp_path, tmp_path / "out", ask, fake) == [0o600]
    (tmp_path / "other").write_bytes(b"")
    lists = [os.getxattr(tmp_path / name, ACCESS) for name in ("out", "other")]
    assert lists[0] == lists[1]

"""Downloads: shards are fetched in parallel, and downloads resume from a part file."""

from __future__ import annotations

import io
import os
import signal
import ssl
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import channels
import pytest
from fake_bridge import (
    DATA,
    HASH,
    SHARD,
    SHARDS,
    FakeBridge,
    ShardHandler,
    download,
    drop,
    part_path,
    refuse,
    send_damaged,
)
from modes import PATIENCE, Ask
from processes import MINUTE
from servers import written
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import exceptions

ALL = list(range(len(SHARDS)))


def test_shards_are_fetched_in_parallel(ask: Ask, tmp_path: Path) -> None:
    four = threading.Barrier(4)

    def meet(number: int) -> ShardHandler:
        def handle(connection: ServerConnection) -> None:
            four.wait(PATIENCE)
            connection.send(SHARDS[number])

        return handle

    with FakeBridge() as fake:
        fake.handlers = {number: meet(number) for number in range(8)}
        value = download(ask, fake, tmp_path / "out")
    assert value == {"bucket": "b", "hash": HASH, "size": len(DATA), "path": str(tmp_path / "out")}
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(fake.requested) == ALL
    assert fake.most_at_once == 4


@pytest.mark.parametrize("fields", [("size",), ("operation",)], ids=["sizes", "no sizes"])
def test_shards_of_single_channel_are_fetched_in_order(
    ask: Ask, tmp_path: Path, fields: Any
) -> None:
    with FakeBridge(*fields) as fake:
        value = download(ask, fake, tmp_path / "out", channels=1)
    assert value["size"] == len(DATA)
    assert (tmp_path / "out").read_bytes() == DATA
    assert fake.requested == ALL


def test_failed_download_without_sizes_leaves_nothing(ask: Ask, tmp_path: Path) -> None:
    with FakeBridge("operation") as fake:
        fake.handlers[5] = send_damaged
        value = download(ask, fake, tmp_path / "out")
    assert type(value) is exceptions.IntegrityError
    assert os.listdir(tmp_path) == []


def test_file_without_seek_gets_bytes_in_order(ask: Ask) -> None:
    class Pipe:
        def __init__(self) -> None:
            self.got = b""

        def write(self, data: bytes) -> int:
            self.got += data
            return len(data)

    pipe = Pipe()
    with FakeBridge() as fake:
        value = download(ask, fake, pipe)
    assert value == {"bucket": "b", "hash": HASH, "size": len(DATA), "path": None}
    assert pipe.got == DATA
    assert fake.requested == ALL


def shards_in_part_file(folder: Path) -> list[int]:
    """Return the numbers of the shards that the part file has."""
    left = part_path(folder).read_bytes()
    return [number for number in ALL if left[number * SHARD :][:SHARD] == SHARDS[number]]


@pytest.mark.parametrize(
    ("handle", "kind"),
    [
        (send_damaged, exceptions.IntegrityError),
        (drop, exceptions.ConnectionLost),
        (refuse, exceptions.ChannelError),
    ],
)
def test_shards_in_part_file_are_not_fetched_again(
    ask: Ask, tmp_path: Path, handle: ShardHandler, kind: type[Exception]
) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with FakeBridge() as fake:
        fake.handlers[5] = handle
        assert type(download(ask, fake, target, "given")) is kind
        assert target.read_bytes() == b"old"
        assert sorted(os.listdir(tmp_path)) == [part_path(tmp_path).name, "out"]
        kept = shards_in_part_file(tmp_path)
        assert len(kept) >= 2
        fake.requested.clear()
        value = download(ask, fake, target, "given")
        assert value == {"bucket": "b", "hash": HASH, "size": len(DATA), "path": str(target)}
    assert target.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert set(fake.requested) == {*ALL} - {*kept}


@pytest.mark.parametrize(
    ("left", "fetched"),
    [
        (DATA, []),
        (DATA + b"more", []),
        (DATA[: 2 * SHARD] + bytes(SHARD) + DATA[3 * SHARD :], [2]),
        (DATA[: 9 * SHARD + 5], [9, 10]),
        (bytes(20 * SHARD), ALL),
        (b"something else", ALL),
    ],
    ids=["whole", "longer", "damaged", "cut", "empty", "strange"],
)
def test_part_file_is_checked_before_it_is_used(
    ask: Ask, tmp_path: Path, left: bytes, fetched: list[int]
) -> None:
    part_path(tmp_path).write_bytes(left)
    reports: list[tuple[int, int]] = []
    with FakeBridge() as fake:
        download(ask, fake, tmp_path / "out", progress=lambda *numbers: reports.append(numbers))
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(fake.requested) == fetched
    assert reports[-1] == (len(DATA), len(DATA))


def test_part_file_of_a_single_shard_is_used(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / f".pymdc-{channels.HASH}.part").write_bytes(channels.DATA)
    only = {**channels.pointer("ws://127.0.0.1:1"), "size": len(channels.DATA)}
    with channels.pointer_server([only]) as endpoint, pymdc.Client(endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        got = ask(files.download, channels.HASH, "token", to=tmp_path / "out")
    assert got["size"] == len(channels.DATA)
    assert (tmp_path / "out").read_bytes() == channels.DATA


KILLED = """
import pymdc, sys
with pymdc.Client(sys.argv[1], channels=2) as client:
    pymdc.api.Files("b", pymdc.ECDSA(), client=client).download(sys.argv[2], to=sys.argv[3])
"""


def test_killed_download_resumes(ask: Ask, tmp_path: Path) -> None:
    target, reached, go_on = tmp_path / "out", threading.Event(), threading.Event()

    def hold(connection: ServerConnection) -> None:
        reached.set()
        go_on.wait(PATIENCE)

    with FakeBridge() as fake:
        fake.handlers[6] = hold
        command = [sys.executable, "-c", KILLED, fake.endpoint, HASH, str(target)]
        with subprocess.Popen(command) as process:
            assert reached.wait(PATIENCE)
            process.send_signal(signal.SIGKILL)
            process.wait(MINUTE)
        go_on.set()
        assert os.listdir(tmp_path) == [part_path(tmp_path).name]
        kept = shards_in_part_file(tmp_path)
        assert len(kept) >= 5
        fake.requested.clear()
        assert download(ask, fake, target)["size"] == len(DATA)
    assert target.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert set(fake.requested) == {*ALL} - {*kept}


def test_two_simultaneous_downloads_of_one_file_are_both_complete(ask: Ask, tmp_path: Path) -> None:
    reached, go_on, got = threading.Event(), threading.Event(), list[Any]()

    def hold(connection: ServerConnection) -> None:
        reached.set()
        go_on.wait(PATIENCE)
        connection.send(SHARDS[0])

    with FakeBridge() as fake:
        fake.handlers[0] = hold
        first = threading.Thread(target=lambda: got.append(download(ask, fake, tmp_path / "out")))
        first.start()
        assert reached.wait(PATIENCE)
        assert download(ask, fake, tmp_path / "out")["size"] == len(DATA)
        assert (tmp_path / "out").read_bytes() == DATA
        go_on.set()
        first.join(PATIENCE)
    assert [value["size"] for value in got] == [len(DATA)]
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("handle", [refuse, drop])
def test_pointers_are_renewed_if_the_token_is_pymdcs_own(
    ask: Ask, tmp_path: Path, handle: ShardHandler, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeBridge() as fake:
        fake.handlers |= {3: handle, 8: handle}
        assert download(ask, fake, tmp_path / "out", channels=channels)["size"] == len(DATA)
        # In parallel, both may fail before the first renewal, which then covers both.
        assert fake.pointer_requests in ({3} if channels == 1 else {2, 3})
    renewals = [record for record in caplog.records if "new pointers" in record.getMessage()]
    assert len(renewals) == fake.pointer_requests - 1
    assert {(record.name, record.levelname) for record in renewals} == {("pymdc", "WARNING")}
    assert (tmp_path / "out").read_bytes() == DATA


def test_pointers_without_any_progress_are_not_renewed(ask: Ask, tmp_path: Path) -> None:
    with FakeBridge() as fake:
        fake.handlers = dict.fromkeys(ALL, refuse)
        value = download(ask, fake, tmp_path / "out")
    assert type(value) is exceptions.ChannelError
    assert fake.pointer_requests == 1
    assert os.listdir(tmp_path) == []


def test_open_file_gets_each_shard_once(ask: Ask) -> None:
    file = io.BytesIO()
    with FakeBridge() as fake:
        fake.handlers |= {3: refuse, 8: drop}
        assert download(ask, fake, file)["size"] == len(DATA)
        assert fake.pointer_requests == 3
    assert file.getvalue() == DATA


@pytest.mark.parametrize("handle", [send_damaged, drop])
def test_open_file_gets_no_byte_of_a_wrong_shard(ask: Ask, handle: ShardHandler) -> None:
    file = io.BytesIO()
    with FakeBridge() as fake:
        fake.handlers[8] = handle
        value = download(ask, fake, file, "given")
    assert isinstance(value, exceptions.IntegrityError | exceptions.ConnectionLost)
    assert file.getvalue() == DATA[: 8 * SHARD]


class ShortWrites(io.RawIOBase):
    """Writes a thousand bytes at a time, *most* in all; then none, or raises *error*."""

    def __init__(self, most: int, error: OSError | None = None) -> None:
        self.got, self._most, self._error = b"", most, error

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int | None:
        taken = bytes(data[: min(1000, self._most - len(self.got))])
        self.got += taken
        if not taken and self._error:
            raise self._error
        return len(taken) or None


def test_file_with_short_writes_gets_all_bytes(ask: Ask) -> None:
    with FakeBridge() as fake:
        file = ShortWrites(len(DATA))
        assert download(ask, fake, file)["size"] == len(DATA)
    assert file.got == DATA


@pytest.mark.parametrize(
    "error", [None, OSError(28, "No space left on device")], ids=["not now", "full"]
)
def test_file_that_accepts_no_more_bytes_is_an_os_error(ask: Ask, error: OSError | None) -> None:
    with FakeBridge() as fake:
        value = download(ask, fake, ShortWrites(10_000, error))
    assert type(value) is (OSError if error else BlockingIOError)
    assert value.strerror == (error.strerror if error else "the file takes no bytes now")


def test_file_not_open_for_writing_is_refused_at_the_call(tmp_path: Path) -> None:
    files = pymdc.api.Files("b", pymdc.ECDSA())
    (tmp_path / "file").write_bytes(b"")
    with open(tmp_path / "file", "rb") as file:
        with pytest.raises(ValueError, match=r"not open for writing .*; expected a path or a file"):
            files.download(HASH, to=file)
    with pytest.raises(ValueError, match="not open for writing"):
        files.download(HASH, to=file)


def test_target_that_is_no_regular_file_is_refused_and_unchanged(ask: Ask, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with FakeBridge() as fake:
        value = download(ask, fake, tmp_path / "pipe")
        assert type(value) is FileExistsError
        assert "pipe is a device or a pipe; expected the path of the file to write" in str(value)
        for folder in (str(tmp_path), f"{tmp_path}/new/"):
            value = download(ask, fake, folder)
            assert type(value) is IsADirectoryError
            assert f"{folder} is a folder; expected the path of the file to write" in str(value)
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_link_and_mode_of_target_are_kept(ask: Ask, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    with FakeBridge() as fake:
        download(ask, fake, link)
    assert link.is_symlink()
    assert target.read_bytes() == DATA
    assert target.stat().st_mode & 0o777 == 0o640


def test_unusable_part_files_are_left_alone(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"kept")
    part_path(tmp_path).symlink_to(tmp_path / "elsewhere")
    with FakeBridge() as fake:
        assert download(ask, fake, tmp_path / "out")["size"] == len(DATA)
        part_path(tmp_path).unlink()
        part_path(tmp_path).mkdir()
        fake.handlers[5] = send_damaged
        assert type(download(ask, fake, tmp_path / "out")) is exceptions.IntegrityError
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"
    assert sorted(os.listdir(tmp_path)) == [part_path(tmp_path).name, "elsewhere", "out"]


def test_part_files_of_killed_downloads_are_removed(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / f".pymdc-{HASH}-0123456789abcdef.part").write_bytes(b"of one beside another")
    (tmp_path / ".pymdc-else.part").write_bytes(b"of another file")
    with FakeBridge() as fake:
        download(ask, fake, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [".pymdc-else.part", "out"]


def test_pointers_that_expire_during_check_of_part_file_are_renewed(
    ask: Ask, tmp_path: Path
) -> None:
    part_path(tmp_path).write_bytes(DATA[: 3 * SHARD])
    with FakeBridge() as fake:
        fake.handlers |= {3: refuse, 4: refuse}
        assert download(ask, fake, tmp_path / "out", channels=1)["size"] == len(DATA)
        assert fake.pointer_requests == 3
        part_path(tmp_path).write_bytes(DATA[: 3 * SHARD])
        fake.handlers[3] = refuse
        value = download(ask, fake, tmp_path / "out", "given")
    assert type(value) is exceptions.ChannelError


def test_refusal_of_new_pointers_is_the_value(ask: Ask, tmp_path: Path) -> None:
    with FakeBridge() as fake:
        fake.refusal = written("404 Not Found", b'{"error": "gone"}')
        fake.handlers[3] = refuse
        value = download(ask, fake, tmp_path / "out", channels=1)
    assert value == {"error": "gone"}
    assert os.listdir(tmp_path) == [part_path(tmp_path).name]


def test_endless_shard_is_stopped_at_its_size(ask: Ask, tmp_path: Path) -> None:
    ended = threading.Event()

    def endless(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                connection.send(bytes(SHARD))
        ended.set()

    with FakeBridge() as fake:
        fake.handlers[1] = endless
        value = download(ask, fake, tmp_path / "out", channels=1)
        assert ended.wait(PATIENCE)
    assert type(value) is exceptions.IntegrityError
    assert "shard 2 of 11 came with 8192 bytes, and its pointer says 4096" in str(value)
    assert shards_in_part_file(tmp_path) == [0]


@pytest.mark.parametrize("size", [2**63, 2**70, -1, True, "4096"])
def test_impossible_sizes_are_ignored(ask: Ask, tmp_path: Path, size: object) -> None:
    class WrongSizes(FakeBridge):
        def _pointer(self, number: int) -> dict[str, Any]:
            return super()._pointer(number) | {"size": size}

    with WrongSizes() as fake:
        assert download(ask, fake, tmp_path / "out")["size"] == len(DATA)
    assert fake.requested == ALL


def test_file_with_wrong_hash_leaves_no_part_file(ask: Ask, tmp_path: Path) -> None:
    with FakeBridge() as fake, pymdc.Client(fake.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.download, "0" * 40, to=tmp_path / "out")
    assert type(value) is exceptions.IntegrityError
    assert f"the file came with the hash {HASH}, not {'0' * 40}" in str(value)
    assert os.listdir(tmp_path) == []


def test_unreachable_channel_does_not_discard_other_shards(ask: Ask, tmp_path: Path) -> None:
    class OneUnreachable(FakeBridge):
        def _pointer(self, number: int) -> dict[str, Any]:
            changed = {"channel": "ws://127.0.0.1:1"} if number == 3 else {}
            return super()._pointer(number) | changed

    with OneUnreachable() as fake:
        value = download(ask, fake, tmp_path / "out", "given")
    assert type(value) is exceptions.ConnectError
    assert {0, 1, 2} <= {*shards_in_part_file(tmp_path)} <= {*ALL} - {3}


def test_part_file_survives_error_during_its_check(ask: Ask, tmp_path: Path) -> None:
    part_path(tmp_path).write_bytes(DATA)

    def end(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    with FakeBridge() as fake:
        value = download(ask, fake, tmp_path / "out", progress=end)
    assert type(value) is ZeroDivisionError
    assert part_path(tmp_path).read_bytes() == DATA


def test_damaged_shard_is_neither_reported_nor_kept(ask: Ask, tmp_path: Path) -> None:
    reports: list[int] = []
    with FakeBridge() as fake:
        fake.handlers[0] = send_damaged
        more: dict[str, Any] = {"channels": 1, "progress": lambda done, _: reports.append(done)}
        value = download(ask, fake, tmp_path / "out", **more)
    assert type(value) is exceptions.IntegrityError
    assert (reports, os.listdir(tmp_path)) == ([], [])


def test_open_file_has_all_bytes_that_progress_reports(ask: Ask) -> None:
    file, reports = io.BytesIO(), list[tuple[int, int]]()
    with FakeBridge() as fake:
        download(ask, fake, file, progress=lambda done, _: reports.append((done, file.tell())))
    assert reports
    assert all(done == written for done, written in reports)


def test_exception_of_file_is_the_value(ask: Ask) -> None:
    error = ssl.SSLError(1, "mine")
    with FakeBridge() as fake:
        assert download(ask, fake, ShortWrites(0, error)) is error


def test_part_file_of_another_failed_download_is_removed(ask: Ask, tmp_path: Path) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def hold(connection: ServerConnection) -> None:
        reached.set()
        go_on.wait(PATIENCE)

    def fail_first(connection: ServerConnection) -> None:
        go_on.set()
        first.join(PATIENCE)
        connection.send(SHARDS[10])

    with FakeBridge() as fake:
        fake.handlers[3] = hold
        arguments = (ask, fake, tmp_path / "first", "given")
        first = threading.Thread(target=download, args=arguments, kwargs={"channels": 1})
        first.start()
        assert reached.wait(PATIENCE)
        fake.handlers[10] = fail_first
        assert download(ask, fake, tmp_path / "out")["size"] == len(DATA)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("size", [SHARD - 1, SHARD + 1])
def test_pointer_with_wrong_size_is_an_integrity_error(ask: Ask, tmp_path: Path, size: int) -> None:
    class WrongSizes(FakeBridge):
        def _pointer(self, number: int) -> dict[str, Any]:
            return super()._pointer(number) | ({"size": size} if number == 4 else {})

    with WrongSizes() as fake:
        value = download(ask, fake, tmp_path / "out", channels=1)
    assert type(value) is exceptions.IntegrityError
    assert f"shard 5 of 11 came with {SHARD} bytes, and its pointer says {size}" in str(value)
    assert not (tmp_path / "out").exists()


def test_number_of_channels_must_be_a_whole_number_above_zero() -> None:
    for number in (0, -1, 1.5, True, "4"):
        with pytest.raises(ValueError, match="expected a whole number above zero"):
            pymdc.Client("http://127.0.0.1:1", channels=number)  # type: ignore[arg-type]

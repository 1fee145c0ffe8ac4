"""Downloads: shards side by side, each in its place, and what was fetched is not fetched again."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from lender import DATA, HASH, SHARD, SHARDS, Lender, Treat, damaged, dropped, refused
from modes import PATIENCE, Ask
from processes import MINUTE
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import exceptions

ALL = list(range(len(SHARDS)))


def download(ask: Ask, lender: Lender, to: Any, token: str | None = None, **more: Any) -> Any:
    channels = more.pop("channels", 4)
    with pymdc.Client(lender.endpoint, timeout=(5, PATIENCE), channels=channels) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        return ask(files.download, HASH, token, to=to, **more)


def test_shards_come_side_by_side(ask: Ask, tmp_path: Path) -> None:
    four = threading.Barrier(4)

    def meet(number: int) -> Treat:
        def treat(connection: ServerConnection) -> None:
            four.wait(PATIENCE)
            connection.send(SHARDS[number])

        return treat

    with Lender() as lender:
        lender.treats = {number: meet(number) for number in range(8)}
        value = download(ask, lender, tmp_path / "out")
    assert value == {"bucket": "b", "hash": HASH, "size": len(DATA), "path": str(tmp_path / "out")}
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(lender.pulled) == ALL
    assert lender.most == 4


@pytest.mark.parametrize("told", [("size",), ("operation",)], ids=["sizes", "no sizes"])
def test_shards_come_in_order_where_they_have_to(ask: Ask, tmp_path: Path, told: Any) -> None:
    with Lender(*told) as lender:
        value = download(ask, lender, tmp_path / "out", channels=1)
    assert value["size"] == len(DATA)
    assert (tmp_path / "out").read_bytes() == DATA
    assert lender.pulled == ALL


def test_a_file_that_cannot_seek_gets_the_bytes_in_order(ask: Ask) -> None:
    class Pipe:
        def __init__(self) -> None:
            self.got = b""

        def write(self, data: bytes) -> int:
            self.got += data
            return len(data)

    pipe = Pipe()
    with Lender() as lender:
        value = download(ask, lender, pipe)
    assert value == {"bucket": "b", "hash": HASH, "size": len(DATA), "path": None}
    assert pipe.got == DATA
    assert lender.pulled == ALL


def part(folder: Path) -> Path:
    return folder / f".pymdc-{HASH}.part"


def in_place(folder: Path) -> list[int]:
    """Return the numbers of the shards that are in the part file."""
    left = part(folder).read_bytes()
    return [number for number in ALL if left[number * SHARD :][:SHARD] == SHARDS[number]]


@pytest.mark.parametrize(
    ("treat", "kind"),
    [
        (damaged, exceptions.IntegrityError),
        (dropped, exceptions.ConnectionLost),
        (refused, exceptions.ChannelError),
    ],
)
def test_what_was_fetched_is_not_fetched_again(
    ask: Ask, tmp_path: Path, treat: Treat, kind: type[Exception]
) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with Lender() as lender:
        lender.treats[5] = treat
        assert type(download(ask, lender, target, "given")) is kind
        assert target.read_bytes() == b"old"
        assert sorted(os.listdir(tmp_path)) == [part(tmp_path).name, "out"]
        kept = in_place(tmp_path)
        assert len(kept) >= 2
        lender.pulled.clear()
        value = download(ask, lender, target, "given")
        assert value == {"bucket": "b", "hash": HASH, "size": len(DATA), "path": str(target)}
    assert target.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert set(lender.pulled) == {*ALL} - {*kept}


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
def test_leftovers_are_checked_before_they_are_used(
    ask: Ask, tmp_path: Path, left: bytes, fetched: list[int]
) -> None:
    part(tmp_path).write_bytes(left)
    told: list[tuple[int, int]] = []
    with Lender() as lender:
        download(ask, lender, tmp_path / "out", progress=lambda *numbers: told.append(numbers))
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert sorted(lender.pulled) == fetched
    assert told[-1] == (len(DATA), len(DATA))


KILLED = """
import pymdc, sys
with pymdc.Client(sys.argv[1], channels=2) as client:
    pymdc.api.Files("b", pymdc.ECDSA(), client=client).download(sys.argv[2], to=sys.argv[3])
"""


def test_a_killed_download_goes_on_where_it_was(ask: Ask, tmp_path: Path) -> None:
    target, reached, go_on = tmp_path / "out", threading.Event(), threading.Event()

    def hold(connection: ServerConnection) -> None:
        reached.set()
        go_on.wait(PATIENCE)

    with Lender() as lender:
        lender.treats[6] = hold
        command = [sys.executable, "-c", KILLED, lender.endpoint, HASH, str(target)]
        with subprocess.Popen(command) as process:
            assert reached.wait(PATIENCE)
            process.send_signal(signal.SIGKILL)
            process.wait(MINUTE)
        go_on.set()
        assert os.listdir(tmp_path) == [part(tmp_path).name]
        kept = in_place(tmp_path)
        assert len(kept) >= 5
        lender.pulled.clear()
        assert download(ask, lender, target)["size"] == len(DATA)
    assert target.read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]
    assert set(lender.pulled) == {*ALL} - {*kept}


def test_two_downloads_of_one_file_at_once_are_both_whole(ask: Ask, tmp_path: Path) -> None:
    reached, go_on, got = threading.Event(), threading.Event(), list[Any]()

    def hold(connection: ServerConnection) -> None:
        reached.set()
        go_on.wait(PATIENCE)
        connection.send(SHARDS[0])

    with Lender() as lender:
        lender.treats[0] = hold
        first = threading.Thread(target=lambda: got.append(download(ask, lender, tmp_path / "out")))
        first.start()
        assert reached.wait(PATIENCE)
        assert download(ask, lender, tmp_path / "out")["size"] == len(DATA)
        assert (tmp_path / "out").read_bytes() == DATA
        go_on.set()
        first.join(PATIENCE)
    assert [value["size"] for value in got] == [len(DATA)]
    assert (tmp_path / "out").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("treat", [refused, dropped])
def test_pointers_are_renewed_where_pymdc_may(ask: Ask, tmp_path: Path, treat: Treat) -> None:
    with Lender() as lender:
        lender.treats |= {3: treat, 8: treat}
        assert download(ask, lender, tmp_path / "out")["size"] == len(DATA)
        assert lender.pointed == 3
    assert (tmp_path / "out").read_bytes() == DATA


def test_pointers_that_bring_nothing_are_not_renewed_for_ever(ask: Ask, tmp_path: Path) -> None:
    with Lender() as lender:
        lender.treats = dict.fromkeys(ALL, refused)
        value = download(ask, lender, tmp_path / "out")
    assert type(value) is exceptions.ChannelError
    assert lender.pointed == 1
    assert os.listdir(tmp_path) == []


def test_what_was_written_to_an_open_file_is_not_written_again(ask: Ask) -> None:
    file = io.BytesIO()
    with Lender() as lender:
        lender.treats |= {3: refused, 8: dropped}
        value = download(ask, lender, file)
    assert type(value) is exceptions.ConnectionLost
    assert lender.pointed == 2
    assert file.getvalue() == DATA[: 8 * SHARD] + bytes(10)


@pytest.mark.parametrize("size", [SHARD - 1, SHARD + 1])
def test_a_pointer_that_tells_another_size_is_told(ask: Ask, tmp_path: Path, size: int) -> None:
    class Lying(Lender):
        def _pointer(self, number: int) -> dict[str, Any]:
            return super()._pointer(number) | ({"size": size} if number == 4 else {})

    with Lying() as lender:
        value = download(ask, lender, tmp_path / "out", channels=1)
    assert type(value) is exceptions.IntegrityError
    assert f"shard 5 of 11 came with {SHARD} bytes, and its pointer says {size}" in str(value)
    assert not (tmp_path / "out").exists()


def test_a_number_of_channels_that_is_none_is_told() -> None:
    for channels in (0, -1, 1.5, True, "4"):
        with pytest.raises(ValueError, match="expected a whole number above zero"):
            pymdc.Client("http://127.0.0.1:1", channels=channels)  # type: ignore[arg-type]

"""Files that fail while they are rewound or truncated: the first error stays the value."""

from __future__ import annotations

import errno
import io
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_bridge import DATA, SHARD, SHARDS, FakeBridge, download, drop, part_path, send_damaged
from filesystems import without_ftruncate
from modes import Ask
from servers import Handler, RawServer, answering, read_request, read_some, written
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import exceptions

START = 7


class RewindFails(io.BytesIO):
    """A file whose seek() raises *error* once it was read."""

    def __init__(self, error: Exception) -> None:
        super().__init__(b"skipped" + DATA)
        super().seek(START)
        self._error = error
        self._read = False

    def read(self, size: int | None = -1) -> bytes:
        self._read |= size != 0
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._read:
            raise self._error
        return super().seek(offset, whence)


ERRORS = pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "it broke"), ValueError("it broke"), io.UnsupportedOperation("it broke")],
    ids=lambda error: type(error).__name__,
)


def refuse(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(written("400 Bad Request", b'{"error": "no"}'))


@ERRORS
@pytest.mark.parametrize(
    ("handle", "kind"),
    [
        (refuse, dict),
        (read_some, exceptions.ConnectionLost),
        (answering(b"no HTTP\r\n\r\n"), exceptions.GarbledAnswer),
        (answering(written("502 Bad Gateway", b"<html>")), exceptions.HTTPError),
        (answering(written("200 OK", b'{"hash": "0"}')), exceptions.IntegrityError),
    ],
    ids=["refused", "lost", "garbled", "page", "another hash"],
)
def test_failure_of_upload_is_the_value_if_rewind_fails(
    ask: Ask, handle: Handler, kind: type, error: Exception
) -> None:
    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        value = ask(pymdc.api.Files("b", None, client=client).upload, RewindFails(error), "t")
    assert type(value) is kind
    assert "it broke" not in str(value)


@ERRORS
def test_failure_of_form_is_the_value_if_rewind_fails(ask: Ask, error: Exception) -> None:
    with RawServer(refuse) as server, pymdc.Client(server.endpoint) as client:
        value = ask(pymdc.rest.REST, "PUT", "/x", {"file": RewindFails(error)}, client=client)
    assert value == {"error": "no"}


@ERRORS
@pytest.mark.parametrize(
    "first",
    [b"", written("503 Busy", b'{"error": "busy"}', "Retry-After: 0")],
    ids=["lost", "busy"],
)
def test_file_that_cannot_rewind_is_not_sent_again(
    ask: Ask, error: Exception, first: bytes
) -> None:
    puts: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        while head := read_request(connection)[0]:
            if head.startswith(b"PUT"):
                puts.append(head)
            answer = first if head.startswith(b"PUT") else written("200 OK", b'{"token": "t"}')
            if not answer:
                return
            connection.sendall(answer)

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.upload, RewindFails(error))
    assert isinstance(value, OSError)
    assert "the file cannot be rewound" in str(value)
    assert "it broke" in str(value)
    assert len(puts) <= 2


@pytest.mark.parametrize(
    ("handle", "kind"),
    [
        pytest.param(send_damaged, exceptions.IntegrityError, id="damaged"),
        pytest.param(drop, exceptions.ConnectionLost, id="dropped"),
    ],
)
def test_failure_of_download_is_the_value_if_truncation_fails(
    ask: Ask, tmp_path: Path, handle: Handler, kind: type
) -> None:
    def fetch() -> Any:
        with FakeBridge() as fake:
            fake.handlers[5] = handle  # type: ignore[assignment]  # it is a ShardHandler
            return download(ask, fake, tmp_path / "out", "given", channels=1)

    value = without_ftruncate(errno.EIO, fetch)
    assert type(value) is kind
    assert not (tmp_path / "out").exists()


def call_at_shard(fake: FakeBridge, number: int, change: Callable[[], object]) -> None:
    """Call *change* when the shard *number* is requested."""

    def handle(connection: ServerConnection) -> None:
        change()
        connection.send(SHARDS[number])

    fake.handlers[number] = handle


def test_folder_removed_during_download_is_file_not_found(ask: Ask, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with FakeBridge() as fake:
        call_at_shard(fake, 5, lambda: shutil.rmtree(folder))
        value = download(ask, fake, folder / "out", channels=1)
    assert isinstance(value, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []


def test_part_file_removed_during_download_leaves_target_unchanged(
    ask: Ask, tmp_path: Path
) -> None:
    (tmp_path / "out").write_bytes(b"old")
    with FakeBridge() as fake:
        call_at_shard(fake, 5, part_path(tmp_path).unlink)
        value = download(ask, fake, tmp_path / "out", channels=1)
    assert isinstance(value, FileNotFoundError)
    assert os.listdir(tmp_path) == ["out"]
    assert (tmp_path / "out").read_bytes() == b"old"


def test_target_that_becomes_a_folder_keeps_the_part_file(ask: Ask, tmp_path: Path) -> None:
    with FakeBridge() as fake:
        call_at_shard(fake, 5, (tmp_path / "out").mkdir)
        value = download(ask, fake, tmp_path / "out", channels=1)
        assert isinstance(value, OSError)
        assert (tmp_path / "out").is_dir()
        assert len(part_path(tmp_path).read_bytes()) == len(DATA)
        fake.requested.clear()
        assert download(ask, fake, tmp_path / "other")["size"] == len(DATA)
        assert fake.requested == []
    assert (tmp_path / "other").read_bytes() == DATA


def test_open_file_that_fails_at_a_shard_has_the_shards_before(ask: Ask) -> None:
    class Breaking(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() >= 3 * SHARD:
                raise OSError(errno.EIO, "it broke")
            return super().write(data)

    file = Breaking()
    with FakeBridge() as fake:
        fake.handlers[1] = drop
        value = download(ask, fake, file)
    assert type(value) is OSError
    assert value.errno == errno.EIO
    assert file.getvalue() == DATA[: 3 * SHARD]


def test_failure_of_download_is_the_value_if_the_part_file_is_gone(
    ask: Ask, tmp_path: Path
) -> None:
    def remove_then_damage(connection: ServerConnection) -> None:
        part_path(tmp_path).unlink()
        send_damaged(connection)

    with FakeBridge() as fake:
        fake.handlers[0] = remove_then_damage
        value = download(ask, fake, tmp_path / "out", "given", channels=1)
    assert type(value) is exceptions.IntegrityError
    assert list(tmp_path.iterdir()) == []


def test_shards_that_change_during_download_are_an_integrity_error(
    ask: Ask, tmp_path: Path
) -> None:
    class Changing(FakeBridge):
        """Points to other shards from the second request for pointers on."""

        def _pointer(self, number: int) -> dict[str, Any]:
            other = self.pointer_requests > 1 and number == 9
            return super()._pointer(0 if other else number)

    with Changing() as fake:
        fake.handlers[3] = drop
        value = download(ask, fake, tmp_path / "out", channels=1)
    assert type(value) is exceptions.IntegrityError
    assert "its shards have changed in the meantime" in str(value)
    assert not (tmp_path / "out").exists()

"""Answers with the right form and the wrong meaning, and values just inside and outside limits."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from channels import DATA, HASH, pointer, pointer_server, send_shard, websocket
from modes import Ask
from servers import RawServer, answering, read_request, written

import pymdc
from pymdc import exceptions
from pymdc._crypto.file_hash import file_hash

OBJECT, LIST, PAGE = b'{"error": "no"}', b"[]", b"<html>"


def register_with(ask: Ask, answer: bytes) -> Any:
    with RawServer(answering(answer)) as server, pymdc.Client(server.endpoint) as client:
        return ask(pymdc.api.Users("a@b.com", "pass", client=client).register)


@pytest.mark.parametrize(
    ("status", "body", "value"),
    [
        (200, OBJECT, {"error": "no"}),
        (299, OBJECT, {"error": "no"}),
        (299, LIST, []),
        (299, PAGE, "<html>"),
        (300, OBJECT, exceptions.HTTPError),
        (300, LIST, exceptions.HTTPError),
        (300, PAGE, exceptions.HTTPError),
        (399, OBJECT, exceptions.HTTPError),
        (400, OBJECT, {"error": "no"}),
        (400, LIST, exceptions.HTTPError),
        (400, PAGE, exceptions.HTTPError),
        (599, OBJECT, {"error": "no"}),
        (599, PAGE, exceptions.HTTPError),
    ],
)
def test_status_determines_kind_of_value(ask: Ask, status: int, body: bytes, value: Any) -> None:
    got = register_with(ask, written(f"{status} Some", body))
    if value is exceptions.HTTPError:
        assert type(got) is value
        assert (got.code, got.read()) == (status, body)
    else:
        assert got == value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, exceptions.ConnectionLost),
        (299, exceptions.ConnectionLost),
        (300, exceptions.HTTPError),
    ],
)
def test_success_without_length_is_connection_lost(ask: Ask, status: int, kind: type) -> None:
    value = register_with(ask, f"HTTP/1.1 {status} Some\r\nServer: x\r\n\r\n".encode())
    assert type(value) is kind


@pytest.mark.parametrize("retry_after", ["-1", "1.5", "1e0", "0x0", "+0", "", "now", "0, 0"])
def test_invalid_retry_after_is_ignored(ask: Ask, retry_after: str) -> None:
    busy = written("503 Busy", OBJECT, f"Retry-After: {retry_after}")
    with RawServer(answering(busy)) as server, pymdc.Client(server.endpoint) as client:
        value = ask(pymdc.api.Keys(pymdc.api.Users("a@b.com", client=client)).list)
        assert server.connections == 1
    assert value == {"error": "no"}


NO_TOKENS = [{"token": 5}, {"token": None}, {"token": ["t"]}, {"token": "t\n"}, {"token": "é"}]
NO_ANSWERS: list[Any] = [{}, [], ["token"], "token", 5, None, {"Token": "t"}]


@pytest.mark.parametrize("answer", [*NO_TOKENS, *NO_ANSWERS], ids=json.dumps)
@pytest.mark.parametrize("operation", ["upload", "download"])
def test_answer_without_token_is_integrity_error_and_nothing_is_sent(
    ask: Ask, operation: str, answer: Any
) -> None:
    heads: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        while head := read_request(connection)[0]:
            heads.append(head)
            connection.sendall(written("200 OK", json.dumps(answer).encode()))

    file = io.BytesIO(b"skipped" + DATA)
    file.seek(7)
    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(
            *{"upload": (files.upload, file), "download": (files.download, HASH)}[operation]
        )
    assert type(value) is exceptions.IntegrityError
    assert "the answer holds no token" in str(value)
    assert len(heads) == 1
    assert file.tell() == 7


STORED = [
    {"hash": 5},
    {"hash": None},
    {"hash": HASH.upper()},
    {"hash": HASH[:-1]},
    {"hash": [HASH]},
]
NO_ENTRIES: list[Any] = [{}, [], [{"hash": HASH}], HASH, 5, None, {"Hash": HASH}]


@pytest.mark.parametrize("answer", [*STORED, *NO_ENTRIES], ids=json.dumps)
def test_entry_without_hash_of_sent_file_is_integrity_error(ask: Ask, answer: Any) -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(written("200 OK", json.dumps(answer).encode()))

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("b", None, client=client)
        value = ask(files.upload, io.BytesIO(DATA), "t")
        assert ask(files.upload, io.BytesIO(DATA), "t", verify=False) == answer
    assert type(value) is exceptions.IntegrityError
    assert HASH in str(value)


def test_empty_list_of_pointers_is_valid_for_empty_file_only(ask: Ask, tmp_path: Path) -> None:
    empty = file_hash(b"")
    with pointer_server([]) as endpoint, pymdc.Client(endpoint) as client:
        files = pymdc.api.Files("b", None, client=client)
        value = ask(files.download, HASH, "t", to=tmp_path / "out")
        assert type(value) is exceptions.IntegrityError
        assert list(tmp_path.iterdir()) == []
        assert ask(files.download, empty, "t", to=tmp_path / "out")["size"] == 0
    assert (tmp_path / "out").read_bytes() == b""


@pytest.mark.parametrize("name", [HASH.upper(), HASH[:-1], "0" * 40, ""])
def test_pointer_with_another_hash_is_integrity_error(ask: Ask, tmp_path: Path, name: str) -> None:
    with websocket(send_shard) as url, pointer_server([pointer(url, name)]) as endpoint:
        with pymdc.Client(endpoint) as client:
            files = pymdc.api.Files("b", None, client=client)
            value = ask(files.download, HASH, "t", to=tmp_path / "out")
    assert type(value) is exceptions.IntegrityError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, 0])
def test_pointer_with_another_size_is_integrity_error(ask: Ask, tmp_path: Path, size: int) -> None:
    with websocket(send_shard) as url, pointer_server([{**pointer(url), "size": size}]) as endpoint:
        with pymdc.Client(endpoint) as client:
            files = pymdc.api.Files("b", None, client=client)
            value = ask(files.download, HASH, "t", to=tmp_path / "out")
    assert type(value) is exceptions.IntegrityError
    assert "shard 1 of 1 came with" in str(value)
    assert f"and its pointer says {size}" in str(value)
    assert list(tmp_path.iterdir()) == []


LONGEST = 1e9  # seconds


def client_with(**settings: Any) -> pymdc.Client:
    return pymdc.Client("http://127.0.0.1:1", **settings)


@pytest.mark.parametrize("setting", ["timeout", "total", "stall"])
def test_time_setting_has_upper_limit(setting: str) -> None:
    client_with(**{setting: LONGEST}).close()
    with pytest.raises(ValueError, match=f"{setting} is .*; expected .*seconds"):
        client_with(**{setting: LONGEST + 1})


@pytest.mark.parametrize(("port", "valid"), [(1, True), (65535, True), (0, False), (65536, False)])
def test_port_outside_its_range_is_value_error(port: int, valid: bool) -> None:
    endpoint = f"http://127.0.0.1:{port}"
    if valid:
        pymdc.Client(endpoint).close()
    else:
        with pytest.raises(ValueError, match="the endpoint is"):
            pymdc.Client(endpoint)


@pytest.mark.parametrize("setting", ["workers", "channels"])
def test_count_below_one_is_value_error(setting: str) -> None:
    client_with(**{setting: 1}).close()
    for wrong in (0, -1, True, 1.0):
        with pytest.raises(ValueError, match=f"{setting} is {wrong!r}; expected"):
            client_with(**{setting: wrong})


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
@pytest.mark.parametrize("params", [{"a": "\ud800"}, {"\ud800": "a"}], ids=["value", "name"])
def test_parameter_with_surrogate_is_value_error(method: str, params: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|has characters that no text has"):
        pymdc.rest.REST(method, "/x", params)


def test_path_with_surrogate_is_value_error_at_call() -> None:
    files = pymdc.api.Files("b", None)
    with pytest.raises(ValueError, match="the path has characters that no path has; expected"):
        files.upload("\ud800", "t")
    with pytest.raises(ValueError, match="the path has characters that no path has; expected"):
        files.download(HASH, "t", to="\ud800")

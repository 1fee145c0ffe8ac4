"""Downloads from faulty channels: each gives an exception of pymdc, and leaves no file."""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from channels import DATA, HASH, ChannelHandler, pointer, pointer_server, send_shard, websocket
from fake_bridge import HASH as WHOLE
from fake_bridge import FakeBridge
from modes import AT_ONCE, MODES, Ask
from servers import Handler, RawServer, answering, wait
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import exceptions
from pymdc._calls.cancel_scope import CancelScope
from pymdc._crypto.file_hash import file_hash
from pymdc._transfers.channel import Channel, _safe_url, parse_channel_url


def download(ask: Ask, pointers: Any, to: Path | io.BytesIO, name: str = HASH) -> Any:
    with pointer_server(pointers) as endpoint, pymdc.Client(endpoint, timeout=(5, 1)) as client:
        files = pymdc.api.Files("0" * 24, pymdc.ECDSA(), client=client)
        return ask(files.download, name, "token", to=to)


def test_channel_without_final_text_is_read(ask: Ask, tmp_path: Path) -> None:
    with websocket(send_shard) as url:
        value = download(ask, [pointer(url)], tmp_path / "out")
    assert value["size"] == len(DATA)
    assert (tmp_path / "out").read_bytes() == DATA


def test_channel_with_fragments_and_pings_is_read(ask: Ask, tmp_path: Path) -> None:
    def handle(connection: ServerConnection) -> None:
        connection.ping()
        connection.send(DATA[place : place + 4] for place in range(0, len(DATA), 4))

    with websocket(handle) as url:
        download(ask, [pointer(url)], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


@pytest.mark.parametrize(
    "message",
    [
        '{"code":200}',
        '{"code": 200, "message": "Done"}',
        ['{"co', "", 'de":2', "00}"],
        ["", '{"code":200, "message": "\u2713"}'],
    ],
)
def test_success_text_from_channel_is_not_an_error(
    ask: Ask, tmp_path: Path, message: str | list[str]
) -> None:
    def handle(connection: ServerConnection) -> None:
        send_shard(connection)
        connection.send(message)

    def message_first(connection: ServerConnection) -> None:
        connection.send(message)
        send_shard(connection)

    for farmer in (handle, message_first):
        with websocket(farmer) as url:
            value = download(ask, [pointer(url)], tmp_path / "out")
        assert value["size"] == len(DATA)
        assert (tmp_path / "out").read_bytes() == DATA


def test_empty_shard_makes_empty_file(ask: Ask, tmp_path: Path) -> None:
    empty = file_hash(b"")
    with websocket(lambda connection: None) as url:
        value = download(ask, [pointer(url, empty)], tmp_path / "out", empty)
    assert value["size"] == 0
    assert (tmp_path / "out").read_bytes() == b""


def refuse(connection: ServerConnection) -> None:
    connection.send(json.dumps({"code": 400, "message": "Token not valid for hash"}))


def drop(connection: ServerConnection) -> None:
    connection.send(DATA[:5])
    connection.socket.shutdown(socket.SHUT_RDWR)


DONE = '{"code": 200}'
CHANNEL_ERROR = exceptions.ChannelError

CHANNELS: list[tuple[ChannelHandler, type[Exception], str]] = [
    (
        lambda c: c.send(b"other bytes"),
        exceptions.IntegrityError,
        "shard 1 of 1 came with the hash",
    ),
    (lambda c: c.send(DATA[:-1]), exceptions.IntegrityError, "shard 1 of 1 came with the hash"),
    (lambda c: None, exceptions.IntegrityError, "without a byte of the shard; farmers older than"),
    (lambda c: c.send(b""), exceptions.IntegrityError, "without a byte of the shard"),
    (lambda c: c.send(DONE), exceptions.IntegrityError, "without a byte of the shard"),
    (
        lambda c: c.send(iter(['{"code": 200', '1, "message": "no"}'])),
        CHANNEL_ERROR,
        "answered 2001: no",
    ),
    (refuse, exceptions.ChannelError, "answered 400: Token not valid for hash"),
    (lambda c: c.send("[]"), exceptions.ChannelError, "not JSON"),
    (lambda c: c.close(1011), exceptions.ConnectionLost, "closed with code 1011"),
    (drop, exceptions.ConnectionLost, "before the shard was whole"),
]


@pytest.mark.parametrize(("handle", "kind", "text"), CHANNELS)
def test_failing_channel_leaves_no_file(
    ask: Ask, tmp_path: Path, handle: ChannelHandler, kind: type[Exception], text: str
) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with websocket(handle) as url:
        value = download(ask, [pointer(url)], target)
    assert type(value) is kind
    assert text in str(value)
    assert "secret-token" not in str(value)
    assert os.listdir(tmp_path) == ["out"]
    assert target.read_bytes() == b"old"


def stay_silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


RAW: list[tuple[Handler, type[Exception], str]] = [
    (stay_silent, exceptions.Timeout, "nothing came for 1 s"),
    (lambda connection: None, exceptions.NetworkError, ""),
    (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), exceptions.ConnectError, ""),
    (answering(b"SSH-2.0-OpenSSH\r\n\r\n"), exceptions.ConnectError, "no WebSocket answered"),
]


@pytest.mark.parametrize(("handle", "kind", "text"), RAW)
def test_server_without_websocket_leaves_no_file(
    ask: Ask, tmp_path: Path, handle: Handler, kind: type[Exception], text: str
) -> None:
    with RawServer(handle) as server:
        url = server.endpoint.replace("http:", "ws:")
        value = download(ask, [pointer(url)], tmp_path / "out")
    assert isinstance(value, kind)
    assert text in str(value)
    assert os.listdir(tmp_path) == []
    assert url in str(value)


def test_refused_channel_and_wrong_url_are_connect_errors(ask: Ask, tmp_path: Path) -> None:
    value = download(ask, [pointer("ws://127.0.0.1:1")], tmp_path / "out")
    assert type(value) is exceptions.ConnectError
    assert "refused" in str(value)
    value = download(ask, [pointer("http://127.0.0.1:1")], tmp_path / "out")
    assert type(value) is exceptions.ConnectError
    assert "not the URL of a channel" in str(value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "channel",
    [
        "http://127.0.0.1:1",
        "https://user:secret@127.0.0.1/secret",
        "127.0.0.1:1",
        "//127.0.0.1:1",
        "ws://",
        "ws://:1",
        "ws://127.0.0.1:x",
        "ws://127.0.0.1:1000000",
        "ws://[::1",
        "",
    ],
)
def test_channel_without_websocket_url_is_refused_before_connecting(
    ask: Ask, tmp_path: Path, caplog: pytest.LogCaptureFixture, channel: str
) -> None:
    with FakeBridge() as fake, pymdc.Client(fake.endpoint) as client:
        fake.channel = channel
        files = pymdc.api.Files("0" * 24, pymdc.ECDSA(), client=client)
        value = ask(files.download, WHOLE, to=tmp_path / "out")
    assert type(value) is exceptions.ConnectError
    assert "expected ws://host:port" in str(value)
    assert "secret" not in str(value)
    assert fake.pointer_requests == 1, "other pointers are not asked for"
    assert [record.getMessage() for record in caplog.records if record.name == "pymdc"] == []
    assert os.listdir(tmp_path) == []


def test_one_pointer_without_websocket_url_stops_the_download_first(
    ask: Ask, tmp_path: Path
) -> None:
    connections: list[ServerConnection] = []
    with websocket(connections.append) as url:
        pointers = [pointer(url), pointer(url.replace("ws:", "http:"))]
        value = download(ask, pointers, tmp_path / "out")
    assert type(value) is exceptions.ConnectError
    assert connections == []


def test_shards_in_wrong_order_are_an_integrity_error(ask: Ask, tmp_path: Path) -> None:
    with websocket(send_shard) as url:
        value = download(ask, [pointer(url), pointer(url)], tmp_path / "out")
    assert type(value) is exceptions.IntegrityError
    assert "the file came with the hash" in str(value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "pointers", ["text", {"a": 1}, [1], [{"hash": "x"}], [{**pointer("ws://x"), "token": 5}]]
)
def test_answer_that_is_no_list_of_pointers_is_an_integrity_error(
    ask: Ask, tmp_path: Path, pointers: Any
) -> None:
    value = download(ask, pointers, tmp_path / "out")
    assert type(value) is exceptions.IntegrityError
    assert "no list of pointers" in str(value)
    assert os.listdir(tmp_path) == []


def test_full_disk_error_of_open_file_is_the_value(ask: Ask) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with websocket(send_shard) as url:
        value = download(ask, [pointer(url)], Full())
    assert type(value) is OSError
    assert value.errno == 28


def test_channel_that_cannot_send_its_first_message_is_closed() -> None:
    closed = threading.Event()

    def handle(connection: socket.socket) -> None:
        wait(connection)
        closed.set()

    def no_tls() -> ssl.SSLContext:
        raise AssertionError

    scope = CancelScope()
    with RawServer(handle) as server:
        url = f"ws://127.0.0.1:{server.port}"
        with pytest.raises(ValueError, match="imeout") as caught:
            Channel(url, {}, (AT_ONCE, -1), no_tls, scope)
        assert closed.wait(AT_ONCE)
        del caught  # until here it keeps the channel alive


def test_token_is_not_logged_even_at_debug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    caplog.set_level("DEBUG", "pymdc")
    with websocket(send_shard) as url:
        download(MODES["blocking"], [pointer(url)], tmp_path / "out")
    assert (tmp_path / "out").exists()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("pymdc")]
    assert "secret-token" not in " ".join(ours)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://bridge.example/path?token=1", "ws://bridge.example"),
        ("ws://bridge.example:80", "ws://bridge.example"),
        ("wss://user:pass@bridge.example:443", "wss://bridge.example"),
        ("ws://bridge.example:443", "ws://bridge.example:443"),
        ("wss://[::1]:80", "wss://[::1]:80"),
    ],
)
def test_channel_is_shown_by_host_and_unusual_port(url: str, shown: str) -> None:
    assert _safe_url(parse_channel_url(url)) == shown

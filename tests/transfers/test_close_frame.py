"""Channels whose server disconnects right after its close frame: the data before it counts."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, over_tls
from channels import DATA, HASH, pointer, pointer_server
from modes import PATIENCE, Ask
from servers import Handler, RawServer
from websockets.http11 import Request
from websockets.server import ServerProtocol

import pymdc
from pymdc import exceptions

NORMAL = 1000


def reset(connection: socket.socket) -> None:
    """Close *connection* so that the next bytes from the other side are answered by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def send_and_leave(
    say: Callable[[ServerProtocol], None], leave: Callable[[socket.socket], None]
) -> Handler:
    """Return a channel that sends the frames of *say* as one piece, and then calls *leave*."""

    def handle(connection: socket.socket) -> None:
        protocol, requested = ServerProtocol(), False
        while not requested:
            protocol.receive_data(connection.recv(65536))
            for event in protocol.events_received():
                if isinstance(event, Request):
                    protocol.send_response(protocol.accept(event))
                else:
                    requested = True
            if not requested:
                connection.sendall(b"".join(protocol.data_to_send()))
        say(protocol)
        connection.sendall(b"".join(protocol.data_to_send()))
        leave(connection)

    return handle


def whole(protocol: ServerProtocol) -> None:
    protocol.send_binary(DATA)
    protocol.send_close(NORMAL)


def half(protocol: ServerProtocol) -> None:
    protocol.send_binary(DATA[:5])
    protocol.send_close(NORMAL)


def without_close_frame(protocol: ServerProtocol) -> None:
    protocol.send_binary(DATA)


def going_away(protocol: ServerProtocol) -> None:
    protocol.send_binary(DATA)
    protocol.send_close(1001)


def refusal(protocol: ServerProtocol) -> None:
    protocol.send_text(json.dumps({"code": 400, "message": "no"}).encode())
    protocol.send_close(NORMAL)


def download(ask: Ask, channel: str, to: Any, **settings: Any) -> Any:
    with (
        pointer_server([pointer(channel)]) as endpoint,
        pymdc.Client(endpoint, **settings) as client,
    ):
        return ask(pymdc.api.Files("b", pymdc.ECDSA(), client=client).download, HASH, "t", to=to)


@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_shard_is_complete_if_channel_is_reset_after_close_frame(
    ask: Ask, tmp_path: Path, leave: Callable[[socket.socket], None]
) -> None:
    with RawServer(send_and_leave(whole, leave)) as server:
        for to in (tmp_path / "out", io.BytesIO()):
            value = download(ask, f"ws://127.0.0.1:{server.port}", to)
            assert value["size"] == len(DATA)
    assert (tmp_path / "out").read_bytes() == DATA


def test_shard_is_complete_if_reply_to_close_frame_is_lost(ask: Ask, tmp_path: Path) -> None:
    """Over TLS a reset may also come between the close frame and its reply."""
    trusted = certificate(tmp_path, "localhost")

    def vanish(connection: socket.socket) -> None:
        with socket.socket(fileno=connection.detach()) as plain:
            reset(plain)

    with RawServer(over_tls(trusted, send_and_leave(whole, vanish))) as server:
        channel, to = f"wss://localhost:{server.port}", io.BytesIO()
        value = download(ask, channel, to, ca_certs=str(trusted))
    assert value["size"] == len(DATA)
    assert to.getvalue() == DATA


@pytest.mark.parametrize(
    ("say", "kind", "text"),
    [
        (half, exceptions.IntegrityError, "shard 1 of 1 came with the hash"),
        (without_close_frame, exceptions.ConnectionLost, "127.0.0.1"),
        (going_away, exceptions.ConnectionLost, "closed with code 1001"),
        (refusal, exceptions.ChannelError, "answered 400: no"),
    ],
    ids=["half", "no close frame", "going away", "refusal"],
)
def test_reset_after_incomplete_shard_keeps_its_exception(
    ask: Ask,
    tmp_path: Path,
    say: Callable[[ServerProtocol], None],
    kind: type[Exception],
    text: str,
) -> None:
    with RawServer(send_and_leave(say, reset)) as server:
        value = download(ask, f"ws://127.0.0.1:{server.port}", tmp_path / "out")
    assert type(value) is kind
    assert text in str(value)
    assert list(tmp_path.iterdir()) == []


def test_close_frame_is_answered_before_connection_is_closed(ask: Ask, tmp_path: Path) -> None:
    heard, codes = threading.Event(), list[int]()

    def handle(connection: socket.socket) -> None:
        protocol = ServerProtocol()
        while data := connection.recv(65536):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if isinstance(event, Request):
                    protocol.send_response(protocol.accept(event))
                elif protocol.close_sent is None:
                    whole(protocol)
            connection.sendall(b"".join(protocol.data_to_send()))
        if protocol.close_rcvd is not None:
            codes.append(protocol.close_rcvd.code)
        heard.set()

    with RawServer(handle) as server:
        value = download(ask, f"ws://127.0.0.1:{server.port}", tmp_path / "out")
        assert heard.wait(PATIENCE)
    assert value["size"] == len(DATA)
    assert codes == [NORMAL]

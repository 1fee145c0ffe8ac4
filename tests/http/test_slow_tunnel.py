"""A proxy that answers byte by byte: the timeout for connecting includes the tunnel."""

from __future__ import annotations

import io
import socket
import threading
from contextlib import suppress

import pytest
from channels import HASH, pointer, pointer_server
from modes import Ask
from servers import RawServer, read_request

import pymdc
from pymdc import exceptions


def drip(connection: socket.socket) -> None:
    """Begin the answer to CONNECT, and send one byte of it every 0.1 seconds."""
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nServer: ")
    with suppress(OSError):
        for _ in range(200):
            connection.sendall(b"x")
            threading.Event().wait(0.1)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("no_proxies")
def test_slow_tunnel_to_bridge_is_connect_timeout(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(drip) as server:
        monkeypatch.setenv("https_proxy", server.endpoint)
        with pymdc.Client("https://bridge.invalid", timeout=(0.3, 60)) as client:
            value = ask(pymdc.api.Users("a@b.com", "pass", client=client).register)
    assert type(value) is exceptions.ConnectTimeout
    assert f"through the proxy {server.endpoint}: no connection within 0.3 s" in str(value)


@pytest.mark.usefixtures("no_proxies")
def test_slow_tunnel_to_channel_is_connect_timeout(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RawServer(drip) as server, pointer_server([pointer("wss://bridge.invalid")]) as endpoint:
        monkeypatch.setenv("https_proxy", server.endpoint)
        with pymdc.Client(endpoint, timeout=(0.3, 60)) as client:
            files = pymdc.api.Files("b", None, client=client)
            value = ask(files.download, HASH, "t", to=io.BytesIO())
    assert type(value) is exceptions.ConnectTimeout
    assert f"through the proxy {server.endpoint}: no connection within 0.3 s" in str(value)

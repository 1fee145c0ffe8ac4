"""How often the connection to a channel is tried, and after which pauses."""

from __future__ import annotations

import io
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, over_tls
from channels import DATA, HASH, pointer, pointer_server, send_shard, websocket_port
from modes import AT_ONCE, PATIENCE, Ask
from servers import RawServer, free_port, full_port, wait
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import exceptions
from pymdc._http import retry


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Give the warnings of pymdc, which are there when the test looks."""
    told: list[str] = []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    handler = Told(logging.WARNING)
    logging.getLogger("pymdc").addHandler(handler)
    yield told
    logging.getLogger("pymdc").removeHandler(handler)


def download(ask: Ask, channel: str, to: Any, **settings: Any) -> Any:
    with (
        pointer_server([pointer(channel)]) as endpoint,
        pymdc.Client(endpoint, **settings) as client,
    ):
        return ask(pymdc.api.Files("b", None, client=client).download, HASH, "t", to=to)


def seconds(warnings: list[str]) -> list[float]:
    found = [re.search(r"; retrying in ([0-9.]+) s$", line) for line in warnings]
    return [float(match[1]) for match in found if match]


def test_channel_is_tried_three_times(ask: Ask, warnings: list[str]) -> None:
    value = download(ask, f"ws://127.0.0.1:{free_port()}", io.BytesIO())
    assert type(value) is exceptions.ConnectError
    first, second = seconds(warnings)
    assert len(warnings) == 2
    assert 0.1 <= first <= 0.2
    assert 0.2 <= second <= 0.4


@pytest.mark.parametrize("failures", [1, 2])
def test_channel_that_comes_up_late_is_reached(ask: Ask, failures: int) -> None:
    port, to = free_port(), io.BytesIO()

    def treat(connection: ServerConnection) -> None:
        connection.recv()
        send_shard(connection)

    with ExitStack() as stack:

        class Starting(logging.Handler):
            left = failures

            def emit(self, record: logging.LogRecord) -> None:
                self.left -= 1
                if self.left == 0:
                    logger.removeHandler(self)
                    stack.enter_context(websocket_port(treat, port=port))

        logger = logging.getLogger("pymdc")
        logger.addHandler(Starting(logging.WARNING))
        value = download(ask, f"ws://127.0.0.1:{port}", to)
    assert value["size"] == len(DATA)
    assert to.getvalue() == DATA


@pytest.mark.parametrize("in_order", [True, False])
def test_cancel_ends_the_pause_before_a_channel_is_tried_again(
    in_order: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(retry, "_BACKOFF", PATIENCE)
    paused = threading.Event()

    class Noticing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            paused.set()

    handler = Noticing(logging.WARNING)
    logging.getLogger("pymdc").addHandler(handler)
    try:
        with (
            pointer_server([pointer(f"ws://127.0.0.1:{free_port()}")]) as endpoint,
            pymdc.Client(endpoint) as client,
        ):
            files = pymdc.api.Files("b", None, client=client)
            to = io.BytesIO() if in_order else tmp_path / "out"
            call = files.download(HASH, "t", lambda value: None, to=to)
            assert paused.wait(PATIENCE)
            assert call.cancel()
            assert type(call.result(AT_ONCE)) is exceptions.Cancelled
    finally:
        logging.getLogger("pymdc").removeHandler(handler)


def test_channel_with_an_unknown_certificate_is_tried_once(
    ask: Ask, warnings: list[str], tmp_path: Path
) -> None:
    with RawServer(over_tls(certificate(tmp_path, "localhost"), wait)) as server:
        value = download(ask, f"wss://localhost:{server.port}", io.BytesIO())
        assert server.connections == 1
    assert type(value) is exceptions.CertificateError
    assert warnings == []


def test_channel_that_is_not_connected_in_time_is_a_timeout_of_the_connection(
    ask: Ask, warnings: list[str]
) -> None:
    with full_port() as port:
        value = download(ask, f"ws://127.0.0.1:{port}", io.BytesIO(), timeout=(0.1, 60))
    assert type(value) is exceptions.ConnectTimeout
    assert f"the channel ws://127.0.0.1:{port}: no connection within 0.1 s" in str(value)
    assert len(warnings) == 2

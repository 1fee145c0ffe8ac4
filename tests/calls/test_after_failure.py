"""Calls after the bridge could not be reached: they work as if no call had failed."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from fake_bridge import DATA, HASH, FakeBridge
from modes import PATIENCE, Ask
from servers import free_port

import pymdc
from pymdc import exceptions
from pymdc.bridge import Bridge


def test_client_reaches_bridge_started_after_failed_calls(ask: Ask) -> None:
    port = free_port()
    with pymdc.Client(f"http://127.0.0.1:{port}", workers=1) as client:
        user = pymdc.api.Users("a@example.com", "pass", client=client)
        for _ in range(2):
            assert type(ask(user.register)) is exceptions.ConnectError
        with Bridge(port=port):
            assert ask(user.register)["email"] == "a@example.com"
        assert not client.outstanding


def test_workers_are_free_after_failed_connections() -> None:
    port, got = free_port(), list[Any]()
    barrier = threading.Barrier(4)

    def meet(value: Any) -> None:
        got.append(value)
        barrier.wait(PATIENCE)

    with pymdc.Client(f"http://127.0.0.1:{port}", workers=4) as client:
        user = pymdc.api.Users("a@example.com", "pass", client=client)
        failed = [user.register(got.append) for _ in range(12)]
        for call in failed:
            call.join(PATIENCE)
        assert [type(value) for value in got] == [exceptions.ConnectError] * 12
        got.clear()
        with Bridge(port=port):
            for call in [user.register(meet) for _ in range(8)]:
                call.join(PATIENCE)
    assert [type(value) for value in got] == [dict] * 8
    assert not barrier.broken


@pytest.mark.parametrize("target", ["path", "file"])
def test_download_succeeds_after_channels_were_unreachable(
    ask: Ask, tmp_path: Path, target: str
) -> None:
    file, path = io.BytesIO(), tmp_path / "out"
    to: Any = path if target == "path" else file
    with FakeBridge() as fake, pymdc.Client(fake.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        reachable, fake.channel = fake.channel, f"ws://127.0.0.1:{free_port()}"
        assert type(ask(files.download, HASH, to=to)) is exceptions.ConnectError
        assert list(tmp_path.iterdir()) == []
        assert file.getvalue() == b""
        fake.channel = reachable
        assert ask(files.download, HASH, to=to)["size"] == len(DATA)
    assert (path.read_bytes() if target == "path" else file.getvalue()) == DATA


def test_upload_starts_again_after_bridge_was_unreachable(ask: Ask) -> None:
    port = free_port()
    file = io.BytesIO(b"skipped" + DATA)
    file.seek(7)
    with pymdc.Client(f"http://127.0.0.1:{port}") as client:
        files = pymdc.api.Files("0" * 24, pymdc.ECDSA(), client=client)
        assert type(ask(files.upload, file, "t")) is exceptions.ConnectError
        assert file.tell() == 7
        with Bridge(port=port):
            assert ask(files.upload, file, "t") == {"error": "Invalid or expired token"}
            assert file.tell() == 7

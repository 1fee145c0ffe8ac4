"""Channels."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from backends import Backend
from plain_client import DATA, Clock, User, pull
from processes import MINUTE
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pymdc.bridge import Bridge
from pymdc.bridge.context import Context
from pymdc.bridge.logs import Entry
from pymdc.bridge.routes import channels
from pymdc.bridge.serving.app import App


def test_one_of_simultaneous_channels_with_a_pointer_succeeds(alice: User, bucket: str) -> None:
    [pointer] = alice.pointers(bucket, alice.upload(bucket, b"abc").json["hash"]).json
    start = threading.Barrier(8)

    def present(_: int) -> object:
        start.wait()
        try:
            return pull(pointer)
        except AssertionError as error:
            return str(error)

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(present, range(8)))
    assert outcomes.count(b"abc") == 1


def test_bare_client_gets_frames_and_a_good_close(alice: User, bucket: str) -> None:
    shard = DATA[:1000]
    [pointer] = alice.pointers(bucket, alice.upload(bucket, shard).json["hash"]).json
    fields = {name: pointer[name] for name in ("token", "hash", "operation")}
    with connect(pointer["channel"], compression=None) as channel:
        channel.send(json.dumps(fields))
        assert list(channel) == [shard]
    assert channel.protocol.close_code == 1000


def test_channel_is_only_at_the_root(alice: User) -> None:
    with pytest.raises(InvalidStatus):
        connect(alice.bridge.endpoint.replace("http", "ws") + "/keys", compression=None)


def test_successful_channel_logs_nothing(
    alice: User, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    alice.download(bucket, alice.upload(bucket, DATA).json["hash"])
    assert not {"uvicorn.error", "pymdc.bridge.channel"} & {line.name for line in caplog.records}


def test_lost_object_is_an_error_and_not_an_empty_shard(
    alice: User, bucket: str, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    [pointer] = alice.pointers(bucket, alice.upload(bucket, b"abc").json["hash"]).json
    [name] = backend.objects()
    backend.remove(name)
    with pytest.raises(AssertionError, match='"code":500,"message":"The shard is lost"'):
        pull(pointer)
    assert f"{name} is missing; admin verify says which files need it" in caplog.text
    assert "Traceback" not in caplog.text
    assert pointer["token"] not in caplog.text


def test_shard_that_is_removed_meanwhile_is_not_damaged(
    alice: User,
    bridge: Bridge,
    bucket: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = f"/buckets/{bucket}/files/{alice.upload(bucket, b'abc').json['hash']}"
    [pointer] = alice.pointers(bucket, path.rpartition("/")[2]).json

    def redeem_and_remove(*arguments: Any) -> Any:
        found = redeem(*arguments)
        assert alice.ask("DELETE", path).status == 204
        return found

    redeem = channels._redeem_pointer
    monkeypatch.setattr(channels, "_redeem_pointer", redeem_and_remove)
    with pytest.raises(AssertionError, match='"code":404,"message":"The shard was removed"'):
        pull(pointer)
    assert "admin verify" not in caplog.text


def test_object_that_is_cut_off_is_an_error(
    alice: User, bucket: str, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    [pointer] = alice.pointers(bucket, alice.upload(bucket, b"abc").json["hash"]).json
    [name] = backend.objects()
    backend.write(name, b"ab")
    with pytest.raises(AssertionError, match='"code":500,"message":"The shard is damaged"'):
        pull(pointer)
    assert f"{name} has 2 of 3 bytes; admin verify says which files need it" in caplog.text


def test_pointer_token_lives_five_minutes(alice: User, clock: Clock) -> None:
    bucket = alice.bucket()
    name = alice.upload(bucket, b"data").json["hash"]
    (early,), (late,) = (alice.pointers(bucket, name).json for _ in range(2))
    clock.seconds += 299
    assert pull(early) == b"data"
    clock.seconds += 2
    with pytest.raises(AssertionError, match="The supplied token is not accepted"):
        pull(late)


class OpenBridge(Bridge):
    """A bridge that shows its context."""

    def _application(self, context: Context, *arguments: Any) -> App:
        self.context = context
        return super()._application(context, *arguments)


def test_bridge_that_stops_waits_until_the_last_frame_of_a_channel_is_sent() -> None:
    received = iter(({"type": "websocket.connect"}, {"type": "websocket.receive", "text": "{}"}))

    async def receive() -> dict[str, str]:
        return next(received)

    async def run(context: Context) -> None:
        is_answered, is_read = asyncio.Event(), asyncio.Event()

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "websocket.send":
                is_answered.set()
            elif message["type"] == "websocket.close":
                await is_read.wait()

        ours = channels.Channels(context)
        socket = WebSocket({"type": "websocket"}, receive, send)
        serving = asyncio.create_task(ours.serve(socket, Entry("127.0.0.1", "PULL", "/")))
        await is_answered.wait()
        finishing = asyncio.create_task(ours.finish(MINUTE))
        await asyncio.wait({finishing}, timeout=0.1)
        assert not finishing.done()
        is_read.set()
        await asyncio.wait_for(asyncio.gather(serving, finishing), MINUTE)

    bridge = OpenBridge()
    with bridge:
        asyncio.run(run(bridge.context))

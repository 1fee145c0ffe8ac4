"""Channels."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from backends import Backend
from plain_client import DATA, Clock, User, pull
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pymdc.bridge import Bridge
from pymdc.bridge.routes import channels

pytestmark = pytest.mark.storage


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

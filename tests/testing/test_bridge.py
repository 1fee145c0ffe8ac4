"""The bridge for tests: failures on demand, its clock, what it records."""

from __future__ import annotations

import asyncio
import os
import unittest
from pathlib import Path

import pytest
from certificates import certificate
from modes import PATIENCE, Ask

import pymdc
from pymdc.bridge.settings import FREE_FAILURES, FREE_REGISTRATIONS
from pymdc.testing import BridgeTestCase, TestBridge, pymdc_endpoint

UPLOAD = "PUT /buckets/{id}/files"
LIST = "GET /buckets/{id}/files"
MEOW = b"meow"


@pytest.fixture
def files(bridge: TestBridge) -> pymdc.api.Files:
    return bridge.account().bucket().files


def test_failure_is_the_bridges_json_and_changes_nothing(
    bridge: TestBridge, files: pymdc.api.Files, ask: Ask
) -> None:
    bridge.fail(507, route=UPLOAD)
    refusal = {"error": "Failed by bridge.fail(507)"}
    assert ask(files.upload, bytearray(MEOW), name="cat") == refusal
    assert ask(files.list) == []


def test_failures_are_counted_and_have_a_route(bridge: TestBridge, files: pymdc.api.Files) -> None:
    bridge.fail(500, times=2, route=LIST)
    assert "token" in files.token("PUSH")
    assert ["error" in files.list() for _ in range(3)] == [True, True, False]
    bridge.fail(500, times=None)
    assert all("error" in files.list() for _ in range(3))
    bridge.reset()
    assert files.list() == []


def test_reset_forgets_wrong_passwords(bridge: TestBridge) -> None:
    keys = pymdc.api.Keys(pymdc.api.Users("nobody@example.com", "wrong", client=bridge.client))
    for _ in range(FREE_FAILURES["account"]):
        keys.list()
    bridge.reset()
    keys.list()
    assert [request.status for request in bridge.requests] == [401]


def test_failure_may_have_any_body(bridge: TestBridge, files: pymdc.api.Files) -> None:
    bridge.fail(502, body="<h1>Bad gateway</h1>")
    page = files.list()
    assert isinstance(page, pymdc.exceptions.HTTPError)
    assert page.code == 502
    bridge.fail(200, body='{"half')
    assert files.list() == '{"half'


def test_upload_that_fails_is_read_to_its_end(bridge: TestBridge, files: pymdc.api.Files) -> None:
    bridge.fail(500, route=UPLOAD)
    assert "error" in files.upload(bytearray(3_000_000), name="zeros")


def test_request_is_sent_again_after_the_time_given(
    bridge: TestBridge, files: pymdc.api.Files
) -> None:
    bridge.fail(503, retry_after=0)
    assert files.list() == []
    assert [request.status for request in bridge.requests] == [503, 200]


def test_connection_is_lost(
    bridge: TestBridge, files: pymdc.api.Files, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    bridge.disconnect(times=3, route=UPLOAD)
    value = ask(files.upload, bytearray(MEOW), name="cat")
    assert isinstance(value, pymdc.exceptions.NetworkError)
    assert {record.name for record in caplog.records} == {"pymdc"}, "the bridge has no fault"


def test_channel_fails_or_is_lost(
    bridge: TestBridge, files: pymdc.api.Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file_hash = files.upload(bytearray(MEOW), name="cat")["hash"]
    bridge.disconnect(route="PULL /")
    lost = files.download(file_hash, to=tmp_path / "cat")
    assert isinstance(lost, pymdc.exceptions.NetworkError)
    assert files.download(file_hash, to=tmp_path / "cat")["size"] == len(MEOW)
    assert [request.status for request in bridge.requests if request.method == "PULL"] == [
        None,
        200,
    ]
    bridge.fail(500, route="PULL /", times=None)
    value = files.download(file_hash, to=tmp_path / "dog")
    assert "Failed by bridge.fail(500)" in str(value)
    assert {record.name for record in caplog.records} <= {"pymdc"}


def test_delay_holds_up_no_other_request_and_ends_on_demand(
    bridge: TestBridge, files: pymdc.api.Files
) -> None:
    bridge.delay(1000, route=LIST)
    call = files.list(lambda _: None)
    assert "token" in files.token("PUSH")
    assert not call.done()
    bridge.reset()
    assert call.result(PATIENCE) == []


def test_delay_ends_when_the_bridge_is_closed() -> None:
    with TestBridge() as bridge:
        files = bridge.account().bucket().files
        bridge.delay(1000)
        call = files.list(lambda _: None)
    assert call.result(PATIENCE) == []


def test_token_expires_when_the_clock_is_advanced(
    bridge: TestBridge, files: pymdc.api.Files
) -> None:
    token = files.token("PUSH")["token"]
    bridge.clock.advance(299)
    assert files.upload(bytearray(MEOW), token, name="cat")["size"] == len(MEOW)
    token = files.token("PUSH")["token"]
    bridge.clock.advance(301)
    assert files.upload(bytearray(MEOW), token, name="cat") == {"error": "Invalid or expired token"}


def test_requests_are_recorded_without_secrets(bridge: TestBridge) -> None:
    user = pymdc.api.Users("eve@example.com", client=bridge.client)
    user.register()
    token = bridge.activation_key(user.username)
    user.activate(token)
    bridge.account().bucket()
    shown = [(request.method, request.path, request.status) for request in bridge.requests]
    assert shown == [("POST", "/users", 200), ("GET", "/activations/...", 200)]
    assert token not in repr(bridge.requests)
    pymdc.rest.REST("GET", f"/activations/{token}/more", client=bridge.client)
    request = bridge.requests[-1]
    assert (request.route, request.status) == ("", 404)
    assert token not in repr(request)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("fail", {"status": 99}, "status is 99; expected 200 to 599"),
        ("fail", {"status": 500, "times": 0}, "times is 0; expected 1 or more, or None"),
        (
            "fail",
            {"status": 500, "route": "GET /nope"},
            "route is 'GET /nope'; expected one of GET",
        ),
        ("disconnect", {"times": True}, "times is True"),
        ("delay", {"seconds": -1}, "seconds is -1; expected zero or more"),
    ],
)
def test_wrong_wish_is_refused(
    bridge: TestBridge, method: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        getattr(bridge, method)(**arguments)
    with pytest.raises(ValueError, match="expected zero or more"):
        bridge.clock.advance(-1)


def test_wrong_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="no such setting: clock, shards; expected quota, database"):
        TestBridge(shards=1, clock=None)


def test_any_number_of_accounts_may_be_made(
    bridge: TestBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FREE_REGISTRATIONS, "address", 2)
    accounts = [bridge.account() for _ in range(5)]
    assert len({account.user.username for account in accounts}) == 5
    assert "private" not in repr(accounts[0])


def test_wrong_passwords_of_other_tests_delay_no_account(
    bridge: TestBridge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(FREE_FAILURES, "address", 2)
    for name in ("one", "two"):
        stranger = pymdc.api.Users(f"{name}@example.com", "wrong", client=bridge.client)
        pymdc.api.Keys(stranger).list()
    bridge.account()
    assert "answered 429" not in caplog.text


def test_quota_limits_an_account() -> None:
    with TestBridge(quota=0.000001) as bridge:
        files = bridge.account().bucket().files
        assert "error" in files.upload(bytearray(2500), name="zeros")
        assert files.list() == []


def test_bridge_with_tls(tmp_path: Path) -> None:
    pem = certificate(tmp_path, "localhost")
    with TestBridge(tls_cert=pem, tls_key=pem, host="localhost") as bridge:
        bucket = bridge.account().bucket()
        bridge.disconnect()
        assert bucket.files.list() == []


def test_endpoint_is_named_with_a_new_default_client(bridge: TestBridge) -> None:
    before = os.environ["PYMDC_ENDPOINT"]
    key_pair, seen = bridge.account().key_pair, list[object]()
    pymdc.unirest.timeout(5)
    with pymdc_endpoint(bridge):
        assert os.environ["PYMDC_ENDPOINT"] == bridge.endpoint
        bridge.delay(0.01)
        pymdc.api.Buckets(key_pair).list(seen.append)
    assert seen == [[]], "its callback has run"
    assert os.environ["PYMDC_ENDPOINT"] == before
    with pymdc_endpoint() as own:
        assert own.endpoint != bridge.endpoint
        assert pymdc.api.Buckets(own.account().key_pair).list() == []


class Cases(BridgeTestCase, unittest.IsolatedAsyncioTestCase):
    bridge_settings = {"shard_size": 1000}  # noqa: RUF012  # as users write it

    async def test_one(self) -> None:
        self.bridge.fail(500, times=None)
        assert "error" in await asyncio.to_thread(self.bucket.files.list)

    def test_other(self) -> None:
        assert self.bridge.requests == []
        assert self.bucket.files.upload(bytearray(2500), name="zeros")["size"] == 2500


def test_case_has_one_bridge_which_is_reset_and_closed() -> None:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Cases).run(result)
    assert (result.testsRun, result.errors, result.failures) == (2, [], [])
    assert Cases._bridge is None

"""Retries: no request is executed twice or given up early, wherever a connection breaks."""

from __future__ import annotations

import email.utils
import io
import itertools
import logging
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import certificate, over_tls
from faulty_proxy import ANSWERING, BUSY, FORWARDED, HEAD, STAGES, FaultyProxy
from hypothesis import given, settings
from hypothesis import strategies as st
from modes import Ask
from processes import python
from servers import RawServer, answer_all, free_port, read_request, written

import pymdc
from pymdc import exceptions
from pymdc._calls.cancel_scope import CancelScope
from pymdc._calls.capture import capture
from pymdc._http.auth import (
    Auth,
    Basic,
    FetchedToken,
    NoAuth,
    PasswordAndSignature,
    Signature,
    Token,
)
from pymdc._http.request import build_request
from pymdc._http.response import Response
from pymdc._http.retry import MAX_NONCE_REFUSALS, Outcome, RetryState
from pymdc.api import Bucket, Buckets, Keys, Users
from pymdc.bridge import Bridge
from pymdc.rest import REST
from pymdc.testing import Account

NOW = 1_700_000_000

NO_AUTH: Auth = NoAuth()
BASIC: Auth = Basic("a", "b")
SIGNED: Auth = Signature(pymdc.ECDSA())
PROVING: Auth = PasswordAndSignature(pymdc.ECDSA(), basic=Basic("a", "b"))
TOKEN: Auth = Token("t")
FETCHED: Auth = FetchedToken(lambda scope: {"token": "t"}, CancelScope())
METHODS = ["GET", "DELETE", "POST", "PATCH", "PUT"]

REFUSED = exceptions.ConnectError("x")
LOST = exceptions.ConnectionLost("x")


def answered(status: int, body: bytes = b"{}", **headers: str) -> Response:
    return Response("http://x/", status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


NOT_FOUND = b'{"error":"Bucket not found"}'
NONCE_REFUSED = answered(401, b'{"error":"Invalid nonce supplied"}')
TOKEN_REFUSED = answered(401, b'{"error":"Invalid or expired token"}')


def state(method: str, auth: Auth) -> RetryState:
    return RetryState(build_request(method, "/x"), auth, jitter=lambda: 0.5, clock=lambda: NOW)


def delays(method: str, auth: Auth, outcome: Outcome, count: int = 3) -> list[float | None]:
    """Return the delays after each of *count* attempts that end in *outcome*."""
    retries = state(method, auth)
    return [retries.next_delay(outcome) for _ in range(count)]


BACKED_OFF = [pytest.approx(0.15), pytest.approx(0.3), None]
NEVER = [None] * 3

ANYTHING = set(itertools.product(METHODS, (NO_AUTH, BASIC, SIGNED, TOKEN, FETCHED)))
HARMLESS = set(itertools.product(("GET", "DELETE"), (BASIC, SIGNED)))
WITH_TOKEN = set(itertools.product(METHODS, [TOKEN]))
WITH_FETCHED = set(itertools.product(METHODS, [FETCHED]))
NOTHING: set[tuple[str, Auth]] = set()


@pytest.mark.parametrize(
    ("outcome", "repeated"),
    [
        (REFUSED, ANYTHING),
        (exceptions.ConnectTimeout("x"), ANYTHING),
        (exceptions.CertificateError("x"), NOTHING),
        (LOST, HARMLESS | WITH_FETCHED),
        (exceptions.Timeout("x"), HARMLESS | WITH_FETCHED),
        (exceptions.GarbledAnswer("x"), HARMLESS | WITH_FETCHED),
        (answered(200), NOTHING),
        (answered(400), NOTHING),
        (answered(401, b'{"error":"Invalid signature"}'), NOTHING),
        (TOKEN_REFUSED, WITH_FETCHED),
        (answered(200, TOKEN_REFUSED.body), NOTHING),
        (answered(200, NONCE_REFUSED.body), NOTHING),
        (answered(404), NOTHING),
        (answered(429), NOTHING),
        (answered(500, Retry_After="1"), NOTHING),
        (answered(502), NOTHING),
        (answered(503), NOTHING),
        (answered(503, Retry_After="soon"), NOTHING),
    ],
    ids=lambda value: type(value).__name__,
)
def test_requests_are_repeated_where_that_is_safe(
    outcome: Outcome, repeated: set[tuple[str, Auth]]
) -> None:
    for method, auth in ANYTHING:
        expected = BACKED_OFF if (method, auth) in repeated else NEVER
        assert delays(method, auth, outcome) == expected, (method, auth)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (email.utils.formatdate(NOW + 30, usegmt=True), 30),
        (email.utils.formatdate(NOW - 30, usegmt=True), 0),
    ],
)
def test_retry_after_is_obeyed(status: int, retry_after: str, seconds: float) -> None:
    throttled = answered(status, Retry_After=retry_after)
    for method, auth in ANYTHING - WITH_TOKEN - WITH_FETCHED:
        backed_off = [max(seconds, min(0.15 * 2**number, 1)) for number in range(6)]
        assert delays(method, auth, throttled, 6) == pytest.approx(backed_off), (method, auth)
    for method, auth in WITH_FETCHED:
        backed_off = [max(seconds, 0.15), max(seconds, 0.3)]
        *first, last = delays(method, auth, throttled)
        assert first == pytest.approx(backed_off)
        assert last is None
    for method, auth in WITH_TOKEN:
        assert delays(method, auth, throttled) == NEVER


def test_fetched_tokens_are_at_most_three() -> None:
    outcomes: list[Outcome] = [LOST, TOKEN_REFUSED, answered(503, Retry_After="0")]
    for order in itertools.permutations(outcomes):
        retries = state("PUT", FETCHED)
        assert [retries.next_delay(outcome) is None for outcome in order] == [False, False, True]


@pytest.mark.parametrize("name", ["x-token", "X-Token"])
def test_token_in_headers_is_never_repeated(name: str) -> None:
    request = build_request("GET", "/buckets/b/files/h", headers={name: "t"})
    for auth in (BASIC, SIGNED):
        for outcome in (LOST, answered(503, Retry_After="0")):
            assert RetryState(request, auth).next_delay(outcome) is None
        assert RetryState(request, auth).next_delay(REFUSED) is not None


@pytest.mark.parametrize("path", ["/activations/t", "/Activations/t", "/%61ctivations/t"])
def test_activation_is_sent_once_with_any_auth(path: str) -> None:
    for auth in (NO_AUTH, BASIC, SIGNED):
        assert RetryState(build_request("GET", path), auth).next_delay(LOST) is None


@pytest.mark.parametrize("path", ["/users/a@b.com", "/Users/a%40b.com", "/%75sers/a"])
def test_deletion_of_an_account_is_sent_once(path: str) -> None:
    for auth in (BASIC, SIGNED):
        assert RetryState(build_request("DELETE", path), auth).next_delay(LOST) is None
        assert RetryState(build_request("DELETE", path), auth).next_delay(REFUSED) is not None


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(max_codepoint=255)) | st.from_regex(r"\w+, 0?\d \w+ \d+ [0-9:]+ .\d+"))
def test_retry_after_of_any_text_raises_nothing(retry_after: str) -> None:
    wait = state("GET", SIGNED).next_delay(answered(503, Retry_After=retry_after))
    assert wait is None or wait >= 0


@pytest.mark.parametrize("retry_after", ["²", "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"])
def test_retry_after_out_of_range_is_ignored(retry_after: str) -> None:
    assert delays("GET", SIGNED, answered(503, Retry_After=retry_after)) == NEVER


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("method", METHODS)
def test_refused_nonce_is_replaced_eight_times(method: str, status: int) -> None:
    refused = answered(status, NONCE_REFUSED.body)
    *waited, last = delays(method, SIGNED, refused, MAX_NONCE_REFUSALS + 1)
    assert waited == [pytest.approx(0.015 * 2**number) for number in range(8)]
    assert last is None
    assert delays(method, PROVING, refused) == delays(method, SIGNED, refused)
    for auth in (NO_AUTH, BASIC, TOKEN, FETCHED):
        assert delays(method, auth, NONCE_REFUSED) == NEVER


def test_throttling_does_not_use_up_attempts() -> None:
    retries = state("GET", SIGNED)
    for _ in range(4):
        assert retries.next_delay(answered(503, Retry_After="0")) is not None
    assert [retries.next_delay(LOST) for _ in range(3)] == BACKED_OFF


def test_refused_nonces_do_not_use_up_attempts() -> None:
    retries = state("GET", SIGNED)
    outcomes: list[Outcome] = [NONCE_REFUSED, LOST, NONCE_REFUSED, LOST, NONCE_REFUSED, LOST]
    assert [retries.next_delay(outcome) is None for outcome in outcomes] == [False] * 5 + [True]


def test_refused_connection_does_not_clear_may_have_arrived() -> None:
    retries = state("POST", SIGNED)
    assert retries.next_delay(REFUSED) is not None
    assert retries.next_delay(LOST) is None


@pytest.mark.parametrize(
    ("method", "before", "after", "done"),
    [
        ("DELETE", LOST, answered(404, NOT_FOUND), True),
        ("DELETE", LOST, answered(403, NOT_FOUND), False),
        ("DELETE", REFUSED, answered(404, NOT_FOUND), False),
        ("GET", LOST, answered(404, NOT_FOUND), False),
        ("DELETE", LOST, answered(404, b"<html>"), False),
        ("DELETE", LOST, answered(404, b""), False),
        ("DELETE", LOST, answered(404, b'"nowhere"'), False),
    ],
)
def test_repeated_delete_counts_404_as_success(
    method: str, before: Outcome, after: Response, done: bool
) -> None:
    retries = state(method, SIGNED)
    retries.next_delay(before)
    assert (capture(lambda: retries.result(after)) == "") is done


def test_404_page_of_proxy_is_not_counted_as_deleted(ask: Ask) -> None:
    answers = [b"", written("404 Not Found", b"<html>")]

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answers.pop(0))

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        value = ask(Bucket("b", pymdc.ECDSA(), client=client).delete)
    assert type(value) is exceptions.HTTPError
    assert value.code == 404
    assert answers == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/buckets/b/files/h", {"X-Token": "t" * 64}), ("/activations/" + "a" * 64, {})],
)
def test_rest_request_that_spends_token_is_sent_once(
    ask: Ask, path: str, headers: dict[str, str]
) -> None:
    with RawServer(close_after_request) as server, pymdc.Client(server.endpoint) as client:
        for auth in (pymdc.ECDSA(), Users("a@b.com", "x", client=client)):
            value = ask(REST, "GET", path, {}, auth, headers, client=client)
            assert type(value) is exceptions.ConnectionLost
        assert server.connections == 2


def close_after_request(connection: socket.socket) -> None:
    read_request(connection)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "pymdc"):
        yield caplog


def messages(log: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in log.records if record.levelno == level]


def open_bucket(bucket_id: str, account: Account, client: pymdc.Client) -> Bucket:
    return Bucket(bucket_id, account.key_pair, client=client)


@pytest.fixture
def bucket_id(bucket: Bucket) -> str:
    return str(bucket.list()["id"])


@pytest.mark.parametrize("stage", STAGES)
def test_creating_requests_are_sent_once(
    ask: Ask,
    bridge: Bridge,
    client: pymdc.Client,
    account: Account,
    bucket: Bucket,
    bucket_id: str,
    stage: str,
) -> None:
    stranger, pair = Users("stranger-" + account.user.username, "x"), pymdc.ECDSA()
    push = bucket.files.token("PUSH")["token"]
    with FaultyProxy(bridge, *[stage] * 6) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        values = [
            ask(Users(stranger.username, "x", client=proxied).register),
            ask(Buckets(account.key_pair, client=proxied).create, "new", 1, 1, []),
            ask(Keys(account.user, client=proxied).create, pair),
            ask(open_bucket(bucket_id, account, proxied).patch, {"name": "renamed"}),
            ask(open_bucket(bucket_id, account, proxied).files.token, "PULL"),
            ask(open_bucket(bucket_id, account, proxied).files.upload, io.BytesIO(b"data"), push),
        ]
    assert [type(value) for value in values] == [exceptions.ConnectionLost] * 6
    assert proxy.methods == ["POST", "POST", "POST", "PATCH", "POST", "PUT"]

    arrived = stage in (FORWARDED, ANSWERING)
    names = [entry["name"] for entry in Buckets(account.key_pair, client=client).list()]
    assert names == (["renamed", "new"] if arrived else ["photos"])
    keys = [entry["key"] for entry in Keys(account.user).list()]
    assert keys.count(pair.get_public_key()) == arrived
    assert len(bucket.files.list()) == arrived


@pytest.mark.parametrize("stage", STAGES)
def test_requests_that_spend_token_are_sent_once(
    ask: Ask,
    bridge: Bridge,
    client: pymdc.Client,
    account: Account,
    bucket: Bucket,
    bucket_id: str,
    stage: str,
) -> None:
    user = Users("new-" + account.user.username, "x", client=client)
    user.register()
    activation = bridge.activation_key(user.username)
    name = bucket.files.upload(io.BytesIO(b"data"))["hash"]
    pull = bucket.files.token("PULL")["token"]
    with FaultyProxy(bridge, stage, stage) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        values = [
            ask(Users(user.username, "x", client=proxied).activate, activation),
            ask(open_bucket(bucket_id, account, proxied).files.download, name, pull),
        ]
    assert [type(value) for value in values] == [exceptions.ConnectionLost] * 2
    assert proxy.methods == ["GET", "GET"]

    arrived = stage in (FORWARDED, ANSWERING)
    assert ("error" in user.activate(activation)) is arrived
    assert ("error" in bucket.files.download(name, pull)) is arrived


@pytest.mark.parametrize("stage", STAGES)
def test_reading_request_is_sent_again(
    ask: Ask,
    bridge: Bridge,
    account: Account,
    bucket: Bucket,
    bucket_id: str,
    stage: str,
    log: pytest.LogCaptureFixture,
) -> None:
    shown = bucket.list()
    log.clear()
    with FaultyProxy(bridge, stage) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        assert ask(open_bucket(bucket_id, account, proxied).list) == shown
    assert proxy.methods == ["GET"] * 2

    attempts = [
        line.rpartition(", ")[2] for line in messages(log, logging.DEBUG) if ", attempt " in line
    ]
    assert attempts == ["attempt 1", "attempt 2"]
    (warning,) = messages(log, logging.WARNING)
    assert "retrying in 0." in warning

    first, second = proxy.heads
    for pattern in (rb"__nonce=([\d.]+)", rb"x-signature: (\w+)"):
        before, after = re.search(pattern, first), re.search(pattern, second)
        assert before
        assert after
        assert before[1] != after[1]


@pytest.mark.parametrize("stage", STAGES)
def test_deleting_requests_are_sent_again(
    ask: Ask,
    bridge: Bridge,
    client: pymdc.Client,
    account: Account,
    bucket: Bucket,
    bucket_id: str,
    stage: str,
) -> None:
    pair = pymdc.ECDSA()
    Keys(account.user).create(pair)
    one, other = (bucket.files.upload(io.BytesIO(data))["hash"] for data in (b"1", b"2"))
    with FaultyProxy(bridge, *[stage, ""] * 2) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        assert ask(open_bucket(bucket_id, account, proxied).files.delete, one) == ""
        assert ask(Keys(account.user, client=proxied).delete, pair) == ""
    assert set(proxy.methods) == {"DELETE"}
    assert [entry["hash"] for entry in bucket.files.list()] == [other]
    assert pair.get_public_key() not in [entry["key"] for entry in Keys(account.user).list()]

    with FaultyProxy(bridge, stage) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        assert ask(open_bucket(bucket_id, account, proxied).delete) == ""
    assert proxy.methods == ["DELETE"] * 2
    assert Buckets(account.key_pair, client=client).list() == []


def test_request_is_given_up_after_third_failure(
    ask: Ask, bridge: Bridge, account: Account, bucket: Bucket, bucket_id: str
) -> None:
    with FaultyProxy(bridge, *[HEAD] * 9) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        value = ask(open_bucket(bucket_id, account, proxied).delete)
    assert type(value) is exceptions.ConnectionLost
    assert proxy.methods == ["DELETE"] * 3
    assert bucket.list()["id"] == bucket_id


def test_throttled_delete_of_unknown_file_is_not_found(
    ask: Ask, bridge: Bridge, account: Account, bucket: Bucket, bucket_id: str
) -> None:
    with FaultyProxy(bridge, BUSY + "0") as proxy, pymdc.Client(proxy.endpoint) as proxied:
        value = ask(open_bucket(bucket_id, account, proxied).files.delete, "0" * 40)
    assert value == {"error": "File not found"}
    assert proxy.methods == ["DELETE"] * 2


@pytest.mark.parametrize("retry_after", ["0", email.utils.formatdate(0, usegmt=True)])
def test_throttled_create_is_sent_again(
    ask: Ask, bridge: Bridge, account: Account, client: pymdc.Client, retry_after: str
) -> None:
    with FaultyProxy(bridge, BUSY + retry_after) as proxy, pymdc.Client(proxy.endpoint) as proxied:
        made = ask(Buckets(account.key_pair, client=proxied).create, "new", 1, 1, [])
    assert proxy.methods == ["POST"] * 2
    assert Buckets(account.key_pair, client=client).list() == [made]


def test_throttled_request_waits_for_retry_after(bridge: Bridge) -> None:
    began = time.monotonic()
    with FaultyProxy(bridge, BUSY + "1") as proxy, pymdc.Client(proxy.endpoint) as proxied:
        assert "error" in Users("unknown@example.com", "x", client=proxied).activate("0" * 64)
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("retry_after", ["60", email.utils.formatdate(1e10, usegmt=True)])
def test_retry_after_beyond_total_is_not_waited_for(
    ask: Ask, bridge: Bridge, account: Account, retry_after: str
) -> None:
    with (
        FaultyProxy(bridge, BUSY + retry_after) as proxy,
        pymdc.Client(proxy.endpoint, total=30) as proxied,
    ):
        value = ask(Buckets(account.key_pair, client=proxied).list)
    assert isinstance(value, exceptions.HTTPError)
    assert value.code == 503
    assert proxy.methods == ["GET"]


def test_refused_connection_is_tried_three_times(ask: Ask, log: pytest.LogCaptureFixture) -> None:
    with pymdc.Client("http://127.0.0.1:1") as nowhere:
        file = io.BytesIO(b"data")
        value = ask(Bucket("b", pymdc.ECDSA(), client=nowhere).files.upload, file, "token")
    assert type(value) is exceptions.ConnectError
    assert sum(", attempt " in line for line in messages(log, logging.DEBUG)) == 3
    assert len(messages(log, logging.WARNING)) == 2


FULL = """
import os, pymdc, resource, sys

with pymdc.Client(sys.argv[1]) as client:
    user = pymdc.api.Users("a@b.com", "pass", client=client)
    print(user.register())
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
    files = []
    try:
        while True:
            files.append(os.dup(0))
    except OSError:
        pass
    print(*[%s, *map(os.close, files)][:1])
"""


@pytest.mark.parametrize("call", ["user.register()", "user.register(id).result()"])
def test_missing_file_descriptor_is_connect_error_and_tried_again(call: str) -> None:
    with RawServer(answer_all) as server:
        done = python("-c", FULL % call, server.endpoint)
    first, second = done.stdout.splitlines()
    assert first == "[]"
    assert "no connection could be made" in second
    assert "Too many open files" in second
    assert done.stderr.count("retrying") == 2


def test_connection_broken_inside_tls_is_connection_lost_and_sent_once(
    ask: Ask, tmp_path: Path
) -> None:
    def garble(connection: socket.socket) -> None:
        read_request(connection)
        with socket.socket(fileno=connection.detach()) as plain:
            plain.sendall(b"this is no TLS")

    trusted = certificate(tmp_path, "localhost")
    with RawServer(over_tls(trusted, garble)) as server:
        endpoint = f"https://localhost:{server.port}"
        with pymdc.Client(endpoint, ca_certs=str(trusted)) as client:
            value = ask(Users("a@b.com", "x", client=client).register)
        assert server.connections == 1
    assert type(value) is exceptions.ConnectionLost


def test_bridge_started_late_is_reached(ask: Ask) -> None:
    port = free_port()
    bridge = Bridge(port=port)

    class Starting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.removeHandler(self)
            bridge.__enter__()

    logger = logging.getLogger("pymdc")
    logger.addHandler(Starting(logging.WARNING))
    with pymdc.Client(f"http://127.0.0.1:{port}") as client:
        user = Users("late@example.com", "x", client=client)
        assert ask(user.register)["activated"] is False
        assert user.register() == {"error": "Email is already registered"}
    bridge.close()

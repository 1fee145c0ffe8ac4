"""The bridge behind nginx and Caddy, with the configurations in deploy/."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from logging import LogRecord
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import plain_client
import pytest
from certificates import certificate
from modes import PATIENCE, Ask
from plain_client import User, address, form, upload_headers
from reverse_proxies import DEPLOY, PROXIES, Proxy, nginx_before_several
from servers import RawServer, free_port, read_request, written

import pymdc
from pymdc.bridge import Bridge
from pymdc.bridge.settings import CHANNEL_PATIENCE_FACTOR, DRAIN_SECONDS, IDLE_CHECKS, Settings
from pymdc.testing import Account, TestBridge

SIZE = 9_000_000  # more than a shard, and more than nginx's default for a body
NO_TOKEN = "0" * 64
REFUSAL = "Invalid or expired token"
NGINX = [name for name in PROXIES if name.startswith("nginx")]


class Front(NamedTuple):
    """A proxy: how to run it, where it listens, and its certificate."""

    run: Proxy
    folder: Path
    port: int
    certificate: Path

    @property
    def endpoint(self) -> str:
        return f"https://localhost:{self.port}"


@pytest.fixture(scope="module", params=PROXIES)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp(request.param)
    made = certificate(folder, "localhost")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(made))
        yield Front(PROXIES[request.param], folder, free_port(), made)


@pytest.fixture(scope="module")
def bridge(front: Front) -> Iterator[TestBridge]:
    """Give a bridge behind the proxy."""
    with TestBridge(url=front.endpoint, trusted_proxies=("127.0.0.1",)) as running:
        port = address(running)[1]
        with front.run(front.folder, front.port, port, front.certificate):
            yield running


@pytest.fixture
def client(bridge: Bridge, front: Front) -> Iterator[pymdc.Client]:
    with pymdc.Client(front.endpoint, ca_certs=str(front.certificate)) as open_client:
        yield open_client


@pytest.fixture
def files(account: Account, client: pymdc.Client) -> pymdc.api.Files:
    answer = pymdc.api.Buckets(account.key_pair, client=client).create("photos", 1, 1, [])
    return pymdc.api.Files(answer["id"], account.key_pair, client=client)


@pytest.fixture(scope="module")
def alice(bridge: Bridge, front: Front) -> User:
    """Give a plain client that sends its requests through the proxy."""
    user, proxied = User(bridge, "alice"), Bridge()
    proxied.endpoint = front.endpoint
    return User(proxied, user.email.partition("@")[0], known=True)


def test_file_comes_back_through_the_proxy(
    ask: Ask, front: Front, files: pymdc.api.Files, tmp_path: Path
) -> None:
    content = bytearray(os.urandom(SIZE))
    entry = ask(files.upload, content, name="file")
    pointers = ask(files.download, entry["hash"])
    assert [pointer["channel"] for pointer in pointers] == [f"wss://localhost:{front.port}"] * 2
    assert ask(files.download, entry["hash"], to=tmp_path / "back")["size"] == SIZE
    assert (tmp_path / "back").read_bytes() == content


def test_chunked_upload_passes_the_proxy(alice: User) -> None:
    bucket, body = alice.bucket(), form(b"abc")
    headers = upload_headers(alice.token(bucket, "PUSH"), 3)
    pieces = (body[index : index + 1] for index in range(len(body)))
    reply = plain_client.ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", pieces, headers)
    assert (reply.status, reply.json["size"]) == (200, 3)


def test_page_and_its_rules_pass_the_proxy(alice: User) -> None:
    wants_page = {"Accept": "text/html, */*;q=0.8"}
    direct = plain_client.ask(alice.bridge, "GET", "/", None, wants_page)
    headers = {name.lower(): value for name, value in direct.headers.items()}
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    known = wants_page | {"If-None-Match": headers["etag"]}
    assert plain_client.ask(alice.bridge, "GET", "/", None, known).status == 304
    assert plain_client.ask(alice.bridge, "GET", "/").json["swagger"] == "2.0"


def test_refusal_of_a_large_upload_is_read(
    ask: Ask, files: pymdc.api.Files, account: Account, client: pymdc.Client
) -> None:
    content = bytearray(SIZE)
    stranger = pymdc.api.Files(files.bucket_id, None, client=client)
    assert ask(stranger.upload, content, NO_TOKEN) == {"error": REFUSAL}
    empty = pymdc.api.Buckets(account.key_pair, client=client).create("empty", 0, 1, [])
    full = pymdc.api.Files(empty["id"], account.key_pair, client=client)
    assert ask(full.upload, content)["error"].startswith("The bucket ")


def begin_upload(port: int, bucket: str, token: str) -> tuple[int, str]:
    """Send the beginning of an upload, and nothing more; return the status and the error."""
    headers = upload_headers(token, SIZE) | {"Content-Length": str(SIZE)}
    with closing(HTTPSConnection("localhost", port, timeout=PATIENCE)) as connection:
        connection.putrequest("PUT", f"/buckets/{bucket}/files")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(form(b"")[:20])
        response = connection.getresponse()
        return response.status, json.loads(response.read())["error"]


# Caddy passes an answer on only while the client sends, and half a second later it closes.
@pytest.mark.parametrize("front", NGINX, indirect=True, scope="module")
def test_refusal_arrives_before_the_upload_is_sent(front: Front, alice: User) -> None:
    assert begin_upload(front.port, alice.bucket(), NO_TOKEN) == (401, REFUSAL)


@pytest.mark.parametrize("front", NGINX, indirect=True, scope="module")
def test_refusal_is_read_after_the_upload_is_sent(alice: User) -> None:
    path, headers = f"/buckets/{alice.bucket()}/files", upload_headers(NO_TOKEN, SIZE)
    reply = plain_client.ask(alice.bridge, "PUT", path, form(bytes(SIZE)), headers)
    assert reply.error == (401, REFUSAL)


@pytest.mark.parametrize("front", NGINX, indirect=True, scope="module")
def test_stalled_upload_is_told_so(front: Front, tmp_path: Path) -> None:
    port = free_port()
    with Bridge(patience=0.4) as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        token = user.token(bucket, "PUSH")
        with front.run(tmp_path, port, address(bridge)[1], front.certificate):
            told = begin_upload(port, bucket, token)
    assert told == (408, "Request body stands still")


@pytest.mark.parametrize(
    "path", ["/%62uckets", "/BUCKETS/", "/keys/%7E%7e", "//keys", "/x/../keys", "/x/%2e%2E/keys"]
)
def test_signed_path_arrives_as_it_was_sent(bridge: Bridge, alice: User, path: str) -> None:
    direct = User(bridge, "alice", known=True).ask("GET", path)
    reply = alice.ask("GET", path)
    assert (reply.status, reply.json) == (direct.status, direct.json)


def test_request_is_logged_with_the_address_of_the_client(front: Front, bridge: Bridge) -> None:
    assert bridge.endpoint
    logger, records = logging.getLogger("pymdc.bridge.requests"), SimpleQueue[LogRecord]()
    handler, level = QueueHandler(records), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        source = ("127.0.0.2", 0)
        connection = HTTPSConnection("localhost", front.port, timeout=20, source_address=source)
        with closing(connection):
            connection.request("GET", "/logged", headers={"X-Forwarded-For": "203.0.113.5"})
            assert connection.getresponse().status == 404
        while "/logged" not in (line := records.get(timeout=PATIENCE).getMessage()):
            pass  # a request of another test
        assert "127.0.0.2 - GET /logged" in line
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.mark.parametrize("front", ["nginx-several"], indirect=True, scope="module")
def test_connection_that_one_bridge_does_not_accept_goes_to_the_other(
    front: Front, bridge: TestBridge, tmp_path: Path
) -> None:
    proxied, port = Bridge(), free_port()
    proxied.endpoint = f"https://localhost:{port}"
    with front.run(tmp_path, port, free_port(), front.certificate, address(bridge)[1]):
        statuses = [plain_client.ask(proxied, "GET", "/health").status for _ in range(4)]
        hidden = [plain_client.ask(proxied, "GET", path) for path in ("/ready", "/%72eady/")]
    assert statuses == 4 * [200]
    assert [reply.status for reply in hidden] == [404, 404]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_request_is_sent_to_the_bridge_once(front: Front, tmp_path: Path, method: str) -> None:
    lines: list[str] = []

    def answer_first(connection: socket.socket) -> None:
        """Answer the first request of a connection, unless it is for /lost; close at the second."""
        for second in (False, True):
            line = read_request(connection)[0].decode().partition(" HTTP")[0]
            lines.append(line)
            if second or line in ("", f"{method} /lost"):
                return
            connection.sendall(written("200 OK", b"{}"))

    port, proxied = free_port(), Bridge()
    proxied.endpoint = f"https://localhost:{port}"
    paths, statuses = ["/first", "/second", "/lost"], []
    with (
        RawServer(answer_first) as server,
        front.run(tmp_path, port, server.port, front.certificate),
    ):
        for path in paths:
            body = b"body" if method == "PUT" else None
            statuses.append(plain_client.ask(proxied, method, path, body).status)
    # One keeps the connection, on which the server gives no second answer.
    second = 502 if front.run is nginx_before_several else 200
    assert statuses == [200, second, 502]
    assert list(filter(None, lines)) == [f"{method} {path}" for path in paths]


@pytest.mark.parametrize("file", ["nginx.conf", "nginx-bridges.conf"])
def test_nginx_waits_longer_than_the_bridge(file: str) -> None:
    _, text = (DEPLOY / file).read_text(encoding="utf-8").split("client_max_body_size")
    requests, channels = (
        {name: int(seconds) for name, seconds in re.findall(r"(\w+) +(\d+)s;", part)}
        for part in text.split("location = /")
    )
    waits = {"send_timeout", "proxy_send_timeout", "proxy_read_timeout"}
    assert {*channels} == waits
    assert min(channels.values()) > CHANNEL_PATIENCE_FACTOR * Settings.patience
    lingering = {"lingering_time", "lingering_timeout"}
    assert {*requests} == waits | lingering | {"client_body_timeout"}
    # The first check is too early to judge, and the last one may be just before the end.
    longest = Settings.patience * (IDLE_CHECKS + 2) / IDLE_CHECKS
    assert min(requests[name] for name in {*requests} - lingering) > longest
    assert all(requests[name] >= DRAIN_SECONDS for name in lingering)

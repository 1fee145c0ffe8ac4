"""Requests and responses, whatever the route."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

import pytest
from backends import Backend
from plain_client import PASSWORD, User, address, ask, form, head, upload_headers

from pymdc.bridge import Bridge

MiB = 1024 * 1024


@pytest.fixture
def wire(bridge: Bridge) -> Iterator[socket.socket]:
    with socket.create_connection(address(bridge), timeout=20) as connection:
        yield connection


def read_reply(wire: socket.socket) -> tuple[int, bytes]:
    with closing(HTTPResponse(wire)) as response:
        response.begin()
        return response.status, response.read()


@pytest.mark.parametrize("path", ["/", "/nope", "/keys"])
def test_every_response_allows_the_origin(bridge: Bridge, path: str) -> None:
    headers = ask(bridge, "GET", path, None, {"Origin": "http://x.example"}).headers
    assert headers["access-control-allow-origin"] == "http://x.example"
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["vary"] == "Origin"


def test_answers_are_kept_by_no_cache(alice: User) -> None:
    bucket = alice.bucket()
    file_hash = alice.upload(bucket, b"abc").json["hash"]
    replies = [
        alice.ask("GET", "/keys"),
        alice.ask("POST", f"/buckets/{bucket}/tokens", {"operation": "PULL"}),
        alice.ask("GET", f"/buckets/{bucket}/files"),  # sent in pages
        alice.pointers(bucket, file_hash),
        ask(alice.bridge, "GET", "/keys"),
    ]
    assert [reply.headers.get("cache-control") for reply in replies] == 5 * ["no-store"]


def test_preflight_allows_the_requested_headers(bridge: Bridge) -> None:
    headers = {"Origin": "http://x.example", "Access-Control-Request-Method": "GET"}
    wanted = {"Access-Control-Request-Headers": "authorization,x-pubkey, X-Signature"}
    reply = ask(bridge, "OPTIONS", "/keys", None, {**headers, **wanted})
    assert reply.status == 204
    assert reply.headers["access-control-allow-headers"] == "authorization,x-pubkey, X-Signature"
    assert reply.headers["access-control-allow-origin"] == "http://x.example"
    reply = ask(bridge, "OPTIONS", "/keys", None, headers)
    assert reply.status == 204
    assert "access-control-allow-headers" not in reply.headers


def test_large_body_is_refused_and_the_connection_stays_usable(wire: socket.socket) -> None:
    wire.sendall(head("POST /users", f"Content-Length: {20 * MiB}") + bytes(20 * MiB))
    assert read_reply(wire) == (413, b'{"error":"Request body is too large"}')
    wire.sendall(head("GET /nope"))
    assert read_reply(wire)[0] == 404


@pytest.mark.parametrize("last", [True, False])
def test_early_refusal_reaches_a_client_that_reads_last(wire: socket.socket, last: bool) -> None:
    body = form(bytes(20 * MiB))
    fields = [f"{name}: {value}" for name, value in upload_headers("0" * 64, 20 * MiB).items()]
    fields += [f"Content-Length: {len(body)}", f"Connection: {'close' if last else 'keep-alive'}"]
    wire.sendall(head(f"PUT /buckets/{24 * '0'}/files", *fields) + body)
    assert read_reply(wire) == (401, b'{"error":"Invalid or expired token"}')
    if not last:
        wire.sendall(head("GET /nope"))
        assert read_reply(wire)[0] == 404


def test_early_refusal_is_sent_before_the_body_arrives(wire: socket.socket) -> None:
    wire.sendall(head("PUT /buckets/1/files", "Content-Length: 1000"))
    assert read_reply(wire)[0] == 401
    wire.sendall(bytes(1000) + head("GET /nope"))
    assert read_reply(wire)[0] == 404


def test_refused_request_waits_for_no_body_after_expect(wire: socket.socket) -> None:
    fields = ("Content-Length: 1000", "Expect: 100-continue")
    wire.sendall(head("PUT /buckets/1/files", *fields))
    assert read_reply(wire)[0] == 401
    assert wire.recv(1) == b""


def test_refused_client_that_awaits_no_100_can_read_the_answer(bridge: Bridge) -> None:
    fields = f"Content-Length: {8 * MiB}", "Expect: 100-continue"
    with socket.create_connection(address(bridge), timeout=20) as wire:
        wire.sendall(head("PUT /buckets/1/files", *fields) + bytes(8 * MiB))
        assert read_reply(wire)[0] == 401


def test_accepted_request_asks_for_the_body_after_expect(alice: User, wire: socket.socket) -> None:
    bucket = alice.bucket()
    body = form(b"abc")
    wire.sendall(alice.upload_head(bucket, 3, len(body), "Expect: 100-continue"))
    assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
    wire.sendall(body)
    assert read_reply(wire)[0] == 200


def test_internal_error_is_logged_and_reveals_nothing(
    bridge: Bridge, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.execute("ALTER TABLE users RENAME COLUMN password TO renamed")
    fields = json.dumps({"email": "a@example.com", "password": PASSWORD})
    status, message = ask(bridge, "POST", "/users", fields).error
    backend.execute("ALTER TABLE users RENAME COLUMN renamed TO password")
    request = message.removeprefix("Internal error in request ")
    assert (status, len(request)) == (500, 16)
    assert f"the POST request {request} failed" in caplog.text
    assert "Traceback" in caplog.text
    assert PASSWORD not in caplog.text


def test_connection_is_kept_between_requests(bridge: Bridge) -> None:
    connection = HTTPConnection(bridge.endpoint.removeprefix("http://"), timeout=20)
    with closing(connection):
        for path in ("/", "/nope", "/keys"):
            connection.request("GET", path)
            with connection.getresponse() as response:
                response.read()
        assert connection.sock

"""How requests are taken and answered, whatever they ask."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from asking import PASSWORD, User, address, ask, basic, form, head, upload_headers

from pymdc.bridge import Bridge
from pymdc.bridge.auth import token_holder
from pymdc.bridge.routes import ROUTES, Route

MiB = 1024 * 1024


@pytest.fixture
def wire(bridge: Bridge) -> Iterator[socket.socket]:
    with socket.create_connection(address(bridge), timeout=20) as connection:
        yield connection


def read_reply(wire: socket.socket) -> tuple[int, bytes]:
    with closing(HTTPResponse(wire)) as response:
        response.begin()
        return response.status, response.read()


@pytest.mark.parametrize("path", ["/keys", "/KEYS", "/Keys/"])
def test_path_is_found_in_any_case_and_with_a_slash(alice: User, path: str) -> None:
    assert [key["key"] for key in alice.ask("GET", path).json] == [alice.key.public]


def test_parameters_keep_their_case(alice: User) -> None:
    shout = alice.key.public.upper()
    assert alice.ask("POST", "/keys", {"key": shout}).json["key"] == shout
    assert alice.ask("DELETE", f"/Keys/{shout}").status == 200
    assert [key["key"] for key in alice.ask("GET", "/keys").json] == [alice.key.public]


def test_wrong_method_is_told_the_right_ones(bridge: Bridge) -> None:
    reply = ask(bridge, "PUT", "/buckets/1/files/2")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, DELETE")
    assert ask(bridge, "HEAD", "/users").status == 405


def prepared(alice: User) -> dict[str, str]:
    """Return what stands for the parameters in the paths of GET: each is there."""
    bucket = alice.bucket()
    link = {"email": "bob@example.com", "password": PASSWORD}
    assert ask(alice.bridge, "POST", "/users", json.dumps(link)).status == 200
    token = alice.bridge.activation_key(link["email"])
    return {"id": bucket, "hash": alice.upload(bucket, b"abc").json["hash"], "token": token}


READ = [route for route in ROUTES if route.method == "GET"]


@pytest.mark.parametrize("route", READ, ids=lambda route: route.path)
def test_head_is_answered_as_get_without_the_body(alice: User, route: Route) -> None:
    parameters = prepared(alice)
    path, host = route.path.format(**parameters), alice.bridge.endpoint.removeprefix("http://")

    def headers() -> dict[str, str]:
        if route.authenticate is token_holder:
            return {"x-token": alice.token(parameters["id"], "PULL")}
        return basic(alice.email, PASSWORD)

    with closing(HTTPConnection(host, timeout=20)) as connection:
        connection.request("HEAD", path, headers=headers())
        told = connection.getresponse()
        assert (told.status, told.read()) == (200, b"")
        # What is read next on the connection would begin with a body that was sent.
        connection.request("GET", path, headers=headers())
        got = connection.getresponse()
        body = got.read()
    if route.path.startswith("/activations/"):
        assert (got.status, json.loads(body)["error"]) == (400, "Invalid activation token"), "spent"
    else:
        assert (got.status, fields(told)) == (200, fields(got))
        assert int(told.headers["Content-Length"]) == len(body) > 0


def fields(response: HTTPResponse) -> dict[str, str]:
    return {name: value for name, value in response.getheaders() if name.lower() != "date"}


def test_head_is_signed_as_head_with_its_query(alice: User) -> None:
    assert alice.ask("HEAD", "/keys", nonce=5).status == 200
    assert alice.ask("HEAD", "/keys", nonce=5).status == 401, "a replay"
    signature = alice.key.sign("GET\n/keys\n__nonce=6")
    headers = {"x-pubkey": alice.key.public, "x-signature": signature}
    assert ask(alice.bridge, "HEAD", "/keys?__nonce=6", None, headers).status == 401
    assert ask(alice.bridge, "GET", "/keys?__nonce=6", None, headers).status == 200


def test_refused_head_tells_the_length_of_the_refusal(bridge: Bridge) -> None:
    told, got = (ask(bridge, method, "/nope") for method in ("HEAD", "GET"))
    assert (told.status, told.body, got.status) == (404, b"", 404)
    assert int(told.headers["content-length"]) == len(got.body) + len("HEAD") - len("GET")


@pytest.mark.parametrize("path", ["/nope", "/buckets//files", "//", "/keys/a/b", "/keys/%2e%2e/x"])
def test_unknown_path_is_404_in_json(bridge: Bridge, path: str) -> None:
    reply = ask(bridge, "GET", path)
    assert reply.status == (200 if path == "//" else 404)
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/nope", "/keys"])
def test_every_answer_is_for_the_origin_that_asks(bridge: Bridge, path: str) -> None:
    headers = ask(bridge, "GET", path, None, {"Origin": "http://x.example"}).headers
    assert headers["access-control-allow-origin"] == "http://x.example"
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["vary"] == "Origin"


def test_preflight_allows_the_headers_that_it_asks_for(bridge: Bridge) -> None:
    asks = {"Origin": "http://x.example", "Access-Control-Request-Method": "GET"}
    wanted = "authorization,x-pubkey, X-Signature"
    told = ask(bridge, "OPTIONS", "/keys", None, {**asks, "Access-Control-Request-Headers": wanted})
    assert told.status == 204
    assert told.headers["access-control-allow-headers"] == wanted
    assert told.headers["access-control-allow-origin"] == "http://x.example"
    told = ask(bridge, "OPTIONS", "/keys", None, asks)
    assert told.status == 204
    assert "access-control-allow-headers" not in told.headers


def test_description_names_every_route(bridge: Bridge) -> None:
    document = ask(bridge, "GET", "/").json
    assert document["info"]["version"] == "0.3.0"
    assert document["info"]["title"] == "MetaDisk API"
    assert document["info"]["description"]
    assert document["host"] == bridge.endpoint.removeprefix("http://")
    assert document["info"]["x-network-seed"] == bridge.endpoint.replace("http", "ws")
    described = {(method.upper(), path) for path, of in document["paths"].items() for method in of}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert all(of["summary"] for path in document["paths"].values() for of in path.values())


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("body", [b"[1]", b"nul", b"\xff", b"[" * 10**5, b"1" * 5000, b'{"a":NaN}'])
def test_body_that_is_no_object_counts_as_empty(bridge: Bridge, body: bytes) -> None:
    message = "Password must be hex encoded SHA-256 hash"
    assert ask(bridge, "POST", "/users", body).error == (400, message)


def test_half_of_a_surrogate_pair_harms_nothing(alice: User) -> None:
    assert alice.ask("POST", "/buckets", {"name": "\ud800"}).status == 401  # no nonce was read
    assert alice.ask("POST", "/buckets", {"name": "☃😀"}).json["name"] == "☃😀"


def test_null_is_no_list_of_keys_to_change_to(alice: User) -> None:
    path = f"/buckets/{alice.bucket()}"
    reply = alice.ask("PATCH", path, {"name": "other", "pubkeys": None})
    assert reply.error == (400, "Bucket validation failed")
    shown = alice.ask("GET", path).json
    assert (shown["name"], shown["pubkeys"]) == ("New Bucket", [alice.key.public])
    for dropped in ("text", 5, False):
        assert alice.ask("PATCH", path, {"pubkeys": dropped}).json == shown
    assert alice.ask("PATCH", path, {"pubkeys": []}).json["pubkeys"] == []
    assert alice.ask("POST", "/buckets", {"pubkeys": None}).json["pubkeys"] == [alice.key.public]


@pytest.mark.parametrize(
    "start", ["GET /", "GET / HTTP/1.1\r\nX: ", "{chunked}0\r\nX: ", "{chunked}1;x="]
)
def test_head_without_an_end_is_refused(bridge: Bridge, start: str) -> None:
    start = start.format(chunked="POST /users HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    with socket.create_connection(address(bridge), timeout=20) as wire:
        wire.sendall(start.encode())
        with pytest.raises(ConnectionError):
            wire.sendall(20 * MiB * b"x")


def test_large_body_is_refused_and_the_connection_goes_on(wire: socket.socket) -> None:
    wire.sendall(head("POST /users", f"Content-Length: {20 * MiB}") + bytes(20 * MiB))
    assert read_reply(wire) == (413, b'{"error":"Request body is too large"}')
    wire.sendall(head("GET /nope"))
    assert read_reply(wire)[0] == 404


@pytest.mark.parametrize("last", [True, False])
def test_early_refusal_reaches_a_sender_who_reads_last(wire: socket.socket, last: bool) -> None:
    body = form(bytes(20 * MiB))
    fields = [f"{name}: {value}" for name, value in upload_headers("0" * 64, 20 * MiB).items()]
    fields += [f"Content-Length: {len(body)}", f"Connection: {'close' if last else 'keep-alive'}"]
    wire.sendall(head(f"PUT /buckets/{24 * '0'}/files", *fields) + body)
    assert read_reply(wire) == (401, b'{"error":"Invalid or expired token"}')
    if not last:
        wire.sendall(head("GET /nope"))
        assert read_reply(wire)[0] == 404


def test_early_refusal_comes_before_the_body(wire: socket.socket) -> None:
    wire.sendall(head("PUT /buckets/1/files", "Content-Length: 1000"))
    assert read_reply(wire)[0] == 401
    wire.sendall(bytes(1000) + head("GET /nope"))
    assert read_reply(wire)[0] == 404


def test_body_that_was_not_asked_for_is_not_waited_for(wire: socket.socket) -> None:
    fields = ("Content-Length: 1000", "Expect: 100-continue")
    wire.sendall(head("PUT /buckets/1/files", *fields))
    assert read_reply(wire)[0] == 401
    assert wire.recv(1) == b""


def test_body_that_was_asked_for_is_asked_for(alice: User, wire: socket.socket) -> None:
    bucket = alice.bucket()
    body = form(b"abc")
    wire.sendall(alice.upload_head(bucket, 3, len(body), "Expect: 100-continue"))
    assert wire.recv(1000).startswith(b"HTTP/1.1 100 ")
    wire.sendall(body)
    assert read_reply(wire)[0] == 200


def test_upload_in_chunks(alice: User) -> None:
    bucket, body = alice.bucket(), form(b"abc")
    headers = upload_headers(alice.token(bucket, "PUSH"), 3)
    pieces = (body[index : index + 1] for index in range(len(body)))
    assert ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", pieces, headers).status == 200


def test_address_of_the_channel_is_the_one_that_was_asked(alice: User) -> None:
    bucket = alice.bucket()
    stored = alice.upload(bucket, b"abc").json["hash"]
    headers = {"x-token": alice.token(bucket, "PULL"), "Host": "bridge.example:8"}
    headers["X-Forwarded-Proto"] = "https"
    [pointer] = ask(alice.bridge, "GET", f"/buckets/{bucket}/files/{stored}", None, headers).json
    assert pointer["channel"] == "wss://bridge.example:8"


def test_fault_of_ours_is_logged_and_tells_nothing(
    bridge: Bridge, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(data / "metadata.sqlite")) as connection:
        connection.execute("DROP TABLE users")
    fields = json.dumps({"email": "a@example.com", "password": PASSWORD})
    assert ask(bridge, "POST", "/users", fields).error == (500, "Internal error")
    assert "Traceback" in caplog.text
    assert PASSWORD not in caplog.text


def test_connection_is_used_again(bridge: Bridge) -> None:
    connection = HTTPConnection(bridge.endpoint.removeprefix("http://"), timeout=20)
    with closing(connection):
        for path in ("/", "/nope", "/keys"):
            connection.request("GET", path)
            with connection.getresponse() as response:
                response.read()
        assert connection.sock


def test_lines_of_a_redirect_cannot_be_broken(bridge: Bridge) -> None:
    fields = {"email": "a@example.com", "password": PASSWORD}
    ask(bridge, "POST", "/users", json.dumps(fields))
    link = f"/activations/{bridge.activation_key('a@example.com')}"
    reply = ask(bridge, "GET", f"{link}?redirect=http://x.example/%0d%0aA:%20b")
    assert reply.status == 302
    assert re.fullmatch(r"http://x\.example/%0D%0AA:%20b", reply.headers["location"])

"""The table of routes: paths, methods, HEAD, and the description of the API."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

import pytest
from plain_client import PASSWORD, User, ask, basic

import pymdc
from pymdc.bridge import Bridge
from pymdc.bridge.auth import token_bearer, token_holder
from pymdc.bridge.routes import ROUTES, Route


@pytest.mark.parametrize("path", ["/keys", "/KEYS", "/Keys/"])
def test_path_matches_in_any_case_and_with_a_slash(alice: User, path: str) -> None:
    assert [key["key"] for key in alice.ask("GET", path).json] == [alice.key.public]


def test_path_parameters_keep_their_case(alice: User) -> None:
    shout = alice.key.public.upper()
    assert alice.ask("POST", "/keys", {"key": shout}).json["key"] == shout
    assert alice.ask("DELETE", f"/Keys/{shout}").status == 200
    assert [key["key"] for key in alice.ask("GET", "/keys").json] == [alice.key.public]


def test_wrong_method_gets_405_with_the_allowed_ones(bridge: Bridge) -> None:
    reply = ask(bridge, "PUT", "/buckets/1/files/2")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, PATCH, DELETE")
    assert ask(bridge, "HEAD", "/users").status == 405


def prepared(alice: User) -> dict[str, str]:
    """Return values for the parameters in the paths of GET; everything that they name exists."""
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
        if route.authenticate in (token_holder, token_bearer):
            return {"x-token": alice.token(parameters["id"], "PULL")}
        return basic(alice.email, PASSWORD)

    with closing(HTTPConnection(host, timeout=20)) as connection:
        connection.request("HEAD", path, headers=headers())
        told = connection.getresponse()
        assert (told.status, told.read()) == (200, b"")
        # A body after HEAD would be read here as the beginning of the next response.
        connection.request("GET", path, headers=headers())
        got = connection.getresponse()
        body = got.read()
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


def test_refused_head_has_the_length_of_the_refusal(bridge: Bridge) -> None:
    told, got = (ask(bridge, method, "/nope") for method in ("HEAD", "GET"))
    assert (told.status, told.body, got.status) == (404, b"", 404)
    assert int(told.headers["content-length"]) == len(got.body) + len("HEAD") - len("GET")


@pytest.mark.parametrize("path", ["/nope", "/buckets//files", "//", "/keys/a/b", "/keys/%2e%2e/x"])
def test_unknown_path_is_404_in_json(bridge: Bridge, path: str) -> None:
    reply = ask(bridge, "GET", path)
    assert reply.status == (200 if path == "//" else 404)
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("registration", ["closed", "invite"])
def test_description_tells_who_may_register(registration: str) -> None:
    with Bridge(registration=registration) as bridge:
        assert ask(bridge, "GET", "/").json["info"]["x-registration"] == registration


def test_description_names_every_route(bridge: Bridge) -> None:
    document = ask(bridge, "GET", "/").json
    assert document["info"]["version"] == "0.3.0"
    assert document["info"]["x-version"] == pymdc.__version__
    assert document["info"]["x-registration"] == "open"
    assert document["info"]["title"] == "MetaDisk API"
    assert document["info"]["description"]
    assert document["host"] == bridge.endpoint.removeprefix("http://")
    assert document["info"]["x-network-seed"] == bridge.endpoint.replace("http", "ws")
    described = {(method.upper(), path) for path, of in document["paths"].items() for method in of}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert all(of["summary"] for path in document["paths"].values() for of in path.values())

"""docs/openapi.yaml: it has every route, and tells what the bridge answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import pytest
import yaml
from modes import PATIENCE
from plain_client import DATA, PASSWORD, Key, Reply, User, ask, basic, form, upload_headers

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge
from pymdc.bridge.routes import ROUTES

DOCUMENT: Any = yaml.load(
    (Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text("utf-8"),
    getattr(yaml, "CSafeLoader", yaml.SafeLoader),  # the one in C, where there is one
)
SCHEMAS = DOCUMENT["components"]["schemas"]
FILE = file_hash(DATA)
JSON = "application/json"


def check(schema: Any, value: object) -> None:
    """Check *value* against a schema of the document."""
    from jsonschema import Draft202012Validator  # it takes long, and each worker collects this

    whole = {**schema, "components": DOCUMENT["components"]}  # for the references in it
    formats = Draft202012Validator.FORMAT_CHECKER
    assert "date-time" in formats.checkers, "without rfc3339-validator it is not checked"
    checker = Draft202012Validator(whole, format_checker=formats)
    assert [f"{fault.json_path}: {fault.message}" for fault in checker.iter_errors(value)] == []


def resolved(part: Any) -> Any:
    """Return what *part* refers to, or itself."""
    found = part
    if "$ref" in part:
        found = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
    return found


def operations() -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_document_has_every_route_and_no_other() -> None:
    assert operations().keys() == {(route.method, route.path) for route in ROUTES}


def test_routes_are_described_as_by_the_bridge(bridge: Bridge) -> None:
    paths = ask(bridge, "GET", "/").json["paths"]
    schemes = DOCUMENT["components"]["securitySchemes"]
    for (method, path), operation in operations().items():
        described = paths[path][method.lower()]
        assert operation["summary"] == described["summary"].partition("\n")[0]
        ways = [way for way in operation.get("security", DOCUMENT["security"]) if len(way) < 3]
        names = [{schemes[name].get("name", name) for name in way} for way in ways]
        assert names == [set(way) for way in described["security"]], "but not both ways at once"
        parameters = map(resolved, DOCUMENT["paths"][path].get("parameters", []))
        wanted = [parameter["name"] for parameter in described["parameters"]]
        assert [parameter["name"] for parameter in parameters] == wanted


@pytest.mark.parametrize("name", SCHEMAS)
def test_examples_are_right(name: str) -> None:
    assert SCHEMAS[name]["examples"]
    for example in SCHEMAS[name]["examples"]:
        check(SCHEMAS[name], example)


NUMBERS = itertools.count()
MAILED = SimpleQueue[str]()  # tokens


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    with Bridge(shard_size=1000, announce=lambda _, link: MAILED.put(link)) as running:
        yield running


class World(NamedTuple):
    """A user, and what a request may need."""

    user: User
    bucket: str
    path: str

    def json(self, method: str, path: str, fields: object) -> Reply:
        return ask(self.user.bridge, method, path, json.dumps(fields))

    def pull(self, path: str, **fields: str) -> Reply:
        headers = {"x-token": self.user.token(self.bucket, "PULL"), **fields}
        return ask(self.user.bridge, "GET", path, None, headers)

    def account(self, method: str, fields: object = None, password: str = PASSWORD) -> Reply:
        body = None if fields is None else json.dumps(fields)
        headers = basic(self.user.email, password)
        return ask(self.user.bridge, method, f"/users/{self.user.email}", body, headers)


@pytest.fixture
def world(bridge: Bridge) -> World:
    alice = User(bridge, f"alice{next(NUMBERS)}")
    bucket = alice.bucket()
    return World(
        alice, bucket, f"/buckets/{bucket}/files/{alice.upload(bucket, DATA).json['hash']}"
    )


def new() -> dict[str, str]:
    name = f"bob{next(NUMBERS)}"
    return {"email": f"{name}@example.com", "password": PASSWORD, "pubkey": Key(name).public}


WRONG = "0" * 64


def activate(world: World, query: str = "") -> Reply:
    email = world.json("POST", "/users", new()).json["email"]
    token = world.user.bridge.activation_key(email)
    return ask(world.user.bridge, "GET", f"/activations/{token}{query}")


def reset(world: World) -> Reply:
    while not MAILED.empty():
        MAILED.get()
    path = f"/users/{world.user.email}/reset"
    assert world.json("POST", path, {}).status == 200
    fields = {"token": MAILED.get(timeout=PATIENCE), "password": PASSWORD}
    return world.json("PUT", path, fields)


def upload(world: World, size: int) -> Reply:
    headers = upload_headers(world.user.token(world.bucket, "PUSH"), size)
    return ask(world.user.bridge, "PUT", f"/buckets/{world.bucket}/files", form(DATA), headers)


def signed(method: str, path: str, fields: Mapping[str, object] | None = None) -> Send:
    return lambda world: world.user.ask(method, path.format(**world._asdict()), fields)


Send = Callable[[World], Reply]
NOWHERE = f"/buckets/{24 * '0'}"
BUCKET = "/buckets/{bucket}"
SENT: dict[str, dict[int, Send]] = {
    "GET /": {200: lambda world: ask(world.user.bridge, "GET", "/")},
    "POST /users": {
        200: lambda world: world.json("POST", "/users", new()),
        400: lambda world: world.json("POST", "/users", {}),
    },
    "GET /activations/{token}": {
        200: activate,
        302: partial(activate, query="?redirect=/"),
        400: lambda world: ask(world.user.bridge, "GET", f"/activations/{WRONG}"),
    },
    "PATCH /users/{email}": {
        200: lambda world: world.account("PATCH", {"password": WRONG}),
        401: lambda world: world.account("PATCH", {"password": WRONG}, WRONG),
    },
    "DELETE /users/{email}": {
        204: lambda world: world.account("DELETE"),
        401: lambda world: world.account("DELETE", password=WRONG),
    },
    "POST /users/{email}/reset": {
        200: lambda world: world.json("POST", "/users/nobody@example.com/reset", {}),
        400: lambda world: world.json("POST", "/users/nobody/reset", {}),
    },
    "PUT /users/{email}/reset": {
        200: reset,
        400: lambda world: world.json("PUT", "/users/a@example.com/reset", {"password": WRONG}),
    },
    "GET /keys": {
        200: signed("GET", "/keys"),
        401: lambda world: ask(world.user.bridge, "GET", "/keys"),
    },
    "POST /keys": {
        200: signed("POST", "/keys", {"key": Key("other").public}),
        400: signed("POST", "/keys", {"key": "00"}),
    },
    "DELETE /keys/{key}": {
        200: lambda world: world.user.ask("DELETE", f"/keys/{world.user.key.public}"),
        404: signed("DELETE", f"/keys/{Key('other').public}"),
    },
    "GET /buckets": {
        200: signed("GET", "/buckets"),
        401: lambda world: ask(world.user.bridge, "GET", "/buckets"),
    },
    "POST /buckets": {
        200: signed("POST", "/buckets", {"name": None, "storage": 0.5, "transfer": None}),
        400: signed("POST", "/buckets", {"storage": -1}),
    },
    "GET /buckets/{id}": {
        200: signed("GET", BUCKET),
        400: signed("GET", "/buckets/x"),
        404: signed("GET", NOWHERE),
    },
    "PATCH /buckets/{id}": {
        200: signed("PATCH", BUCKET, {"name": "x"}),
        400: signed("PATCH", BUCKET, {"transfer": "x"}),
    },
    "DELETE /buckets/{id}": {204: signed("DELETE", BUCKET), 404: signed("DELETE", NOWHERE)},
    "POST /buckets/{id}/tokens": {
        200: signed("POST", f"{BUCKET}/tokens", {"operation": "PULL"}),
        400: signed("POST", f"{BUCKET}/tokens", {"operation": "STEAL"}),
    },
    "GET /buckets/{id}/files": {
        200: signed("GET", f"{BUCKET}/files"),
        404: signed("GET", f"{NOWHERE}/files"),
    },
    "PUT /buckets/{id}/files": {200: partial(upload, size=len(DATA)), 400: partial(upload, size=3)},
    "GET /buckets/{id}/files/{hash}": {
        200: lambda world: world.pull(world.path),
        404: lambda world: world.pull(f"{world.path[:-1]}x"),
        401: lambda world: world.pull(world.path, **{"x-token": WRONG}),
    },
    "PATCH /buckets/{id}/files/{hash}": {
        200: signed("PATCH", "{path}", {"filename": "b"}),
        400: signed("PATCH", "{path}", {}),
    },
    "DELETE /buckets/{id}/files/{hash}": {
        204: signed("DELETE", "{path}"),
        404: signed("DELETE", "{path}x"),
    },
    "GET /buckets/{id}/files/{hash}/content": {
        200: lambda world: world.pull(f"{world.path}/content"),
        206: lambda world: world.pull(f"{world.path}/content", Range="bytes=0-0"),
        304: lambda world: world.pull(f"{world.path}/content", **{"If-None-Match": "*"}),
        416: lambda world: world.pull(f"{world.path}/content", Range="bytes=-0"),
        404: lambda world: world.pull(f"{world.path}x/content"),
        401: lambda world: ask(world.user.bridge, "GET", f"{world.path}/content?token=x"),
    },
    "GET /usage": {
        200: signed("GET", "/usage"),
        401: lambda world: ask(world.user.bridge, "GET", "/usage"),
    },
}


@pytest.mark.parametrize(
    ("route", "status"), [(route, status) for route in SENT for status in SENT[route]]
)
def test_answer_is_as_the_document_says(world: World, route: str, status: int) -> None:
    reply = SENT[route][status](world)
    assert reply.status == status
    method, path = route.split()
    response = resolved(operations()[method, path]["responses"][str(status)])
    headers = {name.lower(): value for name, value in reply.headers.items()}
    for name, header in response.get("headers", {}).items():
        if resolved(header).get("required") or name.lower() in headers:
            check(resolved(header)["schema"], headers[name.lower()])
    if "content" not in response:
        assert reply.body == b""
    elif JSON in response["content"]:
        assert headers["content-type"].startswith(JSON)
        check(response["content"][JSON]["schema"], reply.json)


def test_success_and_refusal_of_each_route_are_checked() -> None:
    assert SENT.keys() == {f"{route.method} {route.path}" for route in ROUTES}
    refused = {route for route in SENT if any(status >= 400 for status in SENT[route])}
    assert SENT.keys() - refused == {"GET /"}, "which refuses nothing"


def test_refusals_of_every_route_are_as_the_document_says(bridge: Bridge) -> None:
    schema = DOCUMENT["components"]["responses"]["Refused"]["content"][JSON]["schema"]
    for method, path, status in (("GET", "/nope", 404), ("PUT", "/keys", 405)):
        reply = ask(bridge, method, path)
        assert reply.status == status
        check(schema, reply.json)

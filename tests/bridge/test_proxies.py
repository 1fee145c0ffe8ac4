"""Which headers of a proxy count, and from whom."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from plain_client import PASSWORD, Reply, User, ask, basic
from starlette.datastructures import Headers

from pymdc.bridge import Bridge
from pymdc.bridge.serving.proxies import Origin, Proxies

FOR, PROTO, HOST = "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"


def origin(trusted: tuple[str, ...], peer: str, *fields: tuple[str, str]) -> Origin:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    raw.insert(0, (b"host", b"asked.example:1"))
    scope = {"client": (peer, 1), "scheme": "http", "headers": raw}
    return Proxies(trusted).origin(scope, Headers(raw=raw))


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "address"),
    [
        ((), "127.0.0.1", "192.0.2.1", "127.0.0.1"),
        (("10.0.0.0/8",), "127.0.0.1", "192.0.2.1", "127.0.0.1"),
        (("10.0.0.0/8",), "10.9.9.9", "192.0.2.1", "192.0.2.1"),
        (("10.0.0.1/8",), "10.9.9.9", "192.0.2.1", "192.0.2.1"),
        (("10.0.0.1",), "10.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", "6.6.6.6, 192.0.2.1, 10.0.0.2,10.0.0.3", "192.0.2.1"),
        (("10.0.0.0/8",), "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (("10.0.0.1",), "10.0.0.1", "192.0.2.1:4711", "192.0.2.1"),
        (("10.0.0.1",), "10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        (("10.0.0.1",), "10.0.0.1", "2001:db8::1", "2001:db8::1"),
        (("::1",), "::1", "192.0.2.1", "192.0.2.1"),
        (("10.0.0.1",), "::ffff:10.0.0.1", "192.0.2.1", "192.0.2.1"),
        (("10.0.0.1",), "10.0.0.1", "192.0.2.1, unknown", "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", "192.0.2.1\x1b[31m", "10.0.0.1"),
        (("10.0.0.1",), "10.0.0.1", "", "10.0.0.1"),
        (("10.0.0.1",), "-", "192.0.2.1", "-"),
    ],
)
def test_address_is_the_last_that_no_trusted_proxy_has(
    trusted: tuple[str, ...], peer: str, forwarded: str, address: str
) -> None:
    assert origin(trusted, peer, (FOR, forwarded)).address == address


def test_several_fields_are_one_list() -> None:
    fields = (FOR, "6.6.6.6"), (FOR, "192.0.2.1")
    assert origin(("10.0.0.1",), "10.0.0.1", *fields).address == "192.0.2.1"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (PROTO, "https", ("https", "asked.example:1")),
        (PROTO, "HTTPS, http", ("https", "asked.example:1")),
        (PROTO, "gopher", ("http", "asked.example:1")),
        (HOST, "bridge.example", ("http", "bridge.example")),
        (HOST, "bridge.example:8443, inner", ("http", "bridge.example:8443")),
        (HOST, "[2001:db8::1]:8443", ("http", "[2001:db8::1]:8443")),
        (HOST, "x/y", ("http", "asked.example:1")),
        (HOST, "user@x", ("http", "asked.example:1")),
        (HOST, "x" * 1025, ("http", "asked.example:1")),
    ],
)
def test_scheme_and_host_are_those_of_the_first_proxy(
    name: str, value: str, expected: tuple[str, str]
) -> None:
    assert origin(("10.0.0.1",), "10.0.0.1", (name, value))[1:] == expected
    assert origin((), "10.0.0.1", (name, value))[1:] == ("http", "asked.example:1")


def channels(bridge: Bridge, headers: Mapping[str, str]) -> set[str]:
    """Return the addresses of channels in a pointer and in the description."""
    user = User(bridge, "alice")
    bucket = user.bucket()
    stored = user.upload(bucket, b"abc").json["hash"]
    token = {"x-token": user.token(bucket, "PULL")}
    path = f"/buckets/{bucket}/files/{stored}"
    [pointer] = ask(bridge, "GET", path, None, {**headers, **token}).json
    description = ask(bridge, "GET", "/", None, headers).json
    network = description["info"]["x-network-seed"]
    return {pointer["channel"], network, f"{network.partition(':')[0]}://{description['host']}"}


@pytest.mark.parametrize(
    ("trusted", "channel"),
    [((), "ws://asked.example"), (("127.0.0.1",), "wss://forwarded.example")],
    ids=["stranger", "trusted"],
)
def test_channels_are_where_the_client_asked(
    data: Path, trusted: tuple[str, ...], channel: str
) -> None:
    headers = {"Host": "asked.example", PROTO: "https", HOST: "forwarded.example"}
    with Bridge(data, trusted_proxies=trusted) as bridge:
        assert channels(bridge, headers) == {channel}


@pytest.mark.parametrize(
    ("url", "channel"),
    [("https://bridge.example/", "wss://bridge.example"), ("http://[::1]:8", "ws://[::1]:8")],
)
def test_url_of_the_bridge_is_where_its_channels_are(data: Path, url: str, channel: str) -> None:
    headers = {"Host": "asked.example", PROTO: "http", HOST: "forwarded.example"}
    links: list[str] = []
    with Bridge(
        data, url=url, trusted_proxies=("127.0.0.1",), announce=lambda _, link: links.append(link)
    ) as bridge:
        assert channels(bridge, headers) == {channel}
    assert links[0].startswith(f"{url.rstrip('/')}/activations/")


def wrong_login(bridge: Bridge, number: int, headers: Mapping[str, str]) -> Reply:
    credentials = basic(f"{number}@example.com", "0" * 64)
    return ask(bridge, "GET", "/keys", None, {**credentials, **headers})


def test_who_tries_passwords_behind_a_proxy_slows_down_nobody_else(data: Path) -> None:
    with Bridge(data, trusted_proxies=("127.0.0.1",)) as bridge:
        replies = [wrong_login(bridge, number, {FOR: "6.6.6.6"}) for number in range(22)]
        assert [reply.status for reply in replies[-2:]] == [429, 429]
        assert wrong_login(bridge, 30, {FOR: "192.0.2.1"}).status == 401


def test_stranger_cannot_hide_behind_another_address(bridge: Bridge) -> None:
    replies = [wrong_login(bridge, number, {FOR: f"192.0.2.{number}"}) for number in range(22)]
    assert [reply.status for reply in replies[-2:]] == [429, 429]


def test_log_has_the_address_of_the_client(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pymdc.bridge")
    with Bridge(data, trusted_proxies=("127.0.0.0/8",)) as bridge:
        fields = json.dumps({"email": "a@example.com", "password": PASSWORD})
        ask(bridge, "POST", "/users", fields, {FOR: "192.0.2.1"})
    assert caplog.messages[0].startswith("192.0.2.1 - POST /users 200 ")

"""Proxies, from the variables that urllib.request reads; redirects, which are not followed."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, context, over_tls
from channels import blocks, websocket_port
from modes import Ask
from proxies import Proxy
from servers import Handler, RawServer, answering, echoing, read_request, wait
from websockets.sync.server import ServerConnection

import pymdc
from pymdc import exceptions
from pymdc._http.auth import NoAuth
from pymdc._http.request import build_request
from pymdc.bridge import Bridge
from pymdc.rest import REST

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
CREDENTIALS = "al:l%20o w@d\u00e9\u20ac"
QUOTED = "al:l%2520o%20w%40d%C3%A9%E2%82%AC"

SetVariables = Callable[..., None]


@pytest.fixture(autouse=True)
def set_variables(monkeypatch: pytest.MonkeyPatch) -> SetVariables:
    """Remove the variables of proxies, and return a function that sets variables."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def use(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return use


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the certificates of a bridge and of a proxy, and a file with both."""
    folder = tmp_path_factory.mktemp("tls")
    made = {host: certificate(folder, host) for host in ("bridge.invalid", "localhost")}
    both = folder / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in made.values()))
    return {**made, "both": both}


@pytest.fixture
def hosts(bridge: Bridge) -> dict[str, int]:
    """Return the host name by which only the proxy finds the bridge."""
    return {"bridge.invalid": int(bridge.endpoint.rpartition(":")[2])}


@pytest.fixture
def secure_bridge(certificates: dict[str, Path]) -> Iterator[int]:
    """Serve answers over TLS as bridge.invalid, and yield the port."""

    def handle(secure: socket.socket) -> None:
        while read_request(secure)[0]:
            secure.sendall(ANSWER)

    with RawServer(over_tls(certificates["bridge.invalid"], handle)) as server:
        yield server.port


def send_shard(channel: ServerConnection) -> None:
    channel.recv()
    channel.send(b"shard")


@pytest.fixture
def secure_channel(certificates: dict[str, Path]) -> Iterator[int]:
    """Serve a shard over TLS as bridge.invalid, and yield the port."""
    tls = context(certificates["bridge.invalid"])
    with websocket_port(send_shard, ssl=tls) as port:
        yield port


def list_buckets(ask: Ask, endpoint: str, ca_certs: Path | None = None, times: int = 1) -> Any:
    trusted = str(ca_certs) if ca_certs else None
    with pymdc.Client(endpoint, timeout=(5, 30), ca_certs=trusted) as client:
        buckets = pymdc.api.Buckets(pymdc.ECDSA(), client=client)
        return [ask(buckets.list) for _ in range(times)][-1]


def pull_shard(channel: str, ca_certs: Path | None = None) -> Any:
    """Return the shard of *channel*, or the exception."""
    trusted = str(ca_certs) if ca_certs else None
    with pymdc.Client("https://elsewhere.invalid", ca_certs=trusted) as client:
        return pull_with_client(client, channel)


def pull_with_client(client: pymdc.Client, channel: str) -> Any:
    """Return the shard that *client* pulls from *channel*, or the exception."""
    try:
        return b"".join(blocks(client, {"hash": "h", "token": "t", "channel": channel}))
    except pymdc.PymdcError as error:
        return error


def tunnels(proxy: Proxy) -> list[str]:
    """Return the CONNECT requests without version: HTTP/1.0 up to Python 3.11, then HTTP/1.1."""
    return [line.rpartition(" ")[0] for line in proxy.requests if line.startswith("CONNECT")]


@pytest.mark.parametrize("password", ["p/w", "12/34", "p#w", "p?w", "p[w", "p]w", "p:w", "p@w", ""])
def test_proxy_password_may_contain_delimiters(
    set_variables: SetVariables, hosts: dict[str, int], password: str
) -> None:
    with Proxy(hosts, f"al:{password}") as proxy:
        set_variables(http_proxy=f" http://al:{password}@{proxy.address}/ ")
        with pymdc.Client("http://bridge.invalid") as client:
            assert client.call(build_request("GET", "/"), NoAuth(), None)["swagger"] == "2.0"


def test_proxy_may_end_lines_with_either_newline(set_variables: SetVariables) -> None:
    for end in (b"\n", b"\r\n"):
        with RawServer(answering(b"HTTP/1.0 403 No" + end + b"A: b" + end + end)) as server:
            set_variables(http_proxy=server.endpoint)
            assert "the proxy refused: 403 Forbidden" in str(pull_shard("ws://bridge.invalid"))


@pytest.mark.parametrize("credentials", ["", CREDENTIALS])
def test_lesson_goes_through_proxy(
    ask: Ask, bridge: Bridge, hosts: dict[str, int], set_variables: SetVariables, credentials: str
) -> None:
    email = f"through{credentials[:2]}{ask.__name__}@example.com"
    with Proxy(hosts, credentials) as proxy:
        set_variables(
            http_proxy=f"http://{QUOTED}@{proxy.address}" if credentials else proxy.address
        )
        with pymdc.Client("http://bridge.invalid") as client:
            user = pymdc.api.Users(email, "pass", client=client)
            assert ask(user.register)["activated"] is False
            assert ask(user.activate, bridge.activation_key(email))["activated"] is True
            keys = pymdc.api.Keys(user)
            ask(keys.create)
            pair = keys.key_pairs[0]
            made = ask(pymdc.api.Buckets(pair, client=client).create, "photos", 10, 30, [])
            bucket = pymdc.api.Bucket(made["id"], pair, client=client)
            assert ask(bucket.patch, {"name": "ü"})["name"] == "ü"
            entry, back = ask(bucket.files.upload, io.BytesIO(b"photo")), io.BytesIO()
            ask(bucket.files.download, entry["hash"], to=back)
            assert back.getvalue() == b"photo"
            assert ask(bucket.delete) == ""
    methods = " ".join(request.split(" ")[0] for request in proxy.requests)
    assert methods == "POST GET POST POST PATCH POST PUT POST GET CONNECT DELETE"
    assert proxy.requests[0] == "POST http://bridge.invalid/users HTTP/1.1"
    assert tunnels(proxy) == ["CONNECT bridge.invalid:80"]
    assert proxy.refused == 0


@pytest.mark.parametrize(
    ("path", "params", "error"),
    [
        ("/buckets/a%20b%2fü%", {}, 'value "a b/ü%" at path'),
        ("/buckets/%2E%2e", {}, 'value ".." at path'),
        ("/buckets/a:b@c!$&'()*+,;=", {"q": "a b&ü=%"}, 'value "a:b@c!$&\'()*+,;=" at path'),
    ],
)
def test_signature_of_escaped_path_is_valid_through_proxy(
    ask: Ask,
    account: Any,
    hosts: dict[str, int],
    set_variables: SetVariables,
    path: str,
    params: dict[str, str],
    error: str,
) -> None:
    with Proxy(hosts) as proxy:
        set_variables(http_proxy=proxy.address)
        with pymdc.Client("http://bridge.invalid") as client:
            value = ask(REST, "GET", path, params, account.key_pair, client=client)
    assert error in value["error"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("credentials", ["", CREDENTIALS])
def test_https_goes_through_tunnel(
    ask: Ask,
    secure_bridge: int,
    certificates: dict[str, Path],
    set_variables: SetVariables,
    credentials: str,
    scheme: str,
) -> None:
    """The connection to the proxy may use TLS; the tunnel is kept for the next call."""
    own = certificates["localhost"] if scheme == "https" else None
    with Proxy({"bridge.invalid": secure_bridge}, credentials, own) as proxy:
        known = f"{QUOTED}@" if credentials else ""
        set_variables(https_proxy=f"{scheme}://{known}{proxy.address}")
        assert list_buckets(ask, "https://bridge.invalid", certificates["both"], times=2) == []
    assert tunnels(proxy) == ["CONNECT bridge.invalid:443"]
    assert len(proxy.requests) == 1


def test_http_goes_through_https_proxy(
    ask: Ask,
    account: Any,
    hosts: dict[str, int],
    certificates: dict[str, Path],
    set_variables: SetVariables,
) -> None:
    with Proxy(hosts, certificate=certificates["localhost"]) as proxy:
        set_variables(http_proxy=f"https://{proxy.address}")
        trusted = str(certificates["both"])
        with pymdc.Client("http://bridge.invalid", ca_certs=trusted) as client:
            assert ask(pymdc.api.Buckets(account.key_pair, client=client).list) == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_secure_channel_goes_through_tunnel(
    secure_channel: int, certificates: dict[str, Path], set_variables: SetVariables, scheme: str
) -> None:
    own = certificates["localhost"] if scheme == "https" else None
    with Proxy({"bridge.invalid": secure_channel}, CREDENTIALS, own) as proxy:
        set_variables(https_proxy=f"{scheme}://{QUOTED}@{proxy.address}")
        assert pull_shard("wss://bridge.invalid:9", certificates["both"]) == b"shard"
    assert tunnels(proxy) == ["CONNECT bridge.invalid:9"]


def test_plain_channel_goes_through_https_proxy(
    certificates: dict[str, Path], set_variables: SetVariables
) -> None:
    with websocket_port(send_shard) as port:
        with Proxy({"bridge.invalid": port}, CREDENTIALS, certificates["localhost"]) as proxy:
            set_variables(http_proxy=f"https://{QUOTED}@{proxy.address}")
            assert pull_shard("ws://bridge.invalid:9", certificates["both"]) == b"shard"
    assert tunnels(proxy) == ["CONNECT bridge.invalid:9"]


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"])
def test_proxy_variable_may_be_upper_case(set_variables: SetVariables, variable: str) -> None:
    set_variables(**{variable: "http://127.0.0.1:1"})
    value = pull_shard("wss://x.invalid" if variable[4] in "sS" else "ws://x.invalid")
    assert type(value) is exceptions.ConnectError
    assert "through the proxy http://127.0.0.1:1: no connection could be made" in str(value)


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("excepted", ["*", "127.0.0.1", "x.org, 127.0.0.1:{port}"])
def test_hosts_in_no_proxy_are_reached_directly(
    ask: Ask, set_variables: SetVariables, variable: str, excepted: str
) -> None:
    with RawServer(answering(ANSWER)) as server:
        set_variables(
            http_proxy="http://127.0.0.1:1", **{variable: excepted.format(port=server.port)}
        )
        assert list_buckets(ask, server.endpoint) == []


def test_proxy_of_other_scheme_or_all_proxy_is_not_used(
    ask: Ask, set_variables: SetVariables
) -> None:
    """As in urllib.request, which does not know all_proxy."""
    with RawServer(answering(ANSWER)) as server:
        set_variables(https_proxy="http://127.0.0.1:1", all_proxy="http://127.0.0.1:1")
        assert list_buckets(ask, server.endpoint) == []


URLS = ["http://bridge.invalid", "https://bridge.invalid", "ws://bridge.invalid", "wss://x.invalid"]


def call_or_pull(ask: Ask, url: str) -> Any:
    """Return the value of a call, or the shard of a channel, at *url*."""
    return pull_shard(url) if url.startswith("ws") else list_buckets(ask, url)


@pytest.mark.parametrize("url", URLS)
def test_refusal_of_proxy_names_proxy_without_credentials(
    ask: Ask, set_variables: SetVariables, url: str
) -> None:
    with Proxy({}, CREDENTIALS) as proxy:
        address = f"http://al:geheim@{proxy.address}"
        set_variables(http_proxy=address, https_proxy=address)
        value = call_or_pull(ask, url)
    assert type(value) is exceptions.ConnectError
    assert url in str(value)
    assert f"through the proxy http://{proxy.address}: " in str(value)
    assert "the proxy refused: 407 Proxy Authentication Required" in str(value)
    assert "geheim" not in str(value)
    assert proxy.refused > 0
    assert proxy.requests == []


TOO_LONG = (b"HTTP/1.1 200 OK\r\nA: %s\r\nB: " % (b"a" * 40_000)).ljust(
    64 * 1024 - 3, b"b"
) + b"\r\n\r\n"


def close_after_request(connection: socket.socket) -> None:
    read_request(connection)


@pytest.mark.parametrize("url", ["ws://bridge.invalid", "wss://bridge.invalid"])
@pytest.mark.parametrize(
    ("handle", "text"),
    [
        (close_after_request, "the proxy's answer was incomplete or too long"),
        (answering(b"220 smtp.x ESMTP\r\n\r\n"), "the proxy's answer is not HTTP"),
        (echoing(b"HTTP/1.1 407 "), "the proxy refused: 407 Proxy Authentication Required)"),
        (echoing(b""), "the proxy's answer is not HTTP"),
        (answering(b"HTTP/1.1 2OO OK\r\n\r\n"), "the proxy's answer is not HTTP"),
        (
            answering(b"HTTP/1.1 200 OK\r\nA: b\r\n"),
            "the proxy's answer was incomplete or too long",
        ),
        (
            answering(b"HTTP/1.1 200 OK" + (b"\r\nA: " + b"b" * 40_000) * 2),
            "the proxy's answer was incomplete or too long",
        ),
        (answering(b"x" * 70_000), "the proxy's answer was incomplete or too long"),
        (answering(TOO_LONG), "the proxy's answer was incomplete or too long"),
    ],
)
def test_server_that_is_no_proxy_is_connect_error(
    set_variables: SetVariables, url: str, handle: Handler, text: str
) -> None:
    with RawServer(handle) as server:
        proxy = server.endpoint.replace("//", "//al:geheim@")
        set_variables(http_proxy=proxy, https_proxy=proxy)
        value = pull_shard(url)
    assert type(value) is exceptions.ConnectError
    assert text in str(value)
    assert CREDENTIALS not in str(value)
    assert f"through the proxy {server.endpoint}" in str(value)


def test_silent_proxy_is_connect_timeout(ask: Ask, set_variables: SetVariables) -> None:
    with RawServer(wait) as server:
        set_variables(https_proxy=server.endpoint)
        with pymdc.Client("https://bridge.invalid", timeout=(0.1, 30)) as client:
            value = ask(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list)
    assert type(value) is exceptions.ConnectTimeout
    assert f"through the proxy {server.endpoint}: no connection within 0.1 s" in str(value)


@pytest.mark.parametrize("url", ["https://bridge.invalid", "ws://bridge.invalid"])
def test_proxy_that_answers_byte_by_byte_is_connect_timeout(
    ask: Ask, set_variables: SetVariables, url: str
) -> None:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        for byte in b"HTTP/1.1 200 " + b"x" * 1_000:
            connection.sendall(bytes([byte]))
            threading.Event().wait(0.02)

    with RawServer(drip) as server:
        set_variables(http_proxy=server.endpoint, https_proxy=server.endpoint)
        with pymdc.Client("https://bridge.invalid", timeout=(0.3, 30)) as client:
            if url.startswith("ws"):
                value = pull_with_client(client, url)
            else:
                value = ask(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list)
    assert type(value) is exceptions.ConnectTimeout
    assert f"through the proxy {server.endpoint}: no connection within 0.3 s" in str(value)


def test_proxy_with_unknown_certificate_is_refused(
    ask: Ask, certificates: dict[str, Path], set_variables: SetVariables
) -> None:
    with Proxy({}, certificate=certificates["localhost"]) as proxy:
        set_variables(http_proxy=f"https://{proxy.address}", https_proxy=f"https://{proxy.address}")
        for url in URLS:
            value = call_or_pull(ask, url)
            assert type(value) is exceptions.CertificateError
            assert f"through the proxy https://{proxy.address}: the certificate" in str(value)
    assert proxy.requests == []


INVALID_HOSTS = ["x" * 70 + ".example", "a..b"]  # a part of a name has 1 to 63 characters


@pytest.mark.parametrize("scheme", ["https", "ws", "wss"])
@pytest.mark.parametrize("host", INVALID_HOSTS)
def test_invalid_host_name_is_connect_error(
    ask: Ask, set_variables: SetVariables, scheme: str, host: str
) -> None:
    with Proxy({}) as proxy:
        set_variables(http_proxy=f"http://{proxy.address}", https_proxy=f"http://{proxy.address}")
        value = call_or_pull(ask, f"{scheme}://{host}")
    assert type(value) is exceptions.ConnectError
    assert f"{scheme}://{host}" in str(value)
    assert proxy.requests == []


def test_error_page_of_proxy_is_http_error_that_names_proxy(
    ask: Ask, set_variables: SetVariables
) -> None:
    page = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\n<html>"
    with RawServer(answering(page)) as server:
        set_variables(http_proxy=server.endpoint)
        value = list_buckets(ask, "http://bridge.invalid")
    assert isinstance(value, exceptions.HTTPError)
    assert "http://bridge.invalid/buckets answered 403: not the bridge's JSON" in str(value)
    assert f"(received through the proxy {server.endpoint})" in str(value)


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://u:geheim@127.0.0.1:1",
        "http://u:geheim@host:port",
        "u:geheim",
        "http://:geheim@",
        "http://u:geheim@[",
        "http://u:geheim@x\u2100",
    ],
)
def test_invalid_proxy_variable_is_named_without_its_value(
    set_variables: SetVariables, proxy: str
) -> None:
    set_variables(http_proxy=proxy)
    with pytest.raises(ValueError, match="the variable http_proxy is not a proxy's URL") as caught:
        pymdc.Client("http://bridge.invalid")
    assert "geheim" not in str(caught.value)
    set_variables(no_proxy="x")
    value = pull_shard("ws://bridge.invalid")
    assert type(value) is exceptions.ConnectError
    assert "the variable http_proxy is not a proxy's URL" in str(value)
    assert "geheim" not in str(value)


METHODS: list[Callable[[Ask, pymdc.Client], Any]] = [
    lambda ask, client: ask(pymdc.api.Users("a@b.com", "pass", client=client).register),
    lambda ask, client: ask(pymdc.api.Users("a@b.com", client=client).activate, "0" * 64),
    lambda ask, client: ask(pymdc.api.Keys(pymdc.api.Users("a", "b", client=client)).list),
    lambda ask, client: ask(pymdc.api.Keys(pymdc.api.Users("a", "b", client=client)).create),
    lambda ask, client: ask(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list),
    lambda ask, client: ask(pymdc.api.Bucket("b", pymdc.ECDSA(), client=client).patch, {"a": 1}),
    lambda ask, client: ask(pymdc.api.Bucket("b", pymdc.ECDSA(), client=client).delete),
    lambda ask, client: ask(
        pymdc.api.Files("b", pymdc.ECDSA(), client=client).upload, io.BytesIO(b"file"), "token"
    ),
    lambda ask, client: ask(
        pymdc.api.Files("b", pymdc.ECDSA(), client=client).download, "hash", "token"
    ),
]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_of_request_is_not_followed(ask: Ask, status: int) -> None:
    with RawServer(answering(ANSWER)) as other:
        location = f"{other.endpoint}/elsewhere"
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nConnection: close"
        with RawServer(answering(f"{moved}\r\nContent-Length: 0\r\n\r\n".encode())) as server:
            with pymdc.Client(server.endpoint) as client:
                values = [method(ask, client) for method in METHODS]
        assert other.connections == 0
    for value in values:
        assert type(value) is exceptions.HTTPError
        assert (value.code, value.headers["Location"]) == (status, location)
        assert f"answered {status}: a redirect, which is not followed" in str(value)


def test_redirect_of_channel_is_not_followed() -> None:
    with RawServer(answering(ANSWER)) as other:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {other.endpoint}\r\nContent-Length: 0\r\n\r\n"
        with RawServer(answering(moved.encode())) as server:
            value = pull_shard(server.endpoint.replace("http:", "ws:"))
        assert other.connections == 0
    assert type(value) is exceptions.ConnectError
    assert "302" in str(value)

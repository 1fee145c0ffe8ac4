"""`unwrap`, and the exceptions that calls return: which one, and its text."""

from __future__ import annotations

import io
import json
import re
import socket
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from modes import PATIENCE, Ask
from servers import Handler, RawServer, answering, read_request, wait, written

import pymdc
from pymdc import exceptions
from pymdc.testing import Account


@pytest.mark.parametrize("value", [{"id": 1}, {}, [], ["error"], "", "error", None])
def test_unwrap_returns_values_unchanged(value: Any) -> None:
    assert pymdc.unwrap(value) is value


@pytest.mark.parametrize(
    "error", [exceptions.ConnectError("text"), exceptions.Cancelled("text"), OSError(2, "text")]
)
def test_unwrap_raises_exceptions(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        pymdc.unwrap(error)
    assert caught.value is error


def test_unwrap_raises_refusal_with_text_of_bridge() -> None:
    answer = {"error": "Bucket not found"}
    with pytest.raises(pymdc.BridgeError, match=r"^Bucket not found$") as caught:
        pymdc.unwrap(answer)
    assert (caught.value.message, caught.value.answer) == ("Bucket not found", answer)
    assert isinstance(caught.value, pymdc.PymdcError)


def test_unwrap_accepts_values_of_calls(ask: Ask, account: Account, client: pymdc.Client) -> None:
    assert pymdc.unwrap(ask(pymdc.api.Buckets(account.key_pair, client=client).list)) == []
    with pytest.raises(pymdc.BridgeError, match="Email is already registered"):
        pymdc.unwrap(ask(account.user.register))
    with pytest.raises(FileNotFoundError):
        pymdc.unwrap(
            ask(pymdc.api.Files("b", account.key_pair, client=client).upload, "missing.jpg")
        )


def list_keys(client: pymdc.Client) -> Callable[..., Any]:
    return pymdc.api.Keys(pymdc.api.Users("a@b.com", "pass", client=client)).list


def register(client: pymdc.Client) -> Callable[..., Any]:
    return pymdc.api.Users("a@b.com", "pass", client=client).register


def close_at_once(connection: socket.socket) -> None:
    """Close before reading."""


def close_after_request(connection: socket.socket) -> None:
    read_request(connection)


def reset(connection: socket.socket) -> None:
    read_request(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def half_the_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(written("200 OK", b"[1", length=99))
    wait(connection)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNCERTAIN = "; the request may still have been executed ("

EXCHANGES: list[tuple[Callable[[pymdc.Client], Any], Handler, type[Exception], str]] = [
    # call, handler of its connection, exception, beginning of its text
    (register, wait, exceptions.Timeout, "POST {}/users: no answer within 0.2 s" + UNCERTAIN),
    (list_keys, wait, exceptions.Timeout, "GET {}/keys: no answer within 0.2 s"),
    (list_keys, half_the_body, exceptions.Timeout, "GET {}/keys: "),
    (
        register,
        answering(b""),
        exceptions.ConnectionLost,
        "POST {}/users: the connection ended before the answer" + UNCERTAIN,
    ),
    (list_keys, close_at_once, exceptions.ConnectionLost, "GET {}/keys: the connection"),
    (
        list_keys,
        close_after_request,
        exceptions.ConnectionLost,
        "GET {}/keys: the connection ended before the answer",
    ),
    (list_keys, reset, exceptions.ConnectionLost, "GET {}/keys: the connection broke"),
    (
        list_keys,
        answering(b"HTTP/1.1 200 OK\r\nContent-"),
        exceptions.ConnectionLost,
        "GET {}/keys: ",
    ),
    (
        list_keys,
        answering(written("200 OK", b"[1", length=99)),
        exceptions.ConnectionLost,
        "GET {}/keys: the connection ended in the middle",
    ),
    (
        list_keys,
        answering(CHUNKED + b"99\r\n[1"),
        exceptions.ConnectionLost,
        "GET {}/keys: the connection ended in the middle",
    ),
    (list_keys, answering(CHUNKED + b"zz\r\n"), exceptions.ConnectionLost, "GET {}/keys: "),
    (
        list_keys,
        answering(CHUNKED + b"-5\r\n[]"),
        exceptions.GarbledAnswer,
        "GET {}/keys: the answer could not be read",
    ),
    (
        list_keys,
        answering(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        exceptions.GarbledAnswer,
        "GET {}/keys: the server switched to another protocol unasked",
    ),
    (
        list_keys,
        answering(b"220 smtp.example.com ESMTP\r\n"),
        exceptions.GarbledAnswer,
        "GET {}/keys: the answer is not HTTP",
    ),
    (
        register,
        answering(b"220 smtp.example.com ESMTP\r\n"),
        exceptions.GarbledAnswer,
        "POST {}/users: the answer is not HTTP; is something else listening there?",
    ),
    (
        list_keys,
        answering(written("302 Found", b"", "Location: http://127.0.0.1:1/")),
        exceptions.HTTPError,
        "{}/keys answered 302: a redirect, which is not followed; check the endpoint",
    ),
    (
        list_keys,
        answering(written("502 Bad Gateway", b"<html>")),
        exceptions.HTTPError,
        "{}/keys answered 502: not the bridge's JSON; is something else listening at the endpoint?",
    ),
]


@pytest.mark.parametrize(("call", "handle", "kind", "text"), EXCHANGES)
def test_exception_says_request_address_reason_and_what_to_check(
    ask: Ask, call: Callable[[pymdc.Client], Any], handle: Handler, kind: type[Exception], text: str
) -> None:
    read = 0.2 if kind is exceptions.Timeout else 30
    with RawServer(handle) as server, pymdc.Client(server.endpoint, timeout=(5, read)) as client:
        value = ask(call(client))
    assert type(value) is kind
    assert str(value).startswith(text.format(server.endpoint))
    assert isinstance(value, urllib.error.URLError)
    assert isinstance(value, OSError)
    assert isinstance(value, TimeoutError) is (kind is exceptions.Timeout)


@pytest.mark.parametrize(
    ("endpoint", "text", "reason"),
    [
        (
            "http://127.0.0.1:1",
            "no connection could be made; does anything listen there? (",
            "refused",
        ),
        ("http://no-such-host.invalid", "the host was not found; check its name (", ""),
    ],
)
def test_connect_error_says_address_reason_and_what_to_check(
    ask: Ask, endpoint: str, text: str, reason: str
) -> None:
    with pymdc.Client(endpoint, timeout=(5, 30)) as client:
        value = ask(list_keys(client))
    assert type(value) is exceptions.ConnectError
    assert not isinstance(value, TimeoutError)
    assert str(value).startswith(f"GET {endpoint}/keys: {text}")
    assert reason in str(value)


@pytest.mark.parametrize("status", ["200 OK", "400 No TLS"])
def test_tls_to_plain_server_is_connect_error(ask: Ask, status: str) -> None:
    answer = written(status, b"[]")
    with RawServer(lambda connection: connection.sendall(answer)) as server:
        with pymdc.Client(server.endpoint.replace("http:", "https:"), timeout=(5, 30)) as client:
            value = ask(list_keys(client))
    url = f"https://127.0.0.1:{server.port}/keys"
    assert type(value) is exceptions.ConnectError
    assert str(value).startswith(
        f"GET {url}: no secure connection could be made; does the server use TLS? ("
    )


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("total", "GET {}/keys: not done within 0.1 s, the client's total"),
        ("stall", "PUT {}/buckets/b/files: no progress for 0.1 s, the client's stall"),
    ],
)
def test_timeout_names_limit_that_was_exceeded(ask: Ask, setting: str, text: str) -> None:
    limits: Any = {setting: 0.1}
    with RawServer(wait) as server, pymdc.Client(server.endpoint, **limits) as client:
        if setting == "total":
            value = ask(list_keys(client))
        else:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            value = ask(files.upload, io.BytesIO(b"photo"), "token")
    assert type(value) is exceptions.Timeout
    assert str(value) == text.format(server.endpoint)


def test_call_of_closed_client_is_closed_and_names_endpoint(ask: Ask) -> None:
    client = pymdc.Client("http://127.0.0.1:1")
    client.close()
    client.close()
    value = ask(list_keys(client))
    assert type(value) is exceptions.Closed
    assert "http://127.0.0.1:1" in str(value)
    assert "closed" in str(value)


def download(ask: Ask, channel: Handler | None, pointers: Any = None) -> tuple[Any, str, str]:
    """Return the value of a download, and the addresses of the bridge and of the channel."""
    with RawServer(channel or wait) as shards:
        url = shards.endpoint.replace("http:", "ws:")
        pointer = {"hash": "0" * 40, "token": "t", "operation": "PULL", "channel": url}
        body = json.dumps([pointer] if pointers is None else pointers).encode()
        with RawServer(answering(written("200 OK", body))) as server:
            # A server that is busy, and not silent, has to have time.
            silence = 0.1 if channel is wait else PATIENCE
            with pymdc.Client(server.endpoint, timeout=(PATIENCE, silence)) as client:
                files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
                value = ask(files.download, "hash", "token", to=io.BytesIO())
    return value, server.endpoint, url


@pytest.mark.parametrize(
    ("handle", "kind", "text"),
    [
        (wait, exceptions.Timeout, "nothing came for 0.1 s"),
        (
            answering(written("200 OK")),
            exceptions.ConnectError,
            "no WebSocket answered; is something else listening there? (",
        ),
        (answering(b""), exceptions.NetworkError, ""),
    ],
)
def test_channel_error_names_channel(
    ask: Ask, handle: Handler, kind: type[Exception], text: str
) -> None:
    value, _, url = download(ask, handle)
    assert isinstance(value, kind)
    assert str(value).startswith(f"the channel {url}: {text}")


def test_answer_without_pointers_names_request(ask: Ask) -> None:
    value, endpoint, _ = download(ask, None, {"not": "pointers"})
    assert type(value) is exceptions.IntegrityError
    assert str(value) == (
        f"GET {endpoint}/buckets/b/files/hash: the answer is no list of pointers with hash, token"
        " and channel; is something else listening at the endpoint?"
    )


def test_upload_stored_under_another_hash_names_both_hashes(ask: Ask) -> None:
    with RawServer(
        answering(written("200 OK", b'{"hash": "f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0"}'))
    ) as server:
        with pymdc.Client(server.endpoint) as client:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            value = ask(files.upload, io.BytesIO(), "token")
    assert type(value) is exceptions.IntegrityError
    assert str(value) == (
        f"PUT {server.endpoint}/buckets/b/files: the bridge stored {'f0' * 20};"
        " what was sent is ba084d3f143f2896809d3f1d7dffed472b39d8de"
    )


def test_all_lists_the_exceptions_of_the_tree_and_unwrap() -> None:
    tree = re.findall(r"^(?:    |[| ]*\+-- )(\w+)", str(exceptions.__doc__), re.MULTILINE)
    classes = [
        name
        for name, member in vars(exceptions).items()
        if isinstance(member, type) and issubclass(member, exceptions.PymdcError)
    ]
    assert sorted(exceptions.__all__) == sorted([*classes, "unwrap"])
    assert sorted(tree) == sorted(classes)

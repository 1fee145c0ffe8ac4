"""What a user sees: `unwrap` for those who prefer ``try``, and what each exception's text says."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from modes import Ask
from servers import Handler, RawServer, answering

import pymdc
from pymdc import exceptions


@pytest.mark.parametrize("value", [{"id": 1}, {}, [], ["error"], "", "error", None])
def test_unwrap_returns_a_value_as_it_is(value: Any) -> None:
    assert pymdc.unwrap(value) is value


@pytest.mark.parametrize(
    "error", [exceptions.ConnectError("text"), exceptions.Cancelled("text"), OSError(2, "text")]
)
def test_unwrap_raises_an_exception_itself(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        pymdc.unwrap(error)
    assert caught.value is error


def test_unwrap_raises_a_refusal_with_the_bridges_words() -> None:
    answer = {"error": "Bucket not found"}
    with pytest.raises(pymdc.BridgeError, match=r"^Bucket not found$") as caught:
        pymdc.unwrap(answer)
    assert (caught.value.message, caught.value.answer) == ("Bucket not found", answer)
    assert isinstance(caught.value, pymdc.PymdcError)


def test_unwrap_takes_the_value_of_a_call(
    ask: Ask, account: Any, client: pymdc.Client, new_user: pymdc.api.Users
) -> None:
    assert pymdc.unwrap(ask(pymdc.api.Buckets(account.key_pair, client=client).list)) == []
    with pytest.raises(pymdc.BridgeError, match="Email is already registered"):
        pymdc.unwrap(ask(new_user.register))
    with pytest.raises(FileNotFoundError):
        pymdc.unwrap(
            ask(pymdc.api.Files("b", account.key_pair, client=client).upload, "missing.jpg")
        )


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def silence(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def listing(client: pymdc.Client) -> Callable[..., Any]:
    return pymdc.api.Keys(pymdc.api.Users("a@b.com", "pass", client=client)).list


def register(client: pymdc.Client) -> Callable[..., Any]:
    return pymdc.api.Users("a@b.com", "pass", client=client).register


CALLS: list[tuple[Callable[[pymdc.Client], Any], Handler, type[Exception], str]] = [
    (
        register,
        silence,
        exceptions.Timeout,
        "POST {}/users: no answer within 0.1 s; it may have been done all the same (",
    ),
    (
        register,
        answering(b""),
        exceptions.ConnectionLost,
        "POST {}/users: the connection ended before the answer; it may have been done all the same",
    ),
    (
        register,
        answering(b"220 smtp.example.com ESMTP\r\n"),
        exceptions.GarbledAnswer,
        "POST {}/users: the answer is not HTTP; is something else there?",
    ),
    (
        listing,
        answering(answer("302 Found", b"", "Location: http://127.0.0.1:1/")),
        exceptions.HTTPError,
        "{}/keys answered 302: a redirect, which is not followed; check the endpoint",
    ),
    (
        listing,
        answering(answer("502 Bad Gateway", b"<html>")),
        exceptions.HTTPError,
        "{}/keys answered 502: not the bridge's JSON; is something else listening at the endpoint?",
    ),
]


@pytest.mark.parametrize(("call", "treat", "kind", "text"), CALLS)
def test_an_exception_says_what_was_tried_where_what_came_and_what_to_check(
    ask: Ask, call: Callable[[pymdc.Client], Any], treat: Handler, kind: type[Exception], text: str
) -> None:
    with RawServer(treat) as server, pymdc.Client(server.endpoint, timeout=(5, 0.1)) as client:
        value = ask(call(client))
    assert type(value) is kind
    assert str(value).startswith(text.format(server.endpoint))


def test_a_connection_that_cannot_be_made_says_to_whom() -> None:
    with pymdc.Client("http://127.0.0.1:1") as client:
        text = str(listing(client)())
    began = "GET http://127.0.0.1:1/keys: no connection could be made; does anything listen there?"
    assert text.startswith(f"{began} (")
    assert "refused" in text
    with pymdc.Client("http://no-such-host.invalid") as client:
        text = str(listing(client)())
    assert text.startswith(
        "GET http://no-such-host.invalid/keys: the host was not found; check its name ("
    )


def test_a_host_that_speaks_no_tls_says_so() -> None:
    with RawServer(lambda connection: connection.sendall(answer("400 No TLS"))) as server:
        with pymdc.Client(server.endpoint.replace("http:", "https:")) as client:
            text = str(listing(client)())
    url = f"https://127.0.0.1:{server.port}/keys"
    assert text.startswith(f"GET {url}: no secure connection could be made; is it HTTPS there? (")


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("total", "GET {}/keys: not done within 0.1 s, the client's total"),
        ("stall", "PUT {}/buckets/b/files: no progress for 0.1 s, the client's stall"),
    ],
)
def test_the_time_that_was_over_is_named(ask: Ask, setting: str, text: str) -> None:
    limits: Any = {setting: 0.1}
    with RawServer(silence) as server, pymdc.Client(server.endpoint, **limits) as client:
        if setting == "total":
            value = ask(listing(client))
        else:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            value = ask(files.upload, io.BytesIO(b"photo"), "token")
    assert type(value) is exceptions.Timeout
    assert str(value) == text.format(server.endpoint)


def test_a_closed_client_says_so(ask: Ask) -> None:
    client = pymdc.Client("http://127.0.0.1:1")
    client.close()
    value = ask(listing(client))
    assert type(value) is exceptions.Closed
    assert "http://127.0.0.1:1" in str(value)
    assert "closed" in str(value)


def downloading(ask: Ask, channel: Handler | None, pointers: Any = None) -> tuple[Any, str, str]:
    """Return what comes of a download, and the addresses of the bridge and of the channel."""
    with RawServer(channel or silence) as shards:
        url = shards.endpoint.replace("http:", "ws:")
        pointer = {"hash": "0" * 40, "token": "t", "operation": "PULL", "channel": url}
        body = json.dumps([pointer] if pointers is None else pointers).encode()
        with RawServer(answering(answer("200 OK", body))) as server:
            with pymdc.Client(server.endpoint, timeout=(5, 0.1)) as client:
                files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
                value = ask(files.download, "hash", "token", to=io.BytesIO())
    return value, server.endpoint, url


@pytest.mark.parametrize(
    ("treat", "kind", "text"),
    [
        (silence, exceptions.Timeout, "nothing came for 0.1 s"),
        (
            answering(answer("200 OK")),
            exceptions.ConnectError,
            "no WebSocket answered; is something else listening there? (",
        ),
        (answering(b""), exceptions.NetworkError, ""),
    ],
)
def test_a_channel_that_fails_says_which(
    ask: Ask, treat: Handler, kind: type[Exception], text: str
) -> None:
    value, _, url = downloading(ask, treat)
    assert isinstance(value, kind)
    assert str(value).startswith(f"the channel {url}: {text}")


def test_an_answer_without_pointers_says_what_was_asked(ask: Ask) -> None:
    value, endpoint, _ = downloading(ask, None, {"not": "pointers"})
    assert type(value) is exceptions.IntegrityError
    assert str(value) == (
        f"GET {endpoint}/buckets/b/files/hash: the answer is no list of pointers with hash, token"
        " and channel; is something else listening at the endpoint?"
    )


def test_an_upload_stored_under_another_hash_says_both(ask: Ask) -> None:
    with RawServer(
        answering(answer("200 OK", b'{"hash": "f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0"}'))
    ) as server:
        with pymdc.Client(server.endpoint) as client:
            files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
            value = ask(files.upload, io.BytesIO(), "token")
    assert type(value) is exceptions.IntegrityError
    assert str(value) == (
        f"PUT {server.endpoint}/buckets/b/files: the bridge stored {'f0' * 20};"
        " what was sent is ba084d3f143f2896809d3f1d7dffed472b39d8de"
    )

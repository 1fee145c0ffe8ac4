"""Answers that are well-formed but have the wrong content."""

from __future__ import annotations

import io
import json
import socket
from typing import Any

import pytest
from channels import blocks
from modes import Ask
from servers import Handler, RawServer, read_request

import pymdc
from pymdc import exceptions
from pymdc._crypto.file_hash import file_hash
from pymdc._transfers.channel import _error_in
from pymdc.api import Files, Keys, Users

GARBAGE: list[Any] = [[], "", None, 5, {}, "error", {"token": 5, "hash": 5}]
NESTED = b"[" * 100_000


def always(body: bytes) -> Handler:
    """Return a handler that answers each request with *body*."""

    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    return handle


NO_TOKENS = [*map(json.dumps, [*GARBAGE, {"token": "a\nb"}, {"token": "\ud800"}]), NESTED.decode()]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("answer", NO_TOKENS, ids=lambda answer: answer[:20])
def test_answer_without_token_is_an_integrity_error(ask: Ask, answer: str) -> None:
    with RawServer(always(answer.encode())) as server, pymdc.Client(server.endpoint) as client:
        files = Files("b", pymdc.ECDSA(), client=client)
        for value in (ask(files.upload, io.BytesIO(b"data")), ask(files.download, "0" * 40)):
            assert type(value) is exceptions.IntegrityError
            assert f"POST {server.endpoint}/buckets/b/tokens: the answer holds no token" in str(
                value
            )


@pytest.mark.parametrize("answer", GARBAGE, ids=repr)
def test_answer_without_entry_is_an_integrity_error(ask: Ask, answer: object) -> None:
    with RawServer(always(json.dumps(answer).encode())) as server:
        with pymdc.Client(server.endpoint) as client:
            files = Files("b", pymdc.ECDSA(), client=client)
            value = ask(files.upload, io.BytesIO(b"data"), "token")
    assert type(value) is exceptions.IntegrityError
    assert file_hash(b"data") in str(value)


ODD: list[Any] = [[], "", None, 5, "error", {}, {"message": "no"}, {"key": "02" * 33}]


@pytest.mark.parametrize("answer", ODD, ids=repr)
def test_created_key_is_kept_for_any_answer(ask: Ask, answer: object) -> None:
    with RawServer(always(json.dumps(answer).encode())) as server:
        with pymdc.Client(server.endpoint) as client:
            keys = Keys(Users("a@b.com", "x", client=client))
            assert ask(keys.create) == answer
    assert len(keys.key_pairs) == 1


@pytest.mark.usefixtures("no_collection")
def test_json_nested_too_deeply_is_text(ask: Ask) -> None:
    with RawServer(always(NESTED)) as server, pymdc.Client(server.endpoint) as client:
        assert ask(Users("a@b.com", "x", client=client).register) == NESTED.decode()


LONG = "x" * 70 + ".example"  # no part of a name has more than 63


def test_impossible_host_name_is_a_connect_error(ask: Ask) -> None:
    with pymdc.Client(f"http://{LONG}") as client:
        value = ask(Users("a@b.com", "x", client=client).register)
    assert type(value) is exceptions.ConnectError
    assert "the host was not found" in str(value)


@pytest.mark.parametrize(
    "channel", [f"ws://{LONG}", "ws://h:99999", "ws://h:port", "ws://[::1", "ws://\u2100.x", ""]
)
def test_impossible_channel_url_is_a_connect_error(channel: str) -> None:
    with pymdc.Client("http://127.0.0.1:1") as client:
        pointer = {"hash": "h", "token": "t", "channel": channel}
        with pytest.raises(exceptions.ConnectError):
            list(blocks(client, pointer))


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("code", ["1e999", "null", "[]", '"x"', NESTED.decode()], ids=len)
def test_channel_error_without_numeric_code_has_code_zero(code: str) -> None:
    error = _error_in("ws://x", f'{{"code":{code},"message":"m"}}'.encode(), "token")
    assert type(error) is exceptions.ChannelError
    assert error.code == 0

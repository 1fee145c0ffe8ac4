"""What is sent and what is signed, before anything goes out."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from pymdc import ECDSA
from pymdc._crypto.nonces import Nonces
from pymdc._crypto.signing import contract
from pymdc._http.auth import Basic, NoAuth, Signature, Token, identify
from pymdc._http.request import resource, settle
from pymdc.api import Users

PAIR = ECDSA(private_key=b"\x11" * 32)


def test_the_json_that_is_signed_is_the_json_that_is_sent() -> None:
    request = settle("POST", "/buckets", {"name": "Grüße", "pubkeys": [b"02", "03"]})
    signed = Signature(PAIR, Nonces(lambda: 1_500_000_000, lambda: "")).sign(request)
    assert signed.body == b'{"name":"Gr\\u00fc\\u00dfe","pubkeys":["02","03"],"__nonce":1500.000}'
    assert signed.target == "/buckets"
    assert signed.headers["x-pubkey"] == PAIR.get_public_key()
    assert PAIR.valid_signature(signed.headers["x-signature"], b"POST\n/buckets\n" + signed.body)


def test_the_query_that_is_signed_is_the_query_that_is_sent() -> None:
    params: dict[Any, Any] = {"name": "a b&c", b"x": b"\xc3\xa9"}
    request = settle("GET", "/buckets", params)
    signed = Signature(PAIR, Nonces(lambda: 2_000_000_000, lambda: "")).sign(request)
    assert signed.body is None
    path, _, query = signed.target.partition("?")
    assert parse_qsl(query) == [("name", "a b&c"), ("x", "é"), ("__nonce", "2000.000")]
    assert PAIR.valid_signature(
        signed.headers["x-signature"], contract("GET", path, query.encode())
    )


def test_nothing_but_the_nonce_is_signed_where_there_are_no_parameters() -> None:
    nonces = Nonces(lambda: 3_000_000_000, lambda: "")
    assert Signature(PAIR, nonces).sign(settle("POST", "/x")).body == b'{"__nonce":3000.000}'
    assert Signature(PAIR, nonces).sign(settle("DELETE", "/x")).target == "/x?__nonce=3000.001"
    assert settle("POST", "/x").body == b"{}"
    assert settle("DELETE", "/x").target == "/x"


def test_a_nonce_among_the_parameters_is_replaced() -> None:
    request = settle("POST", "/x", {"__nonce": 5, "a": 1})
    assert json.loads(request.with_nonce("7.5").payload) == {"a": 1, "__nonce": 7.5}


def test_a_request_that_is_signed_twice_has_two_nonces_and_one_identity() -> None:
    auth, request = Signature(PAIR), settle("GET", "/x")
    first, second = auth.sign(request), auth.sign(request)
    assert first.target != second.target
    assert request.headers == {}
    assert Basic("a", "b").sign(request).headers.keys() == {"Authorization"}


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/buckets/ü b", "/buckets/%C3%BC%20b"),
        ("/keys/%c3%bc", "/keys/%C3%BC"),
        ("/b/../x", "/b/../x"),
        ("/100%", "/100%25"),
        ("//x", "//x"),
    ],
)
def test_the_path_is_escaped_before_it_is_signed(path: str, sent: str) -> None:
    assert settle("GET", path).path == sent


def test_ids_are_quoted_whole() -> None:
    assert resource("buckets", "../../users?x=1#y", "files") == (
        "/buckets/..%2F..%2Fusers%3Fx%3D1%23y/files"
    )


def test_basic_and_token_say_who_asks() -> None:
    user = Users("a@b.com", "pass")
    header = identify(user).sign(settle("GET", "/keys")).headers["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")) == (
        b"a@b.com:d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1"
    )
    assert Token("abc").sign(settle("GET", "/")).headers == {"x-token": "abc"}
    assert identify(None) == NoAuth()
    with pytest.raises(TypeError, match="expected Users, ECDSA or None"):
        identify(("user", "password"))


def test_no_repr_shows_a_secret() -> None:
    user = Users("a@b.com", "geheim")
    signed = Signature(PAIR).sign(settle("POST", "/x", {"password": "geheim"}))
    told = [user, identify(user), identify(user).sign(signed), Token("geheim"), Signature(PAIR)]
    text = " ".join(map(repr, [*told, Token("geheim").sign(signed)]))
    for secret in ("geheim", user.password_hash(), signed.headers["x-signature"]):
        assert secret not in text
    assert "11" * 32 not in text


def test_an_activation_token_is_not_shown() -> None:
    assert settle("GET", resource("activations", "secret")).safe_path == "/activations/..."
    for path in ("/%61ctivations/secret", "/%41CTIVATIONS/secret/x", "/activations%2fsecret"):
        assert settle("GET", path).safe_path == "/activations/..."
    assert settle("GET", "/x/activation/secret").safe_path == "/x/activation/secret"


def test_a_nonce_in_a_resource_is_not_sent() -> None:
    assert settle("GET", "/x?__nonce=5&a=b&__nonce=6", {"__nonce": 7, "c": 1}).payload == "a=b&c=1"
    assert settle("POST", "/x?__nonce=5&a=b").target == "/x?a=b"

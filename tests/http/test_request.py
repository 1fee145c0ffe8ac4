"""Requests as they are built and signed, before they are sent."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from pymdc import ECDSA
from pymdc._crypto.nonces import Nonces
from pymdc._crypto.signing import contract
from pymdc._http.auth import Basic, NoAuth, PasswordAndSignature, Signature, Token, identify
from pymdc._http.request import build_request, resource
from pymdc.api import Users

PAIR = ECDSA(private_key=b"\x11" * 32)


def test_signed_json_is_sent_json() -> None:
    request = build_request("POST", "/buckets", {"name": "Grüße", "pubkeys": [b"02", "03"]})
    signed = Signature(PAIR, Nonces(lambda: 1_500_000_000, lambda: "")).sign(request)
    assert signed.body == b'{"name":"Gr\\u00fc\\u00dfe","pubkeys":["02","03"],"__nonce":1500.000}'
    assert signed.target == "/buckets"
    assert signed.headers["x-pubkey"] == PAIR.get_public_key()
    assert PAIR.valid_signature(signed.headers["x-signature"], b"POST\n/buckets\n" + signed.body)


def test_signed_query_is_sent_query() -> None:
    params: dict[Any, Any] = {"name": "a b&c", b"x": b"\xc3\xa9"}
    request = build_request("GET", "/buckets", params)
    signed = Signature(PAIR, Nonces(lambda: 2_000_000_000, lambda: "")).sign(request)
    assert signed.body is None
    path, _, query = signed.target.partition("?")
    assert parse_qsl(query) == [("name", "a b&c"), ("x", "é"), ("__nonce", "2000.000")]
    assert PAIR.valid_signature(
        signed.headers["x-signature"], contract("GET", path, query.encode())
    )


def test_nonce_alone_is_signed_without_parameters() -> None:
    nonces = Nonces(lambda: 3_000_000_000, lambda: "")
    assert Signature(PAIR, nonces).sign(build_request("POST", "/x")).body == b'{"__nonce":3000.000}'
    assert (
        Signature(PAIR, nonces).sign(build_request("DELETE", "/x")).target == "/x?__nonce=3000.001"
    )
    assert build_request("POST", "/x").body == b"{}"
    assert build_request("DELETE", "/x").target == "/x"


def test_nonce_among_parameters_is_replaced() -> None:
    request = build_request("POST", "/x", {"__nonce": 5, "a": 1})
    assert json.loads(request.with_nonce("7.5").payload) == {"a": 1, "__nonce": 7.5}


def test_request_signed_twice_has_two_nonces_and_one_identity() -> None:
    auth, request = Signature(PAIR), build_request("GET", "/x")
    first, second = auth.sign(request), auth.sign(request)
    assert first.target != second.target
    assert request.headers == {}
    assert Basic("a", "b").sign(request).headers.keys() == {"Authorization"}


def test_password_and_signature_are_sent_together() -> None:
    nonces, basic = Nonces(lambda: 1_500_000_000, lambda: ""), Basic("a", "b")
    auth, request = PasswordAndSignature(PAIR, nonces, basic=basic), build_request("POST", "/keys")
    signed = auth.sign(request)
    assert signed.headers.keys() == {"Authorization", "x-pubkey", "x-signature"}
    assert signed.headers["Authorization"] == basic.sign(request).headers["Authorization"]
    assert PAIR.valid_signature(signed.headers["x-signature"], b'POST\n/keys\n{"__nonce":1500.000}')
    assert auth.sign(request).payload == '{"__nonce":1500.001}'


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
def test_path_is_escaped_before_signing(path: str, sent: str) -> None:
    assert build_request("GET", path).path == sent


def test_ids_are_fully_quoted() -> None:
    assert resource("buckets", "../../users?x=1#y", "files") == (
        "/buckets/..%2F..%2Fusers%3Fx%3D1%23y/files"
    )


def test_basic_and_token_send_identity() -> None:
    user = Users("a@b.com", "pass")
    header = identify(user).sign(build_request("GET", "/keys")).headers["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")) == (
        b"a@b.com:d74ff0ee8da3b9806b18c877dbf29bbde50b5bd8e4dad7a3a725000feb82e8f1"
    )
    assert Token("abc").sign(build_request("GET", "/")).headers == {"x-token": "abc"}
    assert isinstance(identify(None), NoAuth)
    with pytest.raises(TypeError, match="expected Users, ECDSA or None"):
        identify(("user", "password"))


def test_reprs_show_no_secret() -> None:
    user = Users("a@b.com", "geheim")
    signed = Signature(PAIR).sign(build_request("POST", "/x", {"password": "geheim"}))
    shown = [user, identify(user), identify(user).sign(signed), Token("geheim"), Signature(PAIR)]
    text = " ".join(map(repr, [*shown, Token("geheim").sign(signed)]))
    for secret in ("geheim", user.password_hash(), signed.headers["x-signature"]):
        assert secret not in text
    assert "11" * 32 not in text


def test_activation_token_is_not_in_safe_path() -> None:
    assert build_request("GET", resource("activations", "secret")).safe_path == "/activations/..."
    for path in ("/%61ctivations/secret", "/%41CTIVATIONS/secret/x", "/activations%2fsecret"):
        assert build_request("GET", path).safe_path == "/activations/..."
    assert build_request("GET", "/x/activation/secret").safe_path == "/x/activation/secret"


def test_nonce_in_resource_is_not_sent() -> None:
    assert (
        build_request("GET", "/x?__nonce=5&a=b&__nonce=6", {"__nonce": 7, "c": 1}).payload
        == "a=b&c=1"
    )
    assert build_request("POST", "/x?__nonce=5&a=b").target == "/x?a=b"

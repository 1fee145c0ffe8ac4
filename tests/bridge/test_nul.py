"""The character NUL, which PostgreSQL stores in no text, is refused wherever a client sends it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from plain_client import DATA, PASSWORD, User, ask, basic, form, pull, upload_headers

from pymdc.bridge import Bridge

HAS_NUL = 400, "A text contains the character NUL"
NUL = "a\0b"


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", "/buckets", {"name": NUL}),
        ("POST", "/buckets", {"name": "a", "pubkeys": [NUL]}),
        ("POST", "/buckets", {NUL: 5}),
        ("PATCH", "/buckets/BUCKET", {"name": NUL}),
        ("PATCH", "/buckets/BUCKET/files/FILE", {"filename": NUL}),
        ("POST", "/buckets/BUCKET/tokens", {"operation": NUL}),
        ("POST", "/keys", {"key": NUL}),
        ("PATCH", "/buckets/BUCKET", {"name": f"\\{NUL}\\"}),
    ],
)
def test_nul_in_json_is_refused(
    alice: User, bucket: str, method: str, path: str, fields: dict[str, object]
) -> None:
    stored = alice.upload(bucket, DATA).json["hash"]
    path = path.replace("BUCKET", bucket).replace("FILE", stored)
    assert alice.ask(method, path, fields).error == HAS_NUL


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/users"),
        ("PATCH", "/users/alice@example.com"),
        ("PUT", "/users/alice@example.com/reset"),
    ],
)
@pytest.mark.parametrize("name", ["email", "password", "token", "pubkey", "invitation", "redirect"])
def test_nul_of_anybody_is_refused(alice: User, method: str, path: str, name: str) -> None:
    fields = {"email": "b@example.com", "password": PASSWORD, "token": "a", name: NUL}
    headers = basic(alice.email, PASSWORD)
    assert ask(alice.bridge, method, path, json.dumps(fields), headers).error == HAS_NUL


def test_backslash_before_a_number_is_no_nul(alice: User, bucket: str) -> None:
    changed = alice.ask("PATCH", f"/buckets/{bucket}", {"name": "\\u0000"})
    assert changed.json["name"] == "\\u0000"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/activations/NUL"),
        ("HEAD", "/activations/NUL"),
        ("POST", "/users/NUL/reset"),
        ("PUT", "/users/NUL/reset"),
        ("PATCH", "/users/NUL"),
        ("DELETE", "/users/NUL"),
        ("GET", "/buckets/NUL"),
        ("DELETE", "/buckets/NUL"),
        ("DELETE", "/keys/NUL"),
        ("PUT", "/buckets/NUL/files"),
        ("GET", "/buckets/NUL/files/a"),
        ("GET", "/buckets/a/files/NUL"),
        ("GET", "/buckets/a/files/NUL/content"),
        ("GET", "/buckets/a/files/a/content?token=NUL"),
        ("GET", "/buckets/a/files/a/content?a=%26%00"),
    ],
)
def test_nul_in_a_path_or_query_is_refused(bridge: Bridge, method: str, path: str) -> None:
    reply = ask(bridge, method, path.replace("NUL", quote(NUL)))
    assert reply.status == 400
    assert method == "HEAD" or reply.error == HAS_NUL


@pytest.mark.parametrize("name", ["name", "after", "limit"])
def test_nul_in_the_query_of_a_list_is_refused(alice: User, bucket: str, name: str) -> None:
    listed = alice.ask("GET", f"/buckets/{bucket}/files", query=f"{name}=a%00")
    assert listed.error == HAS_NUL


def test_nul_in_a_file_name_or_type_is_refused(alice: User, bucket: str) -> None:
    for wanted, given in (b"a.bin", b"a\0b"), (b"text/css", b"text/\0"), (b"a.bin", b"%00%"):
        body = form(DATA).replace(wanted, given)
        headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
        reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", body, headers)
        assert reply.status == (200 if given == b"%00%" else 400), reply.body
    [file] = alice.ask("GET", f"/buckets/{bucket}/files").json
    assert file["filename"] == "%00%"


def test_nul_in_credentials_and_tokens_is_nobodys(alice: User, bucket: str) -> None:
    assert ask(alice.bridge, "GET", "/keys", None, basic(NUL, PASSWORD)).status == 401
    assert ask(alice.bridge, "GET", "/keys", None, basic(alice.email, NUL)).status == 401
    [pointer] = alice.pointers(bucket, alice.upload(bucket, b"abc").json["hash"]).json
    with pytest.raises(AssertionError, match='"code":400'):
        pull({**pointer, "token": NUL})
    with pytest.raises(AssertionError, match='"code":400'):
        pull({**pointer, "hash": NUL})

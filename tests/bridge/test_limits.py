"""The limits of the bridge, each at its last value and at the first one beyond it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from plain_client import PASSWORD, Clock, User, ask, form, pull, upload_headers
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from pymdc._crypto.file_hash import file_hash
from pymdc.bridge import Bridge

KiB = 1024
LAST, OVER = 299.999, 300.0  # seconds after a token was made: good, and not good any more
DATA = b"data"
HASH = file_hash(DATA)


@pytest.mark.parametrize(("after", "status"), [(LAST, 200), (OVER, 401)])
@pytest.mark.parametrize("operation", ["PUSH", "PULL"])
def test_token_is_good_to_its_last_millisecond(
    alice: User, clock: Clock, operation: str, after: float, status: int
) -> None:
    bucket = alice.bucket()
    alice.upload(bucket, DATA)
    token = alice.token(bucket, operation)
    clock.seconds += after
    path = f"/buckets/{bucket}/files"
    if operation == "PUSH":
        reply = ask(alice.bridge, "PUT", path, form(DATA), upload_headers(token, len(DATA)))
    else:
        reply = ask(alice.bridge, "GET", f"{path}/{HASH}", None, {"x-token": token})
    assert reply.status == status
    assert status == 200 or reply.json == {"error": "Invalid or expired token"}


def test_pointer_is_good_to_its_last_millisecond(alice: User, clock: Clock) -> None:
    bucket = alice.bucket()
    alice.upload(bucket, DATA)
    (good,), (late,) = (alice.pointers(bucket, HASH).json for _ in range(2))
    clock.seconds += LAST
    assert pull(good) == DATA
    clock.seconds += OVER - LAST
    with pytest.raises(AssertionError, match="The supplied token is not accepted"):
        pull(late)


def test_new_tokens_clear_away_no_token_that_is_still_good(alice: User, clock: Clock) -> None:
    bucket = alice.bucket()
    alice.upload(bucket, DATA)
    token = alice.token(bucket, "PULL")
    clock.seconds += LAST
    alice.token(bucket, "PULL")
    reply = ask(alice.bridge, "GET", f"/buckets/{bucket}/files/{HASH}", None, {"x-token": token})
    assert reply.status == 200
    [pointer] = reply.json
    clock.seconds += LAST
    alice.pointers(bucket, HASH)
    assert pull(pointer) == DATA


def padded(fields: dict[str, str], size: int) -> bytes:
    """Return *fields* as JSON of *size* bytes."""
    return json.dumps(fields).encode().ljust(size)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_body_may_have_64_kibibytes(bridge: Bridge, chunked: bool) -> None:
    def body(size: int) -> bytes | Iterator[bytes]:
        whole = padded({"email": "a@example.com", "password": PASSWORD}, size)
        pieces = (whole[place : place + 1000] for place in range(0, size, 1000))
        return pieces if chunked else whole

    reply = ask(bridge, "POST", "/users", body(64 * KiB + 1))
    assert reply.error == (413, "Request body is too large")
    assert ask(bridge, "POST", "/users", body(64 * KiB)).status == 200


def test_first_message_of_a_channel_may_have_64_kibibytes(bridge: Bridge) -> None:
    channel = bridge.endpoint.replace("http", "ws")
    with connect(channel, compression=None) as wire:
        wire.send(padded({"token": "t", "hash": HASH}, 64 * KiB).decode())
        assert "The supplied token is not accepted" in str(wire.recv(20))
    with connect(channel, compression=None) as wire:
        wire.send(padded({"token": "t", "hash": HASH}, 64 * KiB + 1).decode())
        with pytest.raises(ConnectionClosed):
            wire.recv(20)
        assert wire.protocol.close_code == 1009


@pytest.mark.parametrize(
    ("size", "frames"),
    [
        (65535, [65535]),
        (65536, [65536]),
        (65537, [65536, 1]),
        (8 * 65536, [65536] * 8),
        (8 * 65536 + 1, [65536] * 8 + [1]),
    ],
)
def test_frame_has_64_kibibytes_and_the_last_one_the_rest(size: int, frames: list[int]) -> None:
    with Bridge() as bridge:
        user = User(bridge, "alice")
        bucket = user.bucket()
        [pointer] = user.pointers(bucket, user.upload(bucket, bytes(size)).json["hash"]).json
        fields = {name: pointer[name] for name in ("token", "hash", "operation")}
        with connect(pointer["channel"], compression=None) as wire:
            wire.send(json.dumps(fields))
            assert [len(frame) for frame in wire] == frames


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": "n" * 1024}, 200),
        ({"name": "n" * 1025}, 400),
        ({"storage": 0, "transfer": "0.5"}, 200),
        ({"storage": -1}, 400),
        ({"transfer": "-0.5"}, 400),
        ({"storage": "1" * 30_000 + "x"}, 400),
        ({"transfer": "0x" + "f" * 30_000}, 400),
    ],
    ids=str,
)
def test_limits_of_a_bucket(alice: User, fields: dict[str, object], status: int) -> None:
    bucket = alice.bucket()
    for reply in (
        alice.ask("POST", "/buckets", fields),
        alice.ask("PATCH", f"/buckets/{bucket}", fields),
    ):
        assert reply.status == status
        assert status == 200 or reply.json == {"error": "Bucket validation failed"}


@pytest.mark.parametrize("limit", [10, None])
@pytest.mark.parametrize("size", ["1" * 30_000 + "x", str(2**40 + 1), str(2**63), "1e300"])
def test_declared_size_is_at_most_a_tebibyte(alice: User, limit: int | None, size: str) -> None:
    bucket = alice.bucket(storage=limit)
    headers = upload_headers(alice.token(bucket, "PUSH"), 4) | {"x-filesize": size}
    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", form(DATA), headers)
    assert reply.error == (400, "Missing or invalid x-filesize header sent")
    headers = upload_headers(alice.token(bucket, "PUSH"), 2**40)
    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", form(DATA), headers)
    assert reply.status == (413 if limit else 400)


def test_nonce_has_few_digits(alice: User, bucket: str) -> None:
    digits = "1" * 30_000 + "x"
    assert alice.ask("GET", "/buckets", nonce=digits).error == (400, "User validation failed")
    assert alice.ask("POST", "/buckets", {}, nonce=digits).status == 400


@pytest.mark.parametrize(("name", "value"), [("x-pubkey", "00" * 66), ("x-signature", "00" * 81)])
def test_key_and_signature_have_few_digits(alice: User, name: str, value: str) -> None:
    headers = {"x-pubkey": alice.key.public, "x-signature": alice.key.sign("x"), name: value}
    assert ask(alice.bridge, "GET", "/buckets", None, headers).error == (401, "Invalid signature")


def test_name_of_a_file_may_have_1024_characters(alice: User, bucket: str) -> None:
    assert alice.upload(bucket, DATA, 1024 * "n").json["filename"] == 1024 * "n"
    told = 400, "The name of the file has more than 1024 characters"
    assert alice.upload(bucket, DATA, 1025 * "n").error == told
    path = f"/buckets/{bucket}/files/{HASH}"
    assert alice.ask("PATCH", path, {"filename": 1025 * "n"}).error == told
    assert alice.ask("PATCH", path, {"filename": 1024 * "m"}).json["filename"] == 1024 * "m"


@pytest.mark.parametrize(("length", "status"), [(255, 200), (256, 400)])
def test_type_of_a_file_may_have_255_characters(
    alice: User, bucket: str, length: int, status: int
) -> None:
    kind = f"text/{(length - 5) * 'x'}"
    body = form(DATA).replace(b"text/css", kind.encode())
    headers = upload_headers(alice.token(bucket, "PUSH"), len(DATA))
    reply = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", body, headers)
    assert reply.status == status
    assert status == 400 or reply.json["mimetype"] == kind


@pytest.mark.parametrize(("length", "status"), [(254, 200), (255, 400)])
def test_address_may_have_254_characters(bridge: Bridge, length: int, status: int) -> None:
    fields = {"email": f"a@{(length - 2) * 'b'}", "password": PASSWORD}
    assert ask(bridge, "POST", "/users", json.dumps(fields)).status == status


def test_redirect_may_have_2048_characters(data: Path) -> None:
    links: list[str] = []
    with Bridge(data, announce=lambda _email, link: links.append(link)) as bridge:
        for name, size in ("a", 2048), ("b", 2049):
            fields = {"email": f"{name}@example.com", "password": PASSWORD, "redirect": "r" * size}
            assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
    assert [link.partition("?redirect=")[2] for link in links] == [2048 * "r", ""]


@pytest.mark.parametrize("digits", [23, 24, 25])
def test_id_has_24_digits(alice: User, digits: int) -> None:
    reply = alice.ask("GET", f"/buckets/{'a' * digits}")
    assert reply.status == (404 if digits == 24 else 400)

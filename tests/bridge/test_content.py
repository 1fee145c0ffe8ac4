"""The content of files by plain HTTP."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from backends import Backend
from certificates import certificate
from plain_client import (
    DATA,
    Clock,
    Reply,
    User,
    address,
    ask,
    form,
    head,
    stopping,
    upload_headers,
)
from processes import MINUTE

from pymdc.bridge.routes.content import Content
from pymdc.bridge.routes.content_headers import disposition
from pymdc.bridge.settings import MANY_SENDING, MAX_IDLE_THREADS

MiB = 1024 * 1024
KB = 1e-6  # in GB


class Stored:
    """A file in a bucket of its own; each `get` spends a new token unless one is given."""

    def __init__(self, user: User, data: bytes = DATA, name: str = "a.bin", **bucket: Any) -> None:
        self.user = user
        self.bucket = user.bucket(**bucket)
        self.hash: str = user.upload(self.bucket, data, name).json["hash"]
        self.path = f"/buckets/{self.bucket}/files/{self.hash}/content"

    def token(self, operation: str = "PULL") -> str:
        return self.user.token(self.bucket, operation)

    def get(
        self, fields: Mapping[str, str] | None = None, token: str = "", method: str = "GET"
    ) -> Reply:
        headers = {"x-token": token or self.token(), **(fields or {})}
        return ask(self.user.bridge, method, self.path, None, headers)


@pytest.fixture
def stored(alice: User) -> Stored:
    return Stored(alice)


def test_content_is_the_file(stored: Stored) -> None:
    reply = stored.get()
    assert (reply.status, reply.body) == (200, DATA)
    wanted = {
        "content-length": "2500",
        "content-type": "text/css",
        "content-disposition": 'attachment; filename="a.bin"',
        "etag": f'"{stored.hash}"',
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": "private, no-cache",
    }
    assert {name: reply.headers[name] for name in wanted} == wanted


def test_token_may_stand_in_the_query_and_is_good_once(stored: Stored) -> None:
    path = f"{stored.path}?token={stored.token()}"
    assert ask(stored.user.bridge, "GET", path).body == DATA
    assert ask(stored.user.bridge, "GET", path).error == (401, "Invalid or expired token")


def test_empty_file_is_sent_whole(alice: User) -> None:
    stored = Stored(alice, b"", transfer=0)
    for fields in {}, {"Range": "bytes=-5"}:
        reply = stored.get(fields)
        assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
    reply = stored.get({"Range": "bytes=0-"})
    assert (reply.status, reply.headers["content-range"]) == (416, "bytes */0")


def test_head_tells_the_same_and_spends_nothing(stored: Stored, backend: Backend) -> None:
    token = stored.token()
    for fields in {}, {"Range": "bytes=0-1"}:
        told = stored.get(fields, token, "HEAD")
        assert (told.status, told.body, told.headers["content-length"]) == (200, b"", "2500")
    assert backend.transferred() == 0
    got = stored.get({}, token)
    assert got.body == DATA
    assert {**got.headers, "date": ""} == {**told.headers, "date": ""}


@pytest.mark.parametrize("tag", ['"{hash}"', 'W/"{hash}"', '"x", "{hash}"', "*"])
def test_known_content_is_not_sent_again_and_spends_nothing(
    stored: Stored, backend: Backend, tag: str
) -> None:
    token, fields = stored.token(), {"If-None-Match": tag.format(hash=stored.hash)}
    reply = stored.get({**fields, "Range": "bytes=1-2"}, token)
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", f'"{stored.hash}"')
    assert not {"content-length", "content-type"} & reply.headers.keys()
    assert backend.transferred() == 0
    assert stored.get({"If-None-Match": '"x", W/"y"'}, token).body == DATA


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=0-", slice(0, 2500)),
        ("bytes=990-1010", slice(990, 1011)),
        ("bytes=1000-1999", slice(1000, 2000)),
        ("Bytes=2000-99999999999999999999999", slice(2000, 2500)),
        ("bytes=000000000000000000000002499-", slice(2499, 2500)),
        ("bytes=-1", slice(2499, 2500)),
        ("bytes=-2400", slice(100, 2500)),
        ("bytes=-99999999999999999999999", slice(0, 2500)),
    ],
)
def test_part_of_the_content_is_sent(
    stored: Stored, backend: Backend, asked: str, part: slice
) -> None:
    reply = stored.get({"Range": asked})
    assert (reply.status, reply.body) == (206, DATA[part])
    assert reply.headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/2500"
    assert backend.transferred() == part.stop - part.start


@pytest.mark.parametrize(
    "asked", ["bytes=2500-", "bytes=2500-2501", "bytes=-0", f"bytes=9{9 * '9'}-"]
)
def test_part_behind_the_end_is_refused_and_spends_nothing(stored: Stored, asked: str) -> None:
    token = stored.token()
    reply = stored.get({"Range": asked}, token)
    assert reply.error == (416, "The file has 2500 bytes")
    assert reply.headers["content-range"] == "bytes */2500"
    assert stored.get({}, token).body == DATA


@pytest.mark.parametrize(
    "asked", ["bytes=5-4", "bytes=-", "bytes=1", "bytes=0-1,3-4", "lines=0-1", "bytes=٣-", "0-1"]
)
def test_what_is_no_single_range_is_ignored(stored: Stored, asked: str) -> None:
    reply = stored.get({"Range": asked.encode().decode("latin-1")})
    assert (reply.status, reply.body) == (200, DATA)


def test_part_is_sent_if_the_file_is_still_that_one(stored: Stored) -> None:
    part = {"Range": "bytes=0-1"}
    assert stored.get({**part, "If-Range": f'"{stored.hash}"'}).body == DATA[:2]
    for other in ('"x"', f'W/"{stored.hash}"', "Wed, 21 Oct 2015 07:28:00 GMT"):
        assert stored.get({**part, "If-Range": other}).body == DATA


def test_refusals_spend_nothing(stored: Stored, clock: Clock, backend: Backend) -> None:
    bridge, token = stored.user.bridge, stored.token()
    other = Stored(stored.user, b"other")
    headers = {"x-token": token}
    assert ask(bridge, "GET", other.path, None, headers).error == (
        *(401, "Not authorized to retrieve from bucket"),
    )
    missing = stored.path.replace(stored.hash, other.hash)
    assert ask(bridge, "GET", missing, None, headers).error == (
        *(404, "The requested file was not found"),
    )
    nowhere = stored.path.replace(stored.bucket, 24 * "0")
    assert ask(bridge, "GET", nowhere, None, headers).error == (404, "Bucket not found")
    malformed = stored.path.replace(stored.bucket, "x")
    assert ask(bridge, "GET", malformed, None, headers).status == 400
    assert ask(bridge, "GET", stored.path, 70_000 * b"x", headers).status == 413
    assert stored.get({}, token).body == DATA
    push = stored.token("PUSH")
    assert stored.get({}, push).error == (401, "Not authorized to retrieve from bucket")
    for wrong in (token, "0" * 64, "\xff"):
        assert stored.get({}, wrong).error == (401, "Invalid or expired token")
    assert ask(bridge, "GET", stored.path).error == (401, "Invalid or expired token")
    late = stored.token()
    clock.seconds += 300
    for method in "GET", "HEAD":
        assert stored.get({}, late, method).status == 401
    assert backend.transferred() == 2500


def test_one_of_simultaneous_requests_with_a_token_is_answered(stored: Stored) -> None:
    token, start = stored.token(), threading.Barrier(8)

    def present(_: int) -> int:
        start.wait()
        return stored.get({}, token).status

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(present, range(8))) == [200] + 7 * [401]


def test_content_past_the_transfer_of_the_month_is_refused(alice: User, backend: Backend) -> None:
    stored = Stored(alice, transfer=4 * KB)
    assert stored.get().status == 200
    token = stored.token()
    text = r"The bucket may not send 2500 bytes more in 2016-03 \(UTC\): 2500 of 4000 are sent"
    status, message = stored.get({}, token).error
    assert (status, bool(re.fullmatch(text, message))) == (403, True)
    assert stored.get({"Range": "bytes=0-1499"}, token).status == 206
    assert backend.transferred() == 4000


def test_secret_of_a_link_is_in_no_line(stored: Stored, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    token = stored.token()
    for method in "HEAD", "GET", "GET":
        ask(stored.user.bridge, method, f"{stored.path}?token={token}")
    stored.user.bridge.close()
    lines = [text for text in caplog.messages if "/content " in text]
    assert [re.findall(r"(\S+) (\w+) \S+ (\d+) in=0 out=(\d+)", line)[0] for line in lines] == [
        (stored.bucket, "HEAD", "200", "0"),
        (stored.bucket, "GET", "200", "2500"),
        ("-", "GET", "401", "36"),
    ]
    assert token not in caplog.text


def test_page_of_another_origin_can_read_what_it_needs(stored: Stored) -> None:
    reply = stored.get({"Origin": "http://x.example"})
    assert reply.headers["access-control-allow-origin"] == "http://x.example"
    exposed = reply.headers["access-control-expose-headers"].split(", ")
    assert exposed == ["Accept-Ranges", "Content-Disposition", "Content-Range", "ETag"]


NAMES = {
    "plain name.txt": "plain name.txt",
    "Grüße ☃ 漢字.txt": "Gr__e _ __.txt",
    'a"b\\c;d%41.txt': "a_b_c;d_41.txt",
    "\r\nSet-Cookie: a=b\x00\x7f\u2028": "__Set-Cookie: a=b___",
}


def read_name(header: str) -> str:
    """Return the file name in *header*, as RFC 6266 says."""
    extended = re.search(r"; filename\*=UTF-8''([^;]+)$", header)
    plain = re.search(r'; filename="([^"]+)"', header)
    assert plain
    return unquote(extended[1], errors="strict") if extended else plain[1]


@pytest.mark.parametrize("name", NAMES)
def test_file_name_of_any_script_is_a_header(name: str) -> None:
    header = disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert read_name(header) == name
    assert f'filename="{NAMES[name]}"' in header


def test_long_file_name_keeps_its_ends(alice: User) -> None:
    stored = Stored(alice, name=f"A{1000 * '漢'}.jpeg")
    header = stored.get().headers["content-disposition"]
    assert re.fullmatch(r"A漢+\.jpeg", read_name(header))
    assert len(header) < 1200


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("text/html; charset=utf-8", "text/html"),
        ("Image/SVG+XML", "image/svg+xml"),
        ("text/html,image/png", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
        ("text/\xfc", "application/octet-stream"),
        ("a/b\x0bc", "application/octet-stream"),
    ],
)
def test_type_of_the_uploader_is_a_type_or_bytes(alice: User, given: str, sent: str) -> None:
    bucket = alice.bucket()
    body = form(b"<script>").replace(b"text/css", given.encode("latin-1"))
    headers = upload_headers(alice.token(bucket, "PUSH"), 8)
    stored = ask(alice.bridge, "PUT", f"/buckets/{bucket}/files", body, headers).json["hash"]
    path = f"/buckets/{bucket}/files/{stored}/content"
    reply = ask(alice.bridge, "GET", path, None, {"x-token": alice.token(bucket, "PULL")})
    assert (reply.body, reply.headers["content-type"]) == (b"<script>", sent)
    assert reply.headers["content-disposition"].startswith("attachment;")


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("size", [None, 3])
def test_damage_that_is_known_is_refused_and_spends_nothing(
    stored: Stored,
    backend: Backend,
    caplog: pytest.LogCaptureFixture,
    number: int,
    size: int | None,
) -> None:
    damaged, token = backend.objects()[number], stored.token()
    whole = backend.read(damaged)
    if size is None:
        backend.remove(damaged)
        fault = f"object {damaged} is missing"
    else:
        backend.write(damaged, whole[:size])
        fault = f"object {damaged} has {size} of {len(whole):,} bytes"
    assert stored.get({}, token).error == (500, "The file is damaged")
    assert f"{fault}; admin verify says which files need it" in caplog.text
    assert "Traceback" not in caplog.text
    backend.write(damaged, whole)
    assert stored.get({}, token).body == DATA


@pytest.fixture
def at_second_shard(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Give a function that lets another one run when the first shard is sent."""

    def let_run(function: Callable[[], object]) -> None:
        read = Content.read

        async def run_then_read(content: Content) -> memoryview:
            if content.left == len(DATA) - 1000:
                await content._context.threads.run(function)
            return await read(content)

        monkeypatch.setattr(Content, "read", run_then_read)

    return let_run


AtSecondShard = Callable[[Callable[[], object]], None]


def cut_off(stored: Stored) -> int:
    """Return how many bytes came before the connection was cut."""
    with pytest.raises(IncompleteRead) as raised:
        stored.get()
    return len(raised.value.partial)


def test_content_that_is_damaged_meanwhile_is_cut_off(
    stored: Stored,
    backend: Backend,
    at_second_shard: AtSecondShard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    damaged = backend.objects()[1]
    at_second_shard(lambda: backend.write(damaged, b"abc"))
    assert cut_off(stored) == 1003
    stored.user.bridge.close()
    assert f"object {damaged} has 3 of 1,000 bytes; admin verify" in caplog.text
    assert re.search(r'/content 500 in=0 out=1003 .* "The file is damaged"', caplog.text)
    assert "Traceback" not in caplog.text
    assert backend.transferred() == 1003


def test_file_that_is_removed_meanwhile_is_cut_off(
    stored: Stored,
    backend: Backend,
    at_second_shard: AtSecondShard,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = stored.path.removesuffix("/content")
    at_second_shard(lambda: stored.user.ask("DELETE", path))
    assert cut_off(stored) == 1000
    assert "admin verify" not in caplog.text, "it is not damaged"


def test_object_that_is_replaced_meanwhile_is_sent(
    stored: Stored, backend: Backend, at_second_shard: AtSecondShard
) -> None:
    damaged = backend.objects()[1]

    def replace() -> None:
        backend.remove(damaged)
        stored.user.upload(stored.bucket, DATA)

    at_second_shard(replace)
    assert stored.get().body == DATA


def test_shards_of_a_large_file_are_found_in_pages(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pymdc.bridge.routes.content.BATCH", 2)
    large = DATA * 3
    stored = Stored(alice, large)
    assert stored.get().body == large
    assert stored.get({"Range": "bytes=6100-6200"}).body == large[6100:6201]


@pytest.fixture
def large(backend: Backend) -> Iterator[Stored]:
    """Give a file that is larger than the buffers of the sockets."""
    with backend.bridge(patience=1, grace=1) as bridge:
        yield Stored(User(bridge, "alice"), bytes(24 * MiB))


def begin(stored: Stored) -> socket.socket:
    """Ask for the content, read the head, and stall."""
    wire = socket.socket()
    wire.settimeout(MINUTE)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    wire.connect(address(stored.user.bridge))
    wire.sendall(head(f"GET {stored.path}", f"x-token: {stored.token()}"))
    assert wire.recv(15) == b"HTTP/1.1 200 OK"
    return wire


def test_client_that_reads_nothing_is_disconnected_and_pays_for_what_was_sent(
    large: Stored, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with begin(large):
        while backend.transferred() == 24 * MiB:
            large.user.ask("GET", "/")  # which gives the bridge its turn
    large.user.bridge.close()
    [sent] = re.findall(r'/content 499 in=0 out=(\d+) .* "The client has gone"', caplog.text)
    assert backend.transferred() == int(sent) < 20 * MiB


def test_bytes_that_a_client_did_not_want_are_given_back(large: Stored, backend: Backend) -> None:
    begin(large).close()
    large.user.bridge.close()
    assert 0 < backend.transferred() < 20 * MiB


def test_bridge_that_stops_lets_content_be_sent_within_the_grace(backend: Backend) -> None:
    with backend.bridge(grace=MINUTE) as bridge:
        stored = Stored(User(bridge, "alice"), bytes(24 * MiB))
        with begin(stored) as wire, wire.makefile("rb") as received, stopping(bridge):
            assert len(received.read().partition(b"\r\n\r\n")[2]) == 24 * MiB


def test_bridge_that_stops_cuts_content_off_after_the_grace(
    large: Stored, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    with begin(large) as wire, wire.makefile("rb") as received:
        large.user.bridge.close()
        try:
            body = received.read()
        except ConnectionResetError:
            body = b""
    assert len(body) < 24 * MiB
    assert 0 < backend.transferred() < 20 * MiB
    assert "Traceback" not in caplog.text


def test_many_slow_readers_hold_up_nobody(large: Stored) -> None:
    before = threading.active_count()
    with ExitStack() as wires:
        for _ in range(MANY_SENDING + 6):
            wires.enter_context(begin(large))
        assert threading.active_count() <= before + MAX_IDLE_THREADS
        assert large.get({"Range": "bytes=-5"}).body == bytes(5)


def test_content_is_the_file_within_tls(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with backend.bridge(host="localhost", tls_cert=pem, tls_key=pem) as bridge:
        content = 8 * MiB * DATA[:1] + 8 * MiB * DATA[1:2]
        assert Stored(User(bridge, "alice"), content).get().body == content

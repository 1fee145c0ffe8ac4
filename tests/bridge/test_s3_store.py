"""The S3 store: what it says of faults, and how it goes on after them."""

from __future__ import annotations

import gc
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from itertools import chain

import pytest
from seaweedfs import ACCESS_KEY, BUCKET, SECRET_KEY, SeaweedFS
from servers import Handler, RawServer, free_port, read_request, wait, written
from stored_objects import MiB, content, views

from pymdc.bridge.errors import StoreError, UnavailableError
from pymdc.bridge.storage import s3_store
from pymdc.bridge.storage.disk import DiskFullError
from pymdc.bridge.storage.objects import ObjectReader, new_upload, object_name
from pymdc.bridge.storage.s3_store import S3Store

pytest.importorskip("obstore")

META = 'ETag: "a"', "Last-Modified: Sat, 28 Nov 2026 02:00:00 GMT"
THOUSAND = os.urandom(1000)


@pytest.fixture
def name() -> str:
    return object_name(new_upload(), 0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_store, "STORE_SECONDS", 0.5)
    monkeypatch.setattr(s3_store, "STORE_RETRY_SECONDS", 0.2)


def read_until_refused(reader: ObjectReader, reason: str, size: int = MiB) -> bytes:
    """Return what can be read before the store does not answer."""
    read = bytearray()

    def read_on() -> None:
        while True:
            read.extend(reader.read(size))

    with pytest.raises(UnavailableError, match=reason):
        read_on()
    return bytes(read)


def test_prefix_is_optional(s3_environment: dict[str, str], name: str) -> None:
    whole = S3Store(f"s3://{BUCKET}", s3_environment)
    below = S3Store(f"s3://{BUCKET}/below/", s3_environment)
    below.put(name, views(b"abc"))
    assert name not in chain.from_iterable(whole.names())
    whole.put(name, views(b"abcd"))
    assert name in chain.from_iterable(whole.names())
    assert (whole.size(name), below.size(name)) == (4, 3)
    whole.delete([name])
    assert content(below, name) == b"abc"


def test_nobody_knows_the_room_of_the_store(s3: S3Store) -> None:
    assert s3.free() is None  # type: ignore[func-returns-value]


def test_reader_that_is_closed_early_ends_its_request(name: str) -> None:
    ended = threading.Event()

    def forward(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(written("200 OK", bytes(1000), *META, length=10**9))
        wait(connection)
        ended.set()

    with RawServer(forward) as server:
        reader = S3Store("s3://bucket", keys(server.endpoint)).open(name)
        assert len(reader.read(1)) == 1000
        reader.close()
        del reader
        gc.collect()
        assert ended.wait(30)


def refused(status: str, code: str) -> Handler:
    """Answer each request with an error, with texts as Amazon's, which have keys in them."""
    body = (
        f"<Error><Code>{code}</Code><Message>no</Message>"
        f"<AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><StringToSign>{SECRET_KEY}</StringToSign>"
        "</Error>"
    )

    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(written(status, body.encode()))

    return handle


def breaking_off(*counts: int) -> Handler:
    """Answer requests for an object of 1,000 bytes with so many bytes, the last count for ever."""
    left = [*counts]

    def handle(connection: socket.socket) -> None:
        head, _ = read_request(connection)
        count = left.pop(0) if len(left) > 1 else left[0]
        found = re.search(rb"range: bytes=(\d+)-", head)
        start = int(found[1]) if found else 0
        range_ = [f"Content-Range: bytes {start}-999/1000"] if found else []
        status = "206 Partial Content" if found else "200 OK"
        body = THOUSAND[start : start + count]
        connection.sendall(written(status, body, *META, *range_, length=1000 - start))

    return handle


def keys(endpoint: str, **more: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        **more,
    }


def test_read_goes_on_after_the_store_was_started_again(
    own_seaweedfs: SeaweedFS, name: str
) -> None:
    large = os.urandom(16 * MiB)  # more than what waits in the buffers of sockets
    store = S3Store(own_seaweedfs.store_url(), own_seaweedfs.environment)
    store.put(name, views(large))
    with closing(store.open(name)) as reader:
        read = bytes(reader.read(MiB))
        own_seaweedfs.kill()
        read += read_until_refused(reader, "did not answer: connection refused")
        with pytest.raises(UnavailableError):
            store.put(name, views(b"abc"))
        assert len(read) < len(large)
        own_seaweedfs.start()
        read += b"".join(iter(lambda: bytes(reader.read(MiB)), b""))
    assert read == large


UNAVAILABLE = {
    "closes": (lambda connection: connection.close(), "the connection was lost"),
    "accepts and is silent": (wait, "no answer in time"),
    "busy": (refused("503 Service Unavailable", "SlowDown"), "it answered 503 SlowDown"),
    "fault": (refused("500 Internal Server Error", "InternalError"), "500 InternalError"),
    "throttles": (refused("429 Too Many Requests", "Throttling"), "it answered 429 Throttling"),
    "is no HTTP": (lambda connection: connection.sendall(b"SSH-2.0-\r\n"), "connection was lost"),
}
REFUSING = {
    "bucket": (refused("404 Not Found", "NoSuchBucket"), "the bucket bucket is missing"),
    "key": (
        refused("403 Forbidden", "InvalidAccessKeyId"),
        "403 InvalidAccessKeyId, so it refuses",
    ),
    "secret": (refused("403 Forbidden", "SignatureDoesNotMatch"), "AWS_SECRET_ACCESS_KEY"),
    "right": (refused("403 Forbidden", "AccessDenied"), "to read, list, write and delete"),
    "not S3": (refused("405 Method Not Allowed", ""), "it answered 405; expected one that speaks"),
}
OPERATIONS: dict[str, Callable[[S3Store], object]] = {
    "check": S3Store.check,
    "prepare": S3Store.prepare,
    "put": lambda store: store.put("0" * 32, views(b"abc")),
    "read": lambda store: store.open("0" * 32).read(1000),
    "list": lambda store: list(store.names()),
    "set_aside": lambda store: store.set_aside(["0" * 32]),
    "installation": S3Store.installation,
}


def failure(store: S3Store, operation: str) -> Exception:
    """Return what an operation raises, after a look for keys in all that can be printed of it."""
    with pytest.raises((UnavailableError, OSError)) as raised:
        OPERATIONS[operation](store)
    error: BaseException | None = raised.value
    texts = [repr(store), repr(vars(store))]
    while error is not None:
        texts += [str(error), repr(error), repr(error.args)]
        error = error.__cause__ or error.__context__
    assert not re.search(f"{ACCESS_KEY}|{SECRET_KEY}", "".join(texts))
    return raised.value


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("case", UNAVAILABLE)
def test_store_that_does_not_answer_is_unavailable(case: str, operation: str) -> None:
    handle, reason = UNAVAILABLE[case]
    with RawServer(handle) as server:
        error = failure(S3Store("s3://bucket/a", keys(server.endpoint)), operation)
    assert isinstance(error, UnavailableError)
    begin = f"the store s3://bucket/a at {server.endpoint} did not answer: "
    assert str(error).startswith(begin)
    assert str(error).endswith(reason)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_store_that_refuses_connections_is_unavailable(operation: str) -> None:
    error = failure(S3Store("s3://bucket", keys(f"http://127.0.0.1:{free_port()}")), operation)
    assert isinstance(error, UnavailableError)
    assert str(error).endswith("did not answer: connection refused")


@pytest.mark.usefixtures("impatient")
def test_store_without_a_known_name_is_unavailable() -> None:
    error = failure(S3Store("s3://bucket", keys("http://store.invalid")), "check")
    assert isinstance(error, UnavailableError)
    assert str(error).endswith("its name is not known")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("case", REFUSING)
def test_store_that_refuses_says_what_is_wrong(case: str, operation: str) -> None:
    handle, reason = REFUSING[case]
    with RawServer(handle) as server:
        error = failure(S3Store("s3://bucket/a", keys(server.endpoint)), operation)
    assert isinstance(error, StoreError)
    assert reason in str(error)


def test_store_that_does_not_speak_s3_is_not_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    with pytest.raises(
        StoreError, match=r"az://b can't be used: .*; expected .* obstore"
    ) as raised:
        S3Store("az://b", {})
    assert not re.search(r"AWS|S3", str(raised.value))


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"AWS_ACCESS_KEY_ID": "another"}, "InvalidAccessKeyId"),
        ({"AWS_SECRET_ACCESS_KEY": "another"}, "SignatureDoesNotMatch"),
    ],
)
def test_wrong_keys_are_refused(
    s3_environment: dict[str, str], changed: dict[str, str], reason: str, operation: str
) -> None:
    environment = s3_environment | changed
    error = failure(S3Store(f"s3://{BUCKET}", environment), operation)
    assert isinstance(error, StoreError)
    assert reason in str(error)
    assert "another" not in str(error)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_missing_bucket_is_named(s3_environment: dict[str, str], operation: str) -> None:
    error = failure(S3Store("s3://no-bucket/a", s3_environment), operation)
    assert isinstance(error, StoreError)
    assert "the bucket no-bucket is missing; expected a bucket that exists" in str(error)


@pytest.mark.usefixtures("impatient")
def test_full_store_is_a_full_disk(name: str) -> None:
    with RawServer(refused("507 Insufficient Storage", "XMinioStorageFull")) as server:
        store = S3Store("s3://bucket", keys(server.endpoint))
        with pytest.raises(DiskFullError, match="there is no room in the store s3://bucket at"):
            store.put(name, views(b"abc"))


@pytest.mark.usefixtures("impatient")
def test_objects_that_cannot_be_deleted_are_logged(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RawServer(refused("403 Forbidden", "AccessDenied")) as server:
        S3Store("s3://bucket", keys(server.endpoint)).delete([name, name])
    assert "of 2 objects, not all were deleted: the store s3://bucket at" in caplog.text
    assert ACCESS_KEY not in caplog.text


@pytest.mark.usefixtures("impatient")
def test_answer_that_breaks_off_is_asked_for_from_there_on(name: str) -> None:
    with RawServer(breaking_off(100)) as server:
        store = S3Store("s3://bucket", keys(server.endpoint))
        assert content(store, name, size=50) == THOUSAND
        assert content(store, name, 250, size=50) == THOUSAND[250:]


@pytest.mark.usefixtures("impatient")
def test_answer_that_breaks_off_again_and_again_is_unavailable(name: str) -> None:
    with RawServer(breaking_off(100, 0)) as server:
        store = S3Store("s3://bucket", keys(server.endpoint))
        with closing(store.open(name)) as reader:
            read = read_until_refused(reader, "the connection was lost", size=50)
    assert read == THOUSAND[:100]


ENDPOINTS = {
    "service": (
        {"AWS_ENDPOINT_URL_S3": "{}", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
        "us-east-1",
    ),
    "region": ({"AWS_ENDPOINT_URL": "{}/", "AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"}, "a"),
    "default": ({"AWS_ENDPOINT_URL": "{}", "AWS_DEFAULT_REGION": "b"}, "b"),
}


@pytest.mark.parametrize("case", ENDPOINTS)
def test_variables_are_those_of_the_tools_of_aws(case: str) -> None:
    variables, region = ENDPOINTS[case]
    heads: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        heads.append(read_request(connection)[0])
        connection.sendall(written("200 OK", b"", *META))

    with RawServer(handle) as server:
        environment = {key: value.format(server.endpoint) for key, value in variables.items()}
        environment |= {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
        environment["AWS_SESSION_TOKEN"] = "a-token"
        S3Store("s3://bucket/a", environment).put("0" * 32, views(b"abc"))
    head = heads[0].decode().lower()
    assert head.startswith(f"put /bucket/a/{'0' * 32} http/1.1")
    assert f"/{region}/s3/aws4_request" in head
    assert "x-amz-security-token: a-token" in head


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "ftp://host", "http://user:a-secret@host", "http://host/path"]
)
def test_wrong_endpoint_is_refused_and_not_shown(endpoint: str) -> None:
    with pytest.raises(StoreError) as raised:
        S3Store("s3://bucket", {"AWS_ENDPOINT_URL": endpoint})
    expected = "AWS_ENDPOINT_URL is no URL of a store; expected http[s]://HOST[:PORT]"
    assert str(raised.value) == expected


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StoreError, match=r"obstore is missing: .* '\.\[bridge,postgres\]'"):
        S3Store("s3://bucket", {})

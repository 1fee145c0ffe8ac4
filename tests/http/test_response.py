"""The values of calls when the server misbehaves, the same in both modes."""

from __future__ import annotations

import copy
import gc
import gzip
import http.client
import io
import pickle
import socket
import ssl
import threading
import time
import traceback
import urllib.error
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import urllib3.exceptions
import websockets.exceptions
from modes import Ask
from servers import Handler, RawServer, answering, full_port, read_request, wait, written

import pymdc
from pymdc import exceptions
from pymdc._calls.cancel_scope import CancelScope
from pymdc._http import errors, response
from pymdc._http.connect import Deadline, connect_tcp
from pymdc._transfers import channel


def list_keys_from(handle: Handler, ask: Ask) -> Any:
    """List the keys of a user at a server whose handler is *handle*, and return the value."""
    with RawServer(handle) as server, pymdc.Client(server.endpoint, timeout=(5, 30)) as client:
        return ask(pymdc.api.Keys(pymdc.api.Users("a@b.com", "pass", client=client)).list)


GZIP = gzip.compress(b"[1]", mtime=0)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (written("200 OK", b'{"id": 1}'), {"id": 1}),
        (written("200 OK", b"[]"), []),
        (written("200 OK"), ""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (written("200 OK", b"plain text"), "plain text"),
        (written("200 OK", b"\xff"), "\ufffd"),
        (written("400 Bad Request", b'{"error": "no"}'), {"error": "no"}),
        (written("500 Internal Server Error", b'{"error": "no"}'), {"error": "no"}),
        (written("200 OK", b"[1]", "Content-Encoding: Identity"), [1]),
        (written("200 OK", b"[1]", "Content-Encoding:"), [1]),
        (b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[2]\r\n0\r\n\r\n", [2]),
        (b"HTTP/1.0 200 OK\r\n\r\n[3]", [3]),
    ],
)
def test_answer_is_json_or_text(ask: Ask, answer: bytes, value: object) -> None:
    assert list_keys_from(answering(answer), ask) == value


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (written("502 Bad Gateway", b"<html>", "Content-Type: text/html"), b"<html>"),
        (written("404 Not Found"), b""),
        (written("302 Found", b"moved", "Location: http://127.0.0.1:1/"), b"moved"),
        (written("307 Temporary Redirect", b"", "Location: http://127.0.0.1:1/"), b""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", b""),
        (b"HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n\r\n", b""),
        *((written("400 Bad Request", body), body) for body in (b"null", b"5", b"[]", b'"no"')),
    ],
)
def test_refusal_not_from_bridge_is_http_error(ask: Ask, answer: bytes, body: bytes) -> None:
    value = list_keys_from(answering(answer), ask)
    assert isinstance(value, exceptions.HTTPError)
    assert isinstance(value, urllib.error.HTTPError)
    assert isinstance(value, pymdc.PymdcError)
    assert value.code == int(answer[9:12])
    if b"Content-Length" in answer:
        assert value.headers["Content-Length"] == str(len(body))
    assert value.read() == body
    assert f"/keys answered {value.code}: " in str(value)


@pytest.mark.parametrize("status", response.THROTTLING)
def test_busy_answer_not_from_bridge_says_so(ask: Ask, status: int) -> None:
    value = list_keys_from(answering(written(f"{status} Busy", b"<html>")), ask)
    assert type(value) is exceptions.HTTPError
    assert "not the bridge's JSON; the bridge or a proxy is busy" in str(value)
    assert "something else" not in str(value)


WHOLE = [
    written("200 OK", b"[1,2,3,4,56]", "Server: x"),
    b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 12\r\n\r\n[1,2,3,4,56]",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\nc\r\n[1,2,3,4,56]\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("whole", WHOLE, ids=["length", "length last", "chunked"])
def test_truncated_answer_is_network_error(ask: Ask, whole: bytes) -> None:
    ends = iter(range(len(whole)))

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(whole[: next(ends)])

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        user = pymdc.api.Users("a@b.com", "pass", client=client)
        values = [ask(user.register) for _ in whole]
    answers = [value for value in values if not isinstance(value, exceptions.NetworkError)]
    # An answer that lacks only a part of the end of its last chunk has a complete body.
    assert answers == [[1, 2, 3, 4, 56]] * len(answers)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n",
    ],
    ids=lambda head: head[9:12],
)
def test_truncated_head_is_network_error(ask: Ask, head: bytes) -> None:
    ends = iter(range(len(head)))

    def handle(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(head[: next(ends)])

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        user = pymdc.api.Users("a@b.com", "pass", client=client)
        values = [ask(user.register) for _ in head]
    for value in values:
        assert isinstance(value, exceptions.NetworkError), value


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_body_may_announce_chunks(ask: Ask, status: int) -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            head = f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head.encode())

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        bucket = pymdc.api.Bucket("b", pymdc.ECDSA(), client=client)
        for _ in range(2):
            value = ask(bucket.delete)
            assert value == "" or getattr(value, "code", None) == status
        assert server.connections == 1


@pytest.mark.parametrize(
    "header",
    [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, chunked",
        "Content-Length : 2",
        "Transfer-Encoding\t: chunked",
    ],
)
def test_framing_that_is_not_understood_is_garbled_answer(ask: Ask, header: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{header}\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
    value = list_keys_from(answering(answer.encode()), ask)
    assert type(value) is exceptions.GarbledAnswer
    assert "the answer's headers could not be read" in str(value)


LENGTHS = ["Content-Length: %d, %d", "Content-Length: %d\r\nContent-Length: %d"]


@pytest.mark.parametrize("header", [*LENGTHS, "Content-Length: %d ,0%d", "content-length:%d,\t%d"])
@pytest.mark.parametrize(("body", "value"), [(b"", ""), (b"[1, 2]", [1, 2])])
def test_repeated_equal_content_length_is_accepted(
    ask: Ask, header: str, body: bytes, value: object
) -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            lengths = header % (len(body), len(body))
            connection.sendall(f"HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n".encode() + body)

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        bucket = pymdc.api.Bucket("b", pymdc.ECDSA(), client=client)
        assert [ask(bucket.delete), ask(bucket.list)] == [value, value]
        assert server.connections == 1


@pytest.mark.parametrize(
    "header", [*LENGTHS, "Content-Length: %d, %d, x", "Content-Length: %d,,%d"]
)
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_different_content_lengths_are_garbled_answer(ask: Ask, header: str, status: str) -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(f"HTTP/1.1 {status}\r\n{header % (2, 3)}\r\n\r\n[]".encode())

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        user = pymdc.api.Users("a@b.com", "pass", client=client)
        values = [ask(user.register) for _ in range(2)]
        assert server.connections == 2
    for value in values:
        assert type(value) is exceptions.GarbledAnswer
        assert "the answer's headers could not be read" in str(value)


@pytest.mark.parametrize("header", [*LENGTHS, "Content-Length: %d"])
def test_content_length_is_ignored_with_chunks(ask: Ask, header: str) -> None:
    framing = "Transfer-Encoding: chunked\r\n" + header.replace("%d", "5")
    answer = f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n3\r\n[2]\r\n0\r\n\r\n"
    assert list_keys_from(answering(answer.encode()), ask) == [2]


def test_folded_header_is_joined(ask: Ask) -> None:
    page = b"HTTP/1.1 502 Bad\r\n : first\r\nX: a\r\n\tb:\r\n c\r\nContent-Length: 0\r\n\r\n"
    value = list_keys_from(answering(page), ask)
    assert dict(value.headers) == {"X": "a b: c", "Content-Length": "0"}


def test_line_without_colon_is_ignored(ask: Ask) -> None:
    answer = b"HTTP/1.1 200 OK\nno header\nx-\xe9: \xe9\nContent-Length: 2\n\n[]"
    assert list_keys_from(answering(answer), ask) == []


@pytest.mark.parametrize(
    "head", [b"A: b\r\n" * 101, b"A\r\n" * 101, b"A: " + b"b" * 2**16 + b"\r\n"]
)
def test_endless_head_is_garbled_answer(ask: Ask, head: bytes) -> None:
    value = list_keys_from(
        answering(b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: 0\r\n\r\n"), ask
    )
    assert type(value) is exceptions.GarbledAnswer


CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("length", [10**14, 10**30])
@pytest.mark.parametrize("framing", ["Content-Length: %d\r\n\r\n[]", CHUNKED + "%X\r\n[]"])
def test_huge_length_is_network_error(ask: Ask, framing: str, length: int) -> None:
    value = list_keys_from(answering(b"HTTP/1.1 200 OK\r\n" + (framing % length).encode()), ask)
    # A Python that reads in pieces finds that the connection ended.
    assert type(value) in (exceptions.GarbledAnswer, exceptions.ConnectionLost)
    assert "/keys: " in str(value)


def addresses(port: int) -> list[Any]:
    return socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)


@pytest.fixture
def scope() -> Iterator[CancelScope]:
    scope = CancelScope()
    yield scope
    scope.detach()


def test_connect_timeout_covers_all_addresses_of_host(scope: CancelScope) -> None:
    began = time.monotonic()
    with full_port() as port, pytest.raises(TimeoutError):
        connect_tcp(addresses(port) * 5, Deadline(0.8), scope)
    assert time.monotonic() - began < 5 * 0.8


def test_address_after_silent_one_is_reached(scope: CancelScope) -> None:
    with full_port() as silent, RawServer(wait) as server:
        several = addresses(silent) + addresses(server.port)
        with connect_tcp(several, Deadline(0.8), scope) as sock:
            assert sock.getpeername()[1] == server.port
            assert 0 < (sock.gettimeout() or 0) < 0.8


def test_bytes_after_answer_do_not_reach_next_call(ask: Ask) -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(written("200 OK", b"[1]HTTP/1.1 200 OK\r\n\r\n[66]", length=3))

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        keys = pymdc.api.Keys(pymdc.api.Users("a@b.com", "pass", client=client))
        assert [ask(keys.list) for _ in range(3)] == [[1]] * 3


def test_empty_answer_is_empty_in_any_encoding(ask: Ask) -> None:
    assert list_keys_from(answering(written("200 OK", b"", "Content-Encoding: gzip")), ask) == ""


@pytest.mark.parametrize("status", ["200 OK", "502 Bad Gateway"])
@pytest.mark.parametrize("encoding", ["gzip", "Deflate", "br", "gzip, br"])
def test_compressed_answer_is_refused(ask: Ask, status: str, encoding: str) -> None:
    coded = written(status, GZIP, f"Content-Encoding: {encoding}")
    value = list_keys_from(answering(coded), ask)
    assert type(value) is exceptions.GarbledAnswer
    what = f"answered {status[:3]} in the encoding {encoding.lower()!r}, which is not supported"
    assert f"/keys {what}" in str(value)


def test_requests_accept_no_compression(ask: Ask) -> None:
    heads: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        heads.append(read_request(connection)[0])
        connection.sendall(written("200 OK", b"[]"))

    assert list_keys_from(handle, ask) == []
    assert b"Accept-Encoding: identity\r\n" in heads[0]


INTERIM = [
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 199 Whatever\r\n\r\n" * 3,
]


@pytest.mark.parametrize("interim", INTERIM, ids=lambda interim: interim[9:12])
def test_interim_answers_are_ignored(ask: Ask, interim: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        for number in range(3):
            read_request(connection)
            connection.sendall(interim)
            connection.sendall(written("200 OK", b"[%d]" % number))

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        keys = pymdc.api.Keys(pymdc.api.Users("a@b.com", "pass", client=client))
        assert [ask(keys.list) for _ in range(3)] == [[0], [1], [2]]
        assert server.connections == 1


def test_switch_of_protocol_closes_connection(ask: Ask) -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            connection.sendall(written("200 OK", b"[]"))

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        user = pymdc.api.Users("a@b.com", "pass", client=client)
        for _ in range(2):
            value = ask(user.register)
            assert type(value) is exceptions.GarbledAnswer
            assert "another protocol" in str(value)
        assert server.connections == 2


def test_request_carries_its_own_identity_only(ask: Ask) -> None:
    heads: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        while head := read_request(connection)[0]:
            heads.append(head.lower())
            connection.sendall(written("200 OK", b"[]"))

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        user = pymdc.api.Users("a@b.com", "pass", client=client)
        ask(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list)
        ask(pymdc.api.Keys(user).list)
        ask(user.register)
        ask(pymdc.api.Bucket("b", pymdc.ECDSA(), client=client).files.download, "hash", "token")
    sent = [
        [name for name in (b"x-signature", b"x-pubkey", b"authorization", b"x-token") if name in h]
        for h in heads
    ]
    assert sent == [[b"x-signature", b"x-pubkey"], [b"authorization"], [], [b"x-token"]]
    assert b"__nonce" in heads[0]
    assert not any(b"__nonce" in head for head in heads[1:])


def test_connections_are_kept_alive(ask: Ask) -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(written("200 OK", b"[]"))

    with RawServer(handle) as server:
        with pymdc.Client(server.endpoint) as client:
            keys = pymdc.api.Keys(pymdc.api.Users("a@b.com", "pass", client=client))
            for _ in range(5):
                assert ask(keys.list) == []
        assert server.connections == 1


def answer_together(number: int) -> Handler:
    """Return a handler that answers requests only when *number* of them have arrived."""
    all_arrived = threading.Barrier(number)

    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            all_arrived.wait(30)
            connection.sendall(written("200 OK", b"[]"))

    return handle


def test_one_connection_is_kept_per_worker() -> None:
    with (
        RawServer(answer_together(8)) as server,
        pymdc.Client(server.endpoint, workers=8) as client,
    ):
        buckets = pymdc.api.Buckets(pymdc.ECDSA(), client=client)
        for _ in range(3):
            calls = [buckets.list(lambda answer: None) for _ in range(8)]
            assert [call.result(30) for call in calls] == [[]] * 8
        assert server.connections == 8


def test_connections_of_blocking_threads_are_kept() -> None:
    got: list[Any] = []
    with (
        RawServer(answer_together(8)) as server,
        pymdc.Client(server.endpoint, workers=1) as client,
    ):
        buckets = pymdc.api.Buckets(pymdc.ECDSA(), client=client)
        for _ in range(3):
            threads = [
                threading.Thread(target=lambda: got.append(buckets.list())) for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert got == [[]] * 24
        assert server.connections == 8


@pytest.mark.parametrize("callback", [5, "name", object()])
def test_callback_that_is_not_callable_is_type_error_at_call(callback: Any) -> None:
    user = pymdc.api.Users("a@b.com", client=pymdc.Client("http://127.0.0.1:1"))
    with pytest.raises(TypeError, match="expected a function"):
        user.register(callback)


def exceptions_of(module: Any) -> list[type[Exception]]:
    """Return the exceptions of *module*, without its warnings."""
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind.__module__ == module.__name__
    ]


def exception_types(table: Any) -> list[type[Exception]]:
    return [kind for kind, _, _ in table]


@pytest.mark.parametrize("kind", exceptions_of(urllib3.exceptions), ids=lambda kind: kind.__name__)
def test_exceptions_of_urllib3_are_translated(kind: type[Exception]) -> None:
    # The base class is in no row, so that a new exception of urllib3 fails here.
    if kind not in (urllib3.exceptions.HTTPError, urllib3.exceptions.ClosedPoolError):
        assert issubclass(kind, tuple(exception_types(errors.TRANSLATIONS)))


@pytest.mark.parametrize(
    "kind", exceptions_of(websockets.exceptions), ids=lambda kind: kind.__name__
)
def test_exceptions_of_websockets_are_translated(kind: type[Exception]) -> None:
    if kind is not websockets.exceptions.WebSocketException:
        assert issubclass(kind, tuple(exception_types(channel.TRANSLATIONS)))


@pytest.mark.parametrize("table", [errors.TRANSLATIONS, channel.TRANSLATIONS])
def test_translation_rows_are_reachable(table: Any) -> None:
    kinds = exception_types(table)
    for place, kind in enumerate(kinds):
        assert not issubclass(kind, tuple(kinds[:place])), kind


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (http.client.BadStatusLine("x"), exceptions.GarbledAnswer),
        (TimeoutError("t"), exceptions.Timeout),
        (BrokenPipeError(32, "pipe"), exceptions.ConnectionLost),
        (ssl.SSLError(), exceptions.ConnectionLost),
        (urllib3.exceptions.SSLError(ssl.SSLError()), exceptions.ConnectError),
        (urllib3.exceptions.SSLError(ssl.SSLCertVerificationError()), exceptions.CertificateError),
    ],
)
def test_exceptions_below_urllib3_are_translated(
    error: Exception, ours: type[exceptions.NetworkError]
) -> None:
    with pytest.raises(exceptions.NetworkError) as caught:
        with errors.map_exceptions(errors.ROWS, "GET http://x/", connect=1, read=2):
            raise error
    assert type(caught.value) is ours
    assert str(caught.value).startswith("GET http://x/: ")


def test_unknown_exception_of_urllib3_is_network_error() -> None:
    class Later(urllib3.exceptions.HTTPError):
        pass

    with pytest.raises(exceptions.NetworkError, match="GET http://x/: text") as caught:
        with errors.map_exceptions(errors.ROWS, "GET http://x/", connect=1, read=2):
            raise Later("text")
    assert type(caught.value) is exceptions.NetworkError


EXAMPLES: list[pymdc.PymdcError] = [
    exceptions.PymdcError("text"),
    exceptions.NetworkError("text"),
    exceptions.ConnectError("text"),
    exceptions.CertificateError("text"),
    exceptions.NoEndpoint("text"),
    exceptions.Timeout("text"),
    exceptions.ConnectTimeout("text"),
    exceptions.ConnectionLost("text"),
    exceptions.GarbledAnswer("text"),
    exceptions.HTTPError("http://x/", 502, "text", {"a": "b"}, b"body"),
    exceptions.ChannelError("ws://x", 400, "text"),
    exceptions.IntegrityError("text"),
    exceptions.Cancelled("text"),
    exceptions.Closed("text"),
    exceptions.BridgeError({"error": "text"}),
]


def test_docstring_shows_every_exception() -> None:
    assert exceptions.__doc__
    for error in EXAMPLES:
        assert f"{type(error).__name__} " in exceptions.__doc__ or type(error) is pymdc.PymdcError
    assert {type(error) for error in EXAMPLES} == set(exceptions_of(exceptions))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_exceptions_survive_pickling(error: pymdc.PymdcError) -> None:
    copied: Any = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert str(copied) == str(error)
    assert "text" in str(error)
    if isinstance(copied, exceptions.HTTPError):
        answer = (copied.code, copied.headers["a"], copied.read())
        assert answer == (502, "b", b"body")


def pickled(error: exceptions.HTTPError) -> Any:
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize(
    "duplicate",
    [lambda error: error, copy.copy, copy.deepcopy, pickled],
    ids=["itself", "copied", "copied deeply", "pickled"],
)
def test_http_error_is_read_closed_or_dropped_without_warning(
    duplicate: Callable[[exceptions.HTTPError], Any],
) -> None:
    def made() -> Any:
        return duplicate(exceptions.HTTPError("http://x/", 502, "text", {"a": "b"}, b"one\ntwo"))

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        made()
        assert made().read() == b"one\ntwo"
        with made() as error:
            assert [error.read(2), *error] == [b"on", b"e\n", b"two"]
        assert error.closed
        with pytest.raises(ValueError, match="closed"):
            error.read()
        del error
        gc.collect()
    assert warned == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "api.metadisk.org",
        "ftp://x",
        "http://",
        "http://x:port",
        "http://x/path",
        "http://x?a=b",
        "http://[",
        "",
    ],
)
def test_invalid_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="expected http"):
        pymdc.Client(endpoint)


@pytest.mark.parametrize("user", ["user:geheim", ":geheim", "geheim", "user:geh@geheim", ""])
@pytest.mark.parametrize("host", ["host", "exa\u2100mple.com", "["])
def test_endpoint_with_password_is_refused_without_showing_it(user: str, host: str) -> None:
    endpoint = f"http://{user}@{host}"
    with pytest.raises(ValueError, match=r"the endpoint is '[.]{3}@.*'; expected http") as caught:
        pymdc.Client(endpoint)
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "make",
    [
        lambda: pymdc.Client(workers=0),
        lambda: pymdc.Client(workers=1.5),  # type: ignore[arg-type]
        lambda: pymdc.Client(workers="3"),  # type: ignore[arg-type]
        lambda: pymdc.Client(workers=None),  # type: ignore[arg-type]
        lambda: pymdc.Client(timeout=0),
        lambda: pymdc.Client(timeout=(1, 2, 3)),  # type: ignore[arg-type]
        lambda: pymdc.Client(timeout="5"),  # type: ignore[arg-type]
    ],
)
def test_wrong_setting_is_value_error(make: Callable[[], pymdc.Client]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make()


def test_setting_of_wrong_type_is_type_error() -> None:
    with pytest.raises(TypeError, match="the endpoint is int; expected text or bytes"):
        pymdc.Client(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ca_certs is int; expected the path of a file"):
        pymdc.Client("http://127.0.0.1:1", ca_certs=5)  # type: ignore[arg-type]


def test_endpoint_may_be_bytes() -> None:
    assert pymdc.Client(b"http://127.0.0.1:1/").endpoint == "http://127.0.0.1:1"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError(), KeyError(5)])
def test_error_of_source_is_returned_unchanged(ask: Ask, error: Exception) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

    with RawServer(wait) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.upload, Broken(b"data"), "token")
    assert value is error


def test_file_that_shrinks_during_upload_is_integrity_error(ask: Ask) -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b""

    with RawServer(wait) as server, pymdc.Client(server.endpoint) as client:
        files = pymdc.api.Files("b", pymdc.ECDSA(), client=client)
        value = ask(files.upload, Shrinking(b"data"), "token")
    assert type(value) is exceptions.IntegrityError
    assert "the file shrank while it was sent: it had 4 bytes, and ended at 0" in str(value)


def test_client_is_shared_by_threads() -> None:
    def handle(connection: socket.socket) -> None:
        while read_request(connection)[0]:
            connection.sendall(written("200 OK", b"[]"))

    with RawServer(handle) as server, pymdc.Client(server.endpoint) as client:
        buckets, got = pymdc.api.Buckets(pymdc.ECDSA(), client=client), []
        threads = [threading.Thread(target=lambda: got.append(buckets.list())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [[]] * 16

"""Certificates are always verified, for the bridge and for channels."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate, context, expired, over_tls
from channels import blocks, websocket_port
from modes import Ask
from processes import python
from servers import Handler, RawServer, answering

import pymdc
from pymdc import exceptions

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


@pytest.fixture(scope="module")
def localhost(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")


@contextmanager
def serve_bridge(certificate: Path) -> Iterator[int]:
    """Serve an answer over TLS with *certificate*, and yield the port."""
    with RawServer(over_tls(certificate, answering(ANSWER))) as server:
        yield server.port


@contextmanager
def serve_channel(certificate: Path) -> Iterator[int]:
    """Serve the shard ``shard`` over TLS with *certificate*, and yield the port."""
    with websocket_port(
        lambda connection: connection.send(b"shard"), ssl=context(certificate)
    ) as port:
        yield port


def list_buckets(ask: Ask, host: str, port: int, ca_certs: Path | None) -> Any:
    trusted = str(ca_certs) if ca_certs else None
    with pymdc.Client(f"https://{host}:{port}", ca_certs=trusted) as client:
        return ask(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list)


def pull_shard(host: str, port: int, ca_certs: Path | None) -> Any:
    """Return the shard of a channel at *host*, or the exception."""
    pointer = {"hash": "h", "token": "t", "channel": f"wss://{host}:{port}"}
    with pymdc.Client("http://127.0.0.1:1", ca_certs=str(ca_certs) if ca_certs else None) as client:
        try:
            return b"".join(blocks(client, pointer))
        except pymdc.PymdcError as error:
            return error


def test_known_certificate_is_accepted(ask: Ask, localhost: Path) -> None:
    with serve_bridge(localhost) as port:
        assert list_buckets(ask, "localhost", port, localhost) == []


def test_channel_with_known_certificate_is_accepted(localhost: Path) -> None:
    with serve_channel(localhost) as port:
        assert pull_shard("localhost", port, localhost) == b"shard"


def unknown(certificate: Path) -> tuple[Path, str, Path | None]:
    return certificate, "localhost", None


def of_another_host(certificate: Path) -> tuple[Path, str, Path | None]:
    return certificate, "127.0.0.1", certificate


def out_of_date(certificate: Path) -> tuple[Path, str, Path | None]:
    old = expired(certificate)
    return old, "localhost", old


Case = Callable[[Path], tuple[Path, str, Path | None]]
REFUSED: list[tuple[Case, str, str]] = [
    (unknown, "self-signed certificate", "to trust your own CA, use Client(ca_certs=...)"),
    (of_another_host, "certificate is not valid for '127.0.0.1'", "check the name of the host"),
    (out_of_date, "certificate has expired", "the server must renew the certificate"),
]


@pytest.mark.parametrize(("case", "reason", "check"), REFUSED)
def test_refused_certificate_says_reason_and_what_to_check(
    ask: Ask, localhost: Path, case: Case, reason: str, check: str
) -> None:
    shown, host, known = case(localhost)
    with serve_bridge(shown) as port:
        value = list_buckets(ask, host, port, known)
    assert type(value) is exceptions.CertificateError
    assert str(value).startswith(
        f"GET https://{host}:{port}/buckets: the certificate is not trusted"
    )
    assert reason in str(value).replace("self signed", "self-signed")
    assert check in str(value)


@pytest.mark.parametrize(("case", "reason", "check"), REFUSED)
def test_channel_with_refused_certificate_says_reason_and_what_to_check(
    localhost: Path, case: Case, reason: str, check: str
) -> None:
    shown, host, known = case(localhost)
    with serve_channel(shown) as port:
        value = pull_shard(host, port, known)
    assert type(value) is exceptions.CertificateError
    assert f"wss://{host}:{port}: the certificate is not trusted" in str(value)
    assert reason in str(value).replace("self signed", "self-signed")
    assert check in str(value)


def test_host_with_refused_certificate_is_sent_nothing(ask: Ask, localhost: Path) -> None:
    received: list[bytes] = []
    with RawServer(over_tls(localhost, lambda secure: received.append(secure.recv(1)))) as server:
        value = list_buckets(ask, "localhost", server.port, None)
    assert type(value) is exceptions.CertificateError
    assert server.connections == 1
    assert not any(received)


def reset(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def close(connection: socket.socket) -> None:
    connection.recv(65536)


@pytest.mark.parametrize("handle", [reset, close])
def test_broken_handshake_is_connect_error_and_tried_three_times(ask: Ask, handle: Handler) -> None:
    with RawServer(handle) as server, pymdc.Client(f"https://localhost:{server.port}") as client:
        value = ask(pymdc.api.Users("a@b.com", "x", client=client).register)
    assert type(value) is exceptions.ConnectError
    assert "may still have been executed" not in str(value)
    assert server.connections == 3


SCRIPT = """
import sys, pymdc
from pymdc._calls.cancel_scope import CancelScope
from pymdc._transfers.channel import open_shard
bridge, channel = sys.argv[1:]
with pymdc.Client(bridge) as client:
    print(pymdc.api.Buckets(pymdc.ECDSA(), client=client).list())
    pointer = {"hash": "h", "token": "t", "channel": channel}
    print(b"".join(open_shard(pointer, client.transport, CancelScope())))
"""


def test_variable_ssl_cert_file_adds_certificate(localhost: Path) -> None:
    with serve_bridge(localhost) as port, serve_channel(localhost) as other:
        urls = f"https://localhost:{port}", f"wss://localhost:{other}"
        done = python("-c", SCRIPT, *urls, env={"SSL_CERT_FILE": str(localhost)})
    assert (done.stderr, done.stdout) == ("", "[]\nb'shard'\n")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "https://127.0.0.1:1"])
@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_file_without_certificates_is_value_error_of_client(
    endpoint: str, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="expected a file of PEM certificates") as caught:
        pymdc.Client(endpoint, ca_certs=str(path))
    assert repr(str(path)) in str(caught.value)

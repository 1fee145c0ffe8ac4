"""Certificates are verified, always: for the bridge and for channels."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from modes import Ask
from servers import RawServer, Treat, read_request

import pymdc
from pymdc import exceptions
from pymdc._scope import Scope

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with the key and the certificate of localhost, which nobody vouches for."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = subprocess.run(
        [*command, *names, "-keyout", "-", "-out", "-"], check=True, capture_output=True
    )
    path.write_bytes(made.stdout)
    return path


def over_tls(certificate: Path) -> Treat:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def treat(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            read_request(secure)
            secure.sendall(ANSWER)

    return treat


def test_an_unknown_certificate_is_refused(ask: Ask, certificate: Path) -> None:
    with RawServer(over_tls(certificate)) as server:
        endpoint = f"https://localhost:{server.port}"
        with pymdc.Client(endpoint) as client:
            value = ask(pymdc.api.Users("a@b.com", client=client).register)
    assert type(value) is exceptions.CertificateError
    assert "the certificate is not to be trusted" in str(value)
    assert "certificate verify failed" in str(value)


def trusting(endpoint: str, certificate: Path) -> pymdc.Client:
    return pymdc.Client(endpoint, ca_certs=str(certificate))


def test_a_known_certificate_is_accepted(ask: Ask, certificate: Path) -> None:
    with RawServer(over_tls(certificate)) as server:
        with trusting(f"https://localhost:{server.port}", certificate) as client:
            assert ask(pymdc.api.Users("a@b.com", client=client).register) == []


def test_a_certificate_of_another_host_is_refused(ask: Ask, certificate: Path) -> None:
    with RawServer(over_tls(certificate)) as server:
        with trusting(f"https://127.0.0.1:{server.port}", certificate) as client:
            value = ask(pymdc.api.Users("a@b.com", client=client).register)
    assert type(value) is exceptions.CertificateError
    assert "127.0.0.1" in str(value)


def test_a_channel_with_an_unknown_certificate_is_refused(certificate: Path) -> None:
    with RawServer(over_tls(certificate)) as server:
        with pymdc.Client("http://127.0.0.1:1") as client:
            pointer = {"hash": "h", "token": "t", "channel": f"wss://localhost:{server.port}"}
            with pytest.raises(exceptions.CertificateError, match="certificate verify failed"):
                list(client.pull(pointer, Scope()))

"""Certificates made by openssl, each in one file with its key."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from pathlib import Path

from servers import Handler


def certificate(folder: Path, host: str) -> Path:
    """Return the file of a new self-signed certificate for *host*."""
    names = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "-"]
    path = folder / f"{host}.pem"
    path.write_bytes(_openssl("req", "-x509", "-days", "2", *names, *key))
    return path


def expired(certificate: Path) -> Path:
    """Return the file of the same certificate with its validity moved to 2020."""
    path = certificate.with_name("expired.pem")
    key, begin, rest = certificate.read_text().partition("-----BEGIN CERTIFICATE")
    der = ssl.PEM_cert_to_DER_cert(begin + rest)
    # openssl 3.6 takes no negative number of days, and 3.0 no dates: the years are edited here.
    dated = re.sub(rb"(?<=\x17\r)\d\d(?=\d{10}Z)", b"20", der)
    path.write_text(ssl.DER_cert_to_PEM_cert(dated) + key)
    path.write_bytes(
        _openssl("x509", "-in", path, "-signkey", path, "-preserve_dates") + key.encode()
    )
    return path


def context(certificate: Path) -> ssl.SSLContext:
    """Return the TLS context of a server with *certificate*."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate)
    return made


def over_tls(certificate: Path, handle: Handler) -> Handler:
    """Return a handler that calls *handle* with a TLS connection."""
    tls = context(certificate)

    def handle_over_tls(connection: socket.socket) -> None:
        with tls.wrap_socket(connection, server_side=True) as secure:
            handle(secure)

    return handle_over_tls


def _openssl(*arguments: str | Path) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout

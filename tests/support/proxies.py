"""A small proxy that forwards plain HTTP and tunnels everything else."""

from __future__ import annotations

import base64
import select
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from certificates import over_tls
from servers import RawServer, read_request


class Proxy:
    """Serves requests that carry *credentials*, ``user:password``; without these, all requests.

    *hosts* maps names that only the proxy can resolve to ports on this machine.
    With a *certificate* the proxy speaks TLS.
    ``requests`` are the request lines served, ``refused`` counts the requests refused.
    """

    def __init__(
        self, hosts: Mapping[str, int], credentials: str = "", certificate: Path | None = None
    ) -> None:
        self._hosts = hosts
        encoded = base64.b64encode(credentials.encode()).decode()
        self._expected = f"Basic {encoded}" if credentials else ""
        handle = over_tls(certificate, self._handle) if certificate else self._handle
        self._server = RawServer(handle)
        self.requests: list[str] = []
        self.refused = 0
        self.address = f"{'localhost' if certificate else '127.0.0.1'}:{self._server.port}"

    def _handle(self, connection: socket.socket) -> None:
        head, body = read_request(connection)
        request, *headers = head.decode("latin-1").split("\r\n")
        names = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in headers}
        if names.get("proxy-authorization", "") != self._expected:
            self.refused += 1
            connection.sendall(_answer("407 Proxy Authentication Required"))
            return
        self.requests.append(request)
        method, target, _ = request.split(" ")
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        with socket.create_connection(("127.0.0.1", self._hosts[url.hostname or ""])) as upstream:
            if method == "CONNECT":
                connection.sendall(_answer("200 Connection established"))
            else:
                path = target.partition(url.netloc)[2]
                kept = [line for line in headers if not line.lower().startswith("proxy-")]
                lines = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
                upstream.sendall("\r\n".join(lines).encode("latin-1") + body)
            _relay(connection, upstream)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.__exit__()


def _answer(status: str) -> bytes:
    length = "" if status.startswith("2") else "Content-Length: 0\r\n"
    return f"HTTP/1.1 {status}\r\n{length}\r\n".encode()


def _relay(downstream: socket.socket, upstream: socket.socket) -> None:
    """Relay bytes in both directions until one side closes."""
    others = {downstream: upstream, upstream: downstream}
    with suppress(OSError, ValueError):  # one of them was closed meanwhile
        while True:
            buffered = isinstance(downstream, ssl.SSLSocket) and downstream.pending()
            for sock in [downstream] if buffered else select.select([*others], [], [])[0]:
                data = sock.recv(65536)
                if not data:
                    return
                others[sock].sendall(data)

"""A plain client of the bridge, which signs by itself and does not use the client of pymdc."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from ecdsa import SECP256k1, SigningKey
from ecdsa.util import sigdecode_der, sigencode_der
from processes import MINUTE
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from pymdc.bridge import Bridge

BOUNDARY = "limit"
NORMAL_CLOSE = b"\x88\x02\x03\xe8"  # the last frame of a channel, with the code 1000
PASSWORD = hashlib.sha256(b"pass").hexdigest()
DATA = random.Random(3).randbytes(2500)

Count = Callable[[], int]
Rows = Callable[[str], int]  # how many rows a table has


class Clock:
    """A clock for the bridge, in seconds, that stands still until a test sets it."""

    def __init__(self) -> None:
        self.seconds = 1_458_820_800.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        return self.status, self.json["error"]


def ask(
    bridge: Bridge,
    method: str,
    path: str,
    body: bytes | str | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send a request; of an ``https`` endpoint the certificate is in the file SSL_CERT_FILE."""
    scheme, _, host = bridge.endpoint.partition("://")
    kind = HTTPSConnection if scheme == "https" else HTTPConnection
    with closing(kind(host, timeout=20)) as connection:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())


def address(bridge: Bridge) -> tuple[str, int]:
    """Return the host and the port of *bridge*, for a socket."""
    parts = urlsplit(bridge.endpoint)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def accepts(bridge: Bridge) -> bool:
    """Return whether *bridge* accepts a connection."""
    try:
        socket.create_connection(address(bridge)).close()
    except ConnectionError:
        return False
    return True


@contextmanager
def stopping(bridge: Bridge) -> Iterator[None]:
    """Stop *bridge*; its port is closed in the block, after which it has to end."""
    with ThreadPoolExecutor(1) as threads:
        stopped = threads.submit(bridge.close)
        while accepts(bridge):
            pass
        yield
        stopped.result(MINUTE)


def head(line: str, *fields: str) -> bytes:
    """Return the bytes of a request's head; *line* is the method and the path."""
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def upgrade(line: str = "GET /") -> bytes:
    """Return the bytes that begin a channel."""
    fields = "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"
    return head(line, *fields, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")


def text(message: str) -> bytes:
    """Return the bytes of a message on a channel."""
    return Frame(Opcode.TEXT, message.encode()).serialize(mask=True)


def refused_upload(bridge: Bridge) -> socket.socket:
    """Send the head of an upload and no body; return the connection once it is refused."""
    wire = socket.create_connection(address(bridge))
    wire.sendall(head("PUT /buckets/x/files", "Content-Length: 1000"))
    assert wire.recv(5000).startswith(b"HTTP/1.1 4")
    return wire


def basic(email: str, password: str) -> dict[str, str]:
    """Return the header of HTTP Basic authentication."""
    encoded = base64.b64encode(f"{email}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def form(data: bytes, filename: str = "a.bin") -> bytes:
    """Return *data* as the file of a multipart/form-data body."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{filename}"'
    head = f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: text/css\r\n\r\n".encode()
    return head + data + f"\r\n--{BOUNDARY}--\r\n".encode()


class Key:
    """A key pair derived from a word."""

    def __init__(self, word: str) -> None:
        self._key = SigningKey.from_string(hashlib.sha256(word.encode()).digest(), curve=SECP256k1)
        self.public: str = self._key.verifying_key.to_string("compressed").hex()
        self.uncompressed: str = self._key.verifying_key.to_string("uncompressed").hex()

    def sign(self, contract: str, *, high_s: bool = False, k: int | None = None) -> str:
        """Return the signature, as DER in hexadecimal, with the high or the low s.

        The secret number is that of RFC 6979, or *k*, which determines r.
        """
        message = contract.encode()
        der = self._key.sign_deterministic(message, hashlib.sha256, sigencode_der)
        if k is not None:
            der = self._key.sign(message, None, hashlib.sha256, sigencode_der, k)
        r, s = sigdecode_der(der, SECP256k1.order)
        s = (max if high_s else min)(s, SECP256k1.order - s)
        return bytes(sigencode_der(r, s, SECP256k1.order)).hex()


class User:
    """An activated user with a key pair that signs each request."""

    nonces = itertools.count(int(time.time() * 1000))

    def __init__(self, bridge: Bridge, name: str, *, known: bool = False) -> None:
        self.bridge = bridge
        self.email = f"{name}@example.com"
        self.key = Key(name)
        if known:
            return
        fields = {"email": self.email, "password": PASSWORD, "pubkey": self.key.public}
        assert ask(bridge, "POST", "/users", json.dumps(fields)).status == 200
        link = f"/activations/{bridge.activation_key(self.email)}"
        assert ask(bridge, "GET", link).status == 200

    def ask(
        self,
        method: str,
        path: str,
        fields: Mapping[str, object] | None = None,
        *,
        nonce: object = None,
        key: Key | None = None,
        high_s: bool = False,
        k: int | None = None,
        query: str = "",
    ) -> Reply:
        """Send a request with a new nonce or *nonce*, signed by the user's key or *key*.

        *query* is what follows the nonce, for a request without *fields*.

        Sending the same request with the same nonce twice is a replay.
        """
        key, nonce = key or self.key, next(self.nonces) if nonce is None else nonce
        query = "&".join([f"__nonce={nonce}", *([query] if query else [])])
        body, target = None, f"{path}?{query}"
        if fields is not None:
            body, query, target = json.dumps({**fields, "__nonce": nonce}), "", path
        contract = f"{method}\n{path}\n{body or query}"
        signature = key.sign(contract, high_s=high_s, k=k)
        headers = {"x-pubkey": key.public, "x-signature": signature}
        return ask(self.bridge, method, target, body, headers)

    def upload_head(self, bucket: str, size: int, length: int, *fields: str) -> bytes:
        """Return the head of an upload of *size* bytes, with a body of *length* bytes."""
        headers = upload_headers(self.token(bucket, "PUSH"), size)
        lines = [f"{name}: {value}" for name, value in headers.items()]
        return head(f"PUT /buckets/{bucket}/files", f"Content-Length: {length}", *lines, *fields)

    def bucket(self, **fields: object) -> str:
        return str(self.ask("POST", "/buckets", fields).json["id"])

    def token(self, bucket: str, operation: str) -> str:
        reply = self.ask("POST", f"/buckets/{bucket}/tokens", {"operation": operation})
        assert reply.status == 200, reply
        return str(reply.json["token"])

    def upload(self, bucket: str, data: bytes, filename: str = "a.bin") -> Reply:
        headers = upload_headers(self.token(bucket, "PUSH"), len(data))
        return ask(self.bridge, "PUT", f"/buckets/{bucket}/files", form(data, filename), headers)

    def pointers(self, bucket: str, file_hash: str) -> Reply:
        headers = {"x-token": self.token(bucket, "PULL")}
        return ask(self.bridge, "GET", f"/buckets/{bucket}/files/{file_hash}", None, headers)

    def download(self, bucket: str, file_hash: str) -> bytes:
        pointers = self.pointers(bucket, file_hash)
        assert pointers.status == 200, pointers
        return b"".join(pull(pointer) for pointer in pointers.json)


def upload_headers(token: str, size: int) -> dict[str, str]:
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return {"x-token": token, "x-filesize": str(size), "Content-Type": kind}


def pull(pointer: Mapping[str, str]) -> bytes:
    """Return the bytes of a shard; raise AssertionError with the bridge's message if refused.

    No thread is started: some versions of Python cannot start one after the main thread ended.
    """
    address = urlsplit(pointer["channel"])
    protocol = ClientProtocol(parse_uri(pointer["channel"]))
    protocol.send_request(protocol.connect())
    data = b""
    with socket.create_connection((address.hostname, address.port or 80), timeout=20) as wire:
        while protocol.close_rcvd is None:
            wire.sendall(b"".join(protocol.data_to_send()))
            received = wire.recv(65536)
            assert received, "the connection ended"
            protocol.receive_data(received)
            for event in protocol.events_received():
                if isinstance(event, Response):
                    fields = {name: pointer[name] for name in ("token", "hash", "operation")}
                    protocol.send_text(json.dumps(fields).encode())
                elif isinstance(event, Frame) and event.opcode is not Opcode.CLOSE:
                    assert event.opcode is Opcode.BINARY, event.data
                    assert len(event.data) <= 65536
                    data += event.data
        wire.sendall(b"".join(protocol.data_to_send()))
    assert protocol.close_rcvd.code == 1000
    return data


def fill(wire: socket.socket, data: bytes) -> int:
    """Send *data* again and again until nothing goes out for a second; return how much did."""
    wire.setblocking(False)
    sent = 0
    while select.select([], [wire], [], 1)[1]:
        try:
            sent += wire.send(data)
        except ConnectionError:
            break
    return sent

"""How many signed GETs one process of the bridge answers; the GETs are signed beforehand."""

from __future__ import annotations

import re
import selectors
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack

from figures import Figures, Scale, number, spread
from parts import Account, address, bridge

from pymdc._http.auth import Signature
from pymdc._http.request import build_request, resource

CONNECTIONS = 16
_MAX_WAIT = 30  # seconds for an answer


def signed(scale: Scale) -> Figures:
    """Return the answers a second, over 16 connections that are kept alive."""
    with bridge(scale.folder) as account:
        server = address(account.client.endpoint)
        rate(server, _requests(account, CONNECTIONS))
        rates = [rate(server, _requests(account, scale.calls)) for _ in range(scale.pairs)]
    median = statistics.median(rates)
    return Figures(median, spread(rates), f"{number(median)} /s", "none")


def _requests(account: Account, count: int) -> list[bytes]:
    """Return *count* GETs of the bucket, encoded, each with a nonce of its own."""
    unsigned = build_request("GET", resource("buckets", account.bucket))
    signature = Signature(account.key_pair)
    requests = []
    for _ in range(count):
        request = signature.sign(unsigned)
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        head = f"GET {request.target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        requests.append(head.encode("ascii"))
    return requests


def rate(server: tuple[str, int], requests: list[bytes]) -> float:
    """Send *requests* and return the number of answers a second."""
    remaining = iter(requests)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        connections = [
            stack.enter_context(socket.create_connection(server)) for _ in range(CONNECTIONS)
        ]
        start = time.perf_counter()
        for connection, request in zip(connections, remaining, strict=False):
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ, bytearray())
        for connection in _complete(selector, len(requests)):
            if request := next(remaining, b""):
                connection.sendall(request)
        return len(requests) / (time.perf_counter() - start)


def _complete(selector: selectors.BaseSelector, count: int) -> Iterator[socket.socket]:
    """Yield the connection of each of *count* answers once the answer is complete."""
    while count:
        ready = selector.select(_MAX_WAIT)
        if not ready:
            raise TimeoutError("the bridge does not answer")
        for key, _ in ready:
            connection, received = key.fileobj, key.data
            assert isinstance(connection, socket.socket)
            received += connection.recv(65536)
            if _is_complete(received):
                received.clear()
                count -= 1
                yield connection


def _is_complete(received: bytearray) -> bool:
    """Say whether *received* is a complete answer; raise if it is a refusal."""
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if not received or not received.startswith(b"HTTP/1.1 200 "[: len(received)]):
        raise RuntimeError(f"the bridge answered {bytes(received[:300])!r}")
    return bool(end and length and len(body) >= int(length[1]))

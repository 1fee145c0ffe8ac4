"""How many signed GETs one process of the bridge answers; they are signed beforehand."""

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
_PATIENCE = 30  # seconds for an answer


def signed(scale: Scale) -> Figures:
    """Return answers a second, over 16 connections that are kept alive."""
    with bridge(scale.folder) as account:
        where = address(account.client.endpoint)
        _answered(where, _requests(account, CONNECTIONS))
        rates = [_answered(where, _requests(account, scale.calls)) for _ in range(scale.pairs)]
    median = statistics.median(rates)
    return Figures(median, spread(rates), f"{number(median)} /s", "none")


def _requests(account: Account, count: int) -> list[bytes]:
    """Return *count* GETs of the bucket as they are sent, each with a nonce of its own."""
    asked, who = (
        build_request("GET", resource("buckets", account.bucket)),
        Signature(account.key_pair),
    )
    requests = []
    for _ in range(count):
        request = who.sign(asked)
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        head = f"GET {request.target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        requests.append(head.encode("ascii"))
    return requests


def _answered(where: tuple[str, int], requests: list[bytes]) -> float:
    """Send *requests* and return how many a second were answered."""
    left = iter(requests)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        lines = [stack.enter_context(socket.create_connection(where)) for _ in range(CONNECTIONS)]
        begun = time.perf_counter()
        for line, request in zip(lines, left, strict=False):
            line.sendall(request)
            selector.register(line, selectors.EVENT_READ, bytearray())
        for line in _done(selector, len(requests)):
            if request := next(left, b""):
                line.sendall(request)
        return len(requests) / (time.perf_counter() - begun)


def _done(selector: selectors.BaseSelector, count: int) -> Iterator[socket.socket]:
    """Give the connection of each answer, *count* of them, once it is whole."""
    while count:
        ready = selector.select(_PATIENCE)
        if not ready:
            raise TimeoutError("the bridge does not answer")
        for key, _ in ready:
            line, came = key.fileobj, key.data
            assert isinstance(line, socket.socket)
            came += line.recv(65536)
            if _whole(came):
                came.clear()
                count -= 1
                yield line


def _whole(came: bytearray) -> bool:
    """Say whether an answer *came* whole; raise where it is a refusal."""
    head, end, body = came.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if not came or not came.startswith(b"HTTP/1.1 200 "[: len(came)]):
        raise RuntimeError(f"the bridge answered {bytes(came[:300])!r}")
    return bool(end and length and len(body) >= int(length[1]))

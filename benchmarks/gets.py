"""How many signed GETs one process of the bridge answers; the GETs are signed beforehand."""

from __future__ import annotations

import statistics
import time

from figures import Figures, Scale, number, spread
from parts import Account, address, bridge
from raw_client import exchange, signed_requests

from pymdc._http.request import build_request, resource

CONNECTIONS = 16


def signed(scale: Scale) -> Figures:
    """Return the answers a second, over 16 connections that are kept alive."""
    with bridge(scale.folder) as account:
        server = address(account.client.endpoint)
        rate(server, signed_gets(account, CONNECTIONS))
        rates = [rate(server, signed_gets(account, scale.calls)) for _ in range(scale.pairs)]
    median = statistics.median(rates)
    return Figures(median, spread(rates), f"{number(median)} /s", "none")


def signed_gets(account: Account, count: int) -> list[bytes]:
    """Return *count* signed GETs of the bucket."""
    unsigned = build_request("GET", resource("buckets", account.bucket))
    return signed_requests(account.key_pair, unsigned, count)


def rate(server: tuple[str, int], encoded: list[bytes]) -> float:
    """Send requests over new connections; return the answers a second, with the connecting."""
    start = time.perf_counter()
    answers = exchange([server], encoded, CONNECTIONS)
    return len(answers) / (time.perf_counter() - start)

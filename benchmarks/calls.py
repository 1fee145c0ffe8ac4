"""Small calls: blocking, and with callbacks.

The row of callbacks needs requests-futures: ``pip install requests-futures``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import urllib3
from figures import Figures, Scale, compared, pairs
from parts import address
from programs import WITHOUT_LIBSECP256K1, fresh, libsecp256k1, module, nginx

import pymdc

BUCKET = "6b02b0fd5a7c8c5a831850a5"
PATH = f"/buckets/{BUCKET}"
ANSWER = {"id": BUCKET, "name": "benchmark", "status": "Active", "storage": 10, "transfer": 30}
OUTSTANDING = 32


def blocking(scale: Scale) -> Figures:
    """Compare signed calls through libsecp256k1 with urllib3, unsigned."""
    return _blocking("import btclib_secp256k1", scale)


def blocking_with_ecdsa(scale: Scale) -> Figures:
    """Compare signed calls through python-ecdsa with urllib3, unsigned."""
    return _blocking(WITHOUT_LIBSECP256K1, scale)


def _blocking(first: str, scale: Scale) -> Figures:
    with nginx(ANSWER) as endpoint:
        found = fresh(
            first, "calls.measured", endpoint=endpoint, count=scale.calls, times=scale.pairs
        )
    return compared(found, "calls/s")


def measured(endpoint: str, count: int, times: int) -> list[tuple[float, float]]:
    """Return calls a second of both sides, *times* times *count* calls."""
    pool = urllib3.HTTPConnectionPool(*address(endpoint))
    with pymdc.Client(endpoint) as client, pool:
        bucket = pymdc.api.Bucket(BUCKET, pymdc.ECDSA(), client=client)

        def theirs() -> Any:
            return json.loads(pool.urlopen("GET", PATH).data)

        pairs(lambda: _rate(bucket.list, count // 10), lambda: _rate(theirs, count // 10), 1)
        return pairs(lambda: _rate(bucket.list, count), lambda: _rate(theirs, count), times)


def _rate(call: Callable[[], Any], count: int) -> float:
    answer = None
    begun = time.perf_counter()
    for _ in range(count):
        answer = call()
    took = time.perf_counter() - begun
    _check(answer)
    return count / took


def callbacks(scale: Scale) -> Figures:
    """Compare signed calls with requests-futures, unsigned; 32 of either are on their way."""
    futures = module("requests_futures.sessions", "requests-futures")
    libsecp256k1()
    with nginx(ANSWER) as endpoint, pymdc.Client(endpoint) as client:
        bucket = pymdc.api.Bucket(BUCKET, pymdc.ECDSA(), client=client)
        with futures.FuturesSession(max_workers=OUTSTANDING) as session:

            def theirs(callback: Callable[[Any], None]) -> None:
                future = session.get(endpoint + PATH)
                future.add_done_callback(lambda future: callback(_decoded(future)))

            def both(count: int, times: int) -> list[tuple[float, float]]:
                return pairs(
                    lambda: _rate_at_once(bucket.list, count),
                    lambda: _rate_at_once(theirs, count),
                    times,
                )

            both(scale.calls // 10, 1)
            return compared(both(scale.calls, scale.pairs), "calls/s")


def _decoded(future: Future[Any]) -> Any:
    error = future.exception()
    return error or future.result().json()


def _rate_at_once(call: Callable[[Callable[[Any], None]], object], count: int) -> float:
    """Return calls a second of *call*, which gives its answer to a callback."""
    turns, answers = threading.Semaphore(OUTSTANDING), []

    def back(answer: Any) -> None:
        answers.append(answer)
        turns.release()

    begun = time.perf_counter()
    for _ in range(count):
        turns.acquire()
        call(back)
    for _ in range(OUTSTANDING):  # until the last one is back
        turns.acquire()
    took = time.perf_counter() - begun
    for answer in answers:
        _check(answer)
    return count / took


def _check(answer: Any) -> None:
    if pymdc.unwrap(answer) != ANSWER:
        raise RuntimeError(f"the answer was {answer!r}")

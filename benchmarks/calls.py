"""Small calls: blocking, and with callbacks.

The row of callbacks needs requests-futures: ``pip install requests-futures``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from typing import Any

import urllib3
from figures import Figures, Scale, compared, pairs
from parts import address
from programs import WITHOUT_LIBSECP256K1, fresh, libsecp256k1, module, nginx
from twenty_lines import TwentyLines

import pymdc

BUCKET = "6b02b0fd5a7c8c5a831850a5"
PATH = f"/buckets/{BUCKET}"
ANSWER = {"id": BUCKET, "name": "benchmark", "status": "Active", "storage": 10, "transfer": 30}
OUTSTANDING = 32


def blocking(scale: Scale) -> Figures:
    """Compare signed calls with those of the twenty lines; libsecp256k1 signs for both."""
    return _in_fresh("import btclib_secp256k1", "calls.beside_twenty_lines", scale)


def blocking_beside_urllib3(scale: Scale) -> Figures:
    """Compare signed calls through libsecp256k1 with urllib3, unsigned."""
    return _in_fresh("import btclib_secp256k1", "calls.beside_urllib3", scale)


def blocking_with_ecdsa(scale: Scale) -> Figures:
    """Compare signed calls through python-ecdsa with urllib3, unsigned."""
    return _in_fresh(WITHOUT_LIBSECP256K1, "calls.beside_urllib3", scale)


def callbacks(scale: Scale) -> Figures:
    """Compare signed calls with those of the twenty lines; each side keeps 32 in flight."""
    first = "import btclib_secp256k1"
    return _in_fresh(first, "calls.beside_twenty_lines_at_once", scale)


def callbacks_beside_requests(scale: Scale) -> Figures:
    """Compare signed calls with requests-futures, unsigned; each side keeps 32 in flight."""
    module("requests_futures.sessions", "requests-futures")
    return _in_fresh("import btclib_secp256k1", "calls.beside_requests", scale)


def _in_fresh(first: str, name: str, scale: Scale) -> Figures:
    """Compare in a fresh process, after the statement *first*."""
    if first != WITHOUT_LIBSECP256K1:
        libsecp256k1()
    with nginx(ANSWER) as endpoint:
        found = fresh(first, name, endpoint=endpoint, count=scale.calls, times=scale.pairs)
    return compared(found, "calls/s")


Measured = list[tuple[float, float]]


def beside_twenty_lines(endpoint: str, count: int, times: int) -> Measured:
    """Return the calls a second of both sides, one call at a time."""
    with _bucket(endpoint) as bucket, closing(_twenty_lines(endpoint)) as theirs:
        return _measured(_rate, bucket.list, lambda: theirs.submit().result(), count, times)


def beside_urllib3(endpoint: str, count: int, times: int) -> Measured:
    """Return the calls a second of both sides, one call at a time."""
    with _bucket(endpoint) as bucket, urllib3.HTTPConnectionPool(*address(endpoint)) as pool:

        def theirs() -> Any:
            return json.loads(pool.urlopen("GET", PATH).data)

        return _measured(_rate, bucket.list, theirs, count, times)


def beside_twenty_lines_at_once(endpoint: str, count: int, times: int) -> Measured:
    """Return the calls a second of both sides, 32 calls at a time."""
    with _bucket(endpoint) as bucket, closing(_twenty_lines(endpoint)) as twenty_lines:

        def theirs(callback: Callable[[Any], None]) -> None:
            twenty_lines.submit().add_done_callback(lambda future: callback(future.result()))

        return _measured(_rate_at_once, bucket.list, theirs, count, times)


def beside_requests(endpoint: str, count: int, times: int) -> Measured:
    """Return the calls a second of both sides, 32 calls at a time."""
    futures = module("requests_futures.sessions", "requests-futures")
    with _bucket(endpoint) as bucket, futures.FuturesSession(max_workers=OUTSTANDING) as session:

        def theirs(callback: Callable[[Any], None]) -> None:
            future = session.get(endpoint + PATH)
            future.add_done_callback(lambda future: callback(_decoded(future)))

        return _measured(_rate_at_once, bucket.list, theirs, count, times)


@contextmanager
def _bucket(endpoint: str) -> Iterator[pymdc.api.Bucket]:
    with pymdc.Client(endpoint) as client:
        yield pymdc.api.Bucket(BUCKET, pymdc.ECDSA(), client=client)


def _twenty_lines(endpoint: str) -> TwentyLines:
    return TwentyLines(*address(endpoint), PATH, workers=OUTSTANDING)


def _decoded(future: Future[Any]) -> Any:
    error = future.exception()
    return error or future.result().json()


def _measured(
    rate: Callable[[Callable[..., Any], int], float],
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    count: int,
    times: int,
) -> Measured:
    """Measure *count* calls of both sides, *times* times, after a warm-up of a tenth as many."""
    pairs(lambda: rate(ours, count // 10), lambda: rate(theirs, count // 10), 1)
    return pairs(lambda: rate(ours, count), lambda: rate(theirs, count), times)


def _rate(call: Callable[[], Any], count: int) -> float:
    answer = None
    start = time.perf_counter()
    for _ in range(count):
        answer = call()
    seconds = time.perf_counter() - start
    _check(answer)
    return count / seconds


def _rate_at_once(call: Callable[[Callable[[Any], None]], object], count: int) -> float:
    """Return calls a second of *call*, which passes its answer to a callback."""
    slots, answers = threading.Semaphore(OUTSTANDING), []

    def deliver(answer: Any) -> None:
        answers.append(answer)
        slots.release()

    start = time.perf_counter()
    for _ in range(count):
        slots.acquire()
        call(deliver)
    for _ in range(OUTSTANDING):  # until all answers are there
        slots.acquire()
    seconds = time.perf_counter() - start
    for answer in answers:
        _check(answer)
    return count / seconds


def _check(answer: Any) -> None:
    if pymdc.unwrap(answer) != ANSWER:
        raise RuntimeError(f"the answer was {answer!r}")

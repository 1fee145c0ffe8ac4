"""How long a bridge takes to start and to stop, beside a bare uvicorn on a thread.

Both are in this process, which has started one of each before. The bridge has a new temporary
folder and a new database each time. Before a stop, a client has made one request, and keeps its
connection.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import urllib3
import uvicorn
from figures import Figures, Scale, compared, pairs

from pymdc.bridge import Bridge

_EACH = 10  # of which the median is one measurement
Measure = Callable[[AbstractContextManager[str]], float]


def start(scale: Scale) -> Figures:
    """Compare the starts, up to the moment when connections are accepted."""
    return _compared(_start, scale)


def stop(scale: Scale) -> Figures:
    """Compare the stops, with one idle connection."""
    return _compared(_stop, scale)


def times() -> list[float]:
    """Return the medians of a start and a stop, in milliseconds; for a fresh interpreter."""
    for measure in _start, _stop:
        measure(_bridge())
    return [_median(measure, _bridge) for measure in (_start, _stop)]


def _compared(measure: Measure, scale: Scale) -> Figures:
    both = partial(_median, measure, _bridge), partial(_median, measure, _bare)
    pairs(*both, 1)
    return compared(pairs(*both, scale.pairs), "ms")


def _median(measure: Measure, server: Callable[[], AbstractContextManager[str]]) -> float:
    return statistics.median(measure(server()) for _ in range(_EACH))


def _start(server: AbstractContextManager[str]) -> float:
    begun = time.perf_counter()
    with server:
        return 1000 * (time.perf_counter() - begun)


def _stop(server: AbstractContextManager[str]) -> float:
    with urllib3.PoolManager() as client:
        with server as endpoint:
            client.request("GET", f"{endpoint}/health")
            begun = time.perf_counter()
        return 1000 * (time.perf_counter() - begun)


@contextmanager
def _bridge() -> Iterator[str]:
    with Bridge() as bridge:
        yield bridge.endpoint


async def _answer(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


class _Bare(uvicorn.Server):
    """uvicorn without its waits of 0.1 seconds, which would be all that is measured."""

    def __init__(self) -> None:
        super().__init__(
            uvicorn.Config(_answer, port=0, loop="asyncio", lifespan="off", log_config=None)
        )
        self.ready = threading.Event()

    async def main_loop(self) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        self.ready.set()
        await self.over.wait()

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        for connection in [*self.server_state.connections]:
            connection.shutdown()
        while self.server_state.connections:
            await asyncio.sleep(0)


@contextmanager
def _bare() -> Iterator[str]:
    server = _Bare()
    thread = threading.Thread(target=server.run)
    thread.start()
    server.ready.wait()
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.loop.call_soon_threadsafe(server.over.set)
        thread.join()

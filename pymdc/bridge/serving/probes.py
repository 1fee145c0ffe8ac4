"""Health, readiness and metrics: answered on the event loop, whatever other requests wait for."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from pymdc.bridge.auth import Identity, anybody
from pymdc.bridge.context import Context
from pymdc.bridge.errors import Refused, UnavailableError
from pymdc.bridge.metrics import PREFIX
from pymdc.bridge.routes import Route
from pymdc.bridge.serving.request import Request, Response
from pymdc.bridge.serving.threads import Threads
from pymdc.bridge.settings import PROBE_SECONDS
from pymdc.bridge.storage.installation import check_still
from pymdc.bridge.storage.usage import stored_bytes

T = TypeVar("T")
_log = logging.getLogger("pymdc.bridge")


class _Shared(Generic[T]):
    """Runs *function* on a thread, once at a time: callers meanwhile wait for the same result.

    So a disk that does not answer holds one thread, however often the bridge is asked.
    """

    def __init__(self, threads: Threads, function: Callable[[], T]) -> None:
        self._threads = threads
        self._function = function
        self._task: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """Return or raise what the function returns or raises; TimeoutError if it takes long."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._threads.run(self._function))
            # Else asyncio logs an error that comes when nobody waits for the result any more.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.wait_for(asyncio.shield(self._task), PROBE_SECONDS)


class Probes:
    """The routes that tell how the bridge is.

    *metrics_token* is what a request for the metrics has to contain, if it is given.
    """

    def __init__(self, context: Context, metrics_token: str | None) -> None:
        self._context = context
        self._token = metrics_token
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self._storage = _Shared(context.threads, self._check_storage)
        self._page = _Shared(context.threads, lambda: generate_latest(self._registry))
        self.routes = (
            Route("GET", "/health", self._health, anybody, direct=True),
            Route("GET", "/ready", self._ready, anybody, direct=True),
        )
        self.metrics_route = Route("GET", "/metrics", self._metrics, self._reader, direct=True)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics: what was counted, and how much there is now."""
        context, metrics = self._context, self._context.metrics
        yield from metrics.collect()
        yield from self._lanes()
        for name, help_, count in (
            ("connections", "Connections that are open.", metrics.connections),
            ("database_waiting", "Requests waiting for the database.", context.threads.waiting),
            ("mails_waiting", "Mails in the outbox.", context.mailer.waiting),
            ("disk_free_bytes", "Bytes free on the disk of the data.", context.load.free),
            ("stored_bytes", "Bytes of the files in all buckets.", self._stored_bytes),
        ):
            # The others are worth having.
            with suppress(OSError, sa.exc.SQLAlchemyError, UnavailableError):
                yield GaugeMetricFamily(PREFIX + name, help_, value=count())

    def _lanes(self) -> Iterator[Metric]:
        running, waiting, waits, seconds = (
            GaugeMetricFamily(
                f"{PREFIX}lane_running", "Requests running in a lane.", labels=["lane"]
            ),
            GaugeMetricFamily(
                f"{PREFIX}lane_waiting", "Requests waiting for a lane.", labels=["lane"]
            ),
            CounterMetricFamily(f"{PREFIX}lane_waits", "Requests that waited.", labels=["lane"]),
            CounterMetricFamily(
                f"{PREFIX}lane_wait_seconds", "How long, all together.", labels=["lane"]
            ),
        )
        for name, lane in self._context.load.lanes.items():
            running.add_metric([name], lane.running)
            waiting.add_metric([name], lane.waiting)
            waits.add_metric([name], lane.waits)
            seconds.add_metric([name], lane.waited)
        yield from (running, waiting, waits, seconds)

    def _stored_bytes(self) -> int:
        with self._context.database.read() as connection:
            return stored_bytes(connection)

    def _check_storage(self) -> None:
        """Raise if the database or the store does not answer, can't be written, or is another."""
        self._context.objects.check()
        self._context.database.check()
        check_still(self._context.database, self._context.objects)

    async def _health(self, _context: Context, _request: Request, _who: Identity) -> Response:
        """Say that the bridge is alive."""
        return Response({"status": "alive"})

    async def _ready(self, context: Context, _request: Request, _who: Identity) -> Response:
        """Say whether the bridge can serve requests."""
        if context.load.stopping:
            raise Refused(503, "The bridge is stopping")
        try:
            await self._storage.result()
        except Exception as error:  # noqa: BLE001  # whatever it is, the bridge is not ready
            _log.warning("the bridge is not ready: %s", str(error) or "the storage does not answer")
            raise Refused(503, "The storage does not answer") from None
        return Response({"status": "ready"})

    async def _metrics(self, _context: Context, _request: Request, _who: Identity) -> Response:
        """Give the metrics in Prometheus' text format."""
        page = await self._page.result()
        return Response(content=page, headers=(("Content-Type", CONTENT_TYPE_LATEST),))

    def _reader(self, _context: Context, request: Request) -> Identity:
        """Accept who has the token; to others, the page does not exist."""
        if self._token is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("latin-1"), self._token.encode())
            if scheme.lower() != "bearer" or not right:
                raise Refused(404, f"Cannot {request.method} {request.path}")
        return Identity()

"""What the bridge counts, for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from pymdc.bridge.logs import Entry
from pymdc.bridge.settings import HISTOGRAM

PREFIX = "pymdc_bridge_"
REFUSALS = (429, 503, 507)  # because there is too much load


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(HISTOGRAM) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(HISTOGRAM, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the bounds, and how many values are up to each."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, HISTOGRAM), "+Inf"), self.counts.copy(), strict=True):
            total += count
            buckets.append((bound, total))
        return buckets


class Metrics:
    """The counters of one bridge.

    They are plain numbers, changed on the event loop alone: the objects of prometheus-client take
    a lock for each change. They may be read on any thread.
    """

    def __init__(self) -> None:
        self.connections: Callable[[], int] = lambda: 0
        self._requests: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._seconds: defaultdict[tuple[str, str], _Histogram] = defaultdict(_Histogram)
        self._refusals = dict.fromkeys(REFUSALS, 0)
        self._received = self._sent = 0

    def count(self, entry: Entry) -> None:
        """Count a request that has ended."""
        self._requests[entry.method, entry.route, str(entry.status)] += 1
        self._seconds[entry.method, entry.route].observe(entry.seconds)
        self._received += entry.received
        self._sent += entry.sent
        if entry.status in self._refusals:
            self._refusals[entry.status] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted, as prometheus-client takes it."""
        requests = CounterMetricFamily(
            f"{PREFIX}requests", "Requests and channels.", labels=("method", "route", "status")
        )
        for labels, number in self._requests.copy().items():
            requests.add_metric(labels, number)
        yield requests
        seconds = HistogramMetricFamily(
            f"{PREFIX}request_duration_seconds",
            "From the head of a request to the end of its response.",
            labels=("method", "route"),
        )
        for route, histogram in self._seconds.copy().items():
            seconds.add_metric(route, histogram.buckets(), histogram.sum)
        yield seconds
        refusals = CounterMetricFamily(
            f"{PREFIX}refusals", "Requests refused because of load.", labels=("status",)
        )
        for status, number in self._refusals.items():
            refusals.add_metric((str(status),), number)
        yield refusals
        for name, help_, value in (
            ("received_bytes", "Bytes of bodies of requests.", self._received),
            ("sent_bytes", "Bytes of bodies of responses, and of shards.", self._sent),
        ):
            yield CounterMetricFamily(PREFIX + name, help_, value=value)

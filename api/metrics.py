"""The API's own Prometheus metrics: cheap to count, rendered only when someone asks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestMetrics(Collector):
    """Requests by method and route template, with status and duration. One process, one thread: no locks."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._durations: dict[tuple[str, str], list[float]] = {}
        self._statuses: dict[tuple[str, str, int], int] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request has ended."""
        series = self._durations.get((method, route))
        if series is None:
            series = self._durations[method, route] = [0.0] * (len(BUCKETS_S) + 2)
        series[bisect_left(BUCKETS_S, seconds)] += 1
        series[-1] += seconds
        key = (method, route, status)
        self._statuses[key] = self._statuses.get(key, 0) + 1

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("packstream_http_requests_in_flight", "Requests being answered", self.in_flight)
        statuses = CounterMetricFamily(
            "packstream_http_requests", "Requests answered", labels=["method", "route", "status"]
        )
        for (method, route, status), count in self._statuses.items():
            statuses.add_metric([method, route, str(status)], count)
        yield statuses
        durations = HistogramMetricFamily(
            "packstream_http_request_duration_seconds", "Time to the end of the answer", labels=["method", "route"]
        )
        for labels, series in self._durations.items():
            durations.add_metric(list(labels), _cumulative(series[:-1]), sum_value=series[-1])
        yield durations


def _cumulative(counts: list[float]) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    total = 0.0
    buckets = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets

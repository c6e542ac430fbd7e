"""Prometheus metrics of the ads engine's HTTP side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsCollector

serves: Final[Counter[str]] = Counter()  #: by outcome: served, no_candidates, budget_exhausted, gate_closed, …
excluded: Final[Counter[str]] = Counter()  #: candidates that were not served, by models.ads.rules.Exclusion
tracked: Final[Counter[tuple[str, str]]] = Counter()  #: impressions and clicks by (kind, outcome)

flush_events: Final = Histogram(
    "packstream_ad_flush_events",
    "Events of one flush of the collector",
    buckets=(1, 4, 16, 64, 256, 1024, 4096),
    registry=None,
)
flush_seconds: Final = Histogram(
    "packstream_ad_flush_seconds",
    "Time of one flush of the collector, from its first statement to its commit",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
    registry=None,
)
flush_failures: Final = PrometheusCounter(
    "packstream_ad_flush_failures", "Flushes that failed; their callers got a 503", registry=None
)
unmarked_events: Final = PrometheusCounter(
    "packstream_ad_unmarked_events",
    "Durable events whose mark in Redis could not be given its full life",
    registry=None,
)


class _HotCounters(MetricsCollector):
    """Counters that the serve path moves as plain integers: a labelled Prometheus counter costs it 1 µs each."""

    def collect(self) -> Iterable[Metric]:
        """What Prometheus scrapes."""
        served = CounterMetricFamily("packstream_ad_serves", "Serves by outcome", labels=["outcome"])
        for outcome, count in list(serves.items()):
            served.add_metric([outcome], count)
        left_out = CounterMetricFamily(
            "packstream_ad_exclusions", "Active ads not served, by reason", labels=["reason"]
        )
        for reason, count in list(excluded.items()):
            left_out.add_metric([reason], count)
        events = CounterMetricFamily("packstream_ad_tracked", "Impressions and clicks", labels=["kind", "outcome"])
        for (kind, outcome), count in list(tracked.items()):
            events.add_metric([kind, outcome], count)
        return served, left_out, events


def register(registry: CollectorRegistry) -> None:
    """Show all of these in what the process exports."""
    for metrics in (_HotCounters(), flush_events, flush_seconds, flush_failures, unmarked_events):
        registry.register(metrics)

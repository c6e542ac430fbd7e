"""What the relay tells Prometheus."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from models.outbox_commands import Backlog, Row

LATENCY_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10, 60, 600)

PUBLISHED = Counter("packstream_relay_published_total", "Rows that the broker acknowledged", ["topic"])
LATENCY = Histogram(
    "packstream_relay_publish_latency_seconds", "From a row's insert to its acknowledgement", buckets=LATENCY_BUCKETS_S
)
REFUSED = Counter("packstream_relay_refused_total", "Attempts that the broker refused", ["reason"])
PARKED = Counter("packstream_relay_parked_total", "Rows that became dead letters")
BROKER_AWAY = Counter("packstream_relay_broker_away_total", "Times that the broker did not answer in time")
CYCLES = Counter("packstream_relay_cycles_total", "Claims of lanes with something to do")
BATCH_ROWS = Histogram(
    "packstream_relay_batch_rows", "Rows published in one cycle", buckets=(1, 10, 50, 100, 250, 500, 1000, 2000, 5000)
)
PENDING = Gauge("packstream_relay_pending_rows", "Rows in the outbox")
WAITING = Gauge("packstream_relay_waiting_rows", "Rows behind a refused row or a dead letter")
OLDEST = Gauge("packstream_relay_oldest_pending_seconds", "Age of the oldest row that can flow")
FAILING = Gauge("packstream_relay_failing_aggregates", "Aggregates between two attempts")
DEAD_LETTERS = Gauge("packstream_dead_letters_parked", "Dead letters without a decision, of all sources")


def observe_published(rows: Iterable[Row]) -> None:
    """Count acknowledged rows and how long each took."""
    now = time.time()
    counts = [0] * (len(LATENCY_BUCKETS_S) + 1)
    topics: dict[str, int] = {}
    total_s = 0.0
    for row in rows:
        latency_s = max(0.0, now - row.created_s)
        total_s += latency_s
        counts[bisect_left(LATENCY_BUCKETS_S, latency_s)] += 1
        topics[row.aggregatetype] = topics.get(row.aggregatetype, 0) + 1
    # One locked call a row would cost as much as publishing it.
    LATENCY._sum.inc(total_s)
    for bucket, count in zip(LATENCY._buckets, counts, strict=True):
        bucket.inc(count)
    for topic, count in topics.items():
        PUBLISHED.labels(topic).inc(count)


def show_backlog(backlog: Backlog) -> None:
    """Set the gauges."""
    PENDING.set(backlog.pending)
    WAITING.set(backlog.waiting)
    OLDEST.set(backlog.oldest_s or 0)
    FAILING.set(backlog.failing)
    DEAD_LETTERS.set(backlog.parked)

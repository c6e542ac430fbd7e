"""What the housekeeping tells Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LEADER = Gauge("packstream_housekeeping_leader", "1 in the process that does the housekeeping")
TICKS = Counter("packstream_ticks_total", "Ticks written")
TICKS_MISSED = Counter("packstream_ticks_missed_total", "Ticks put off because a shard was locked for too long")
ORDERS_MISSED = Counter(
    "packstream_order_sweep_hits_total",
    "Orders that the sweep expired or nudged, missed by their timers: alarm",
    ["kind"],
)
ORDERS_FAILED = Counter("packstream_order_sweep_failures_total", "Orders that the sweep failed at: alarm", ["kind"])

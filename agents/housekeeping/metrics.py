"""What the housekeeping tells Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LEADER = Gauge("packstream_housekeeping_leader", "1 in the process that does the housekeeping")
TICKS = Counter("packstream_ticks_total", "Ticks written")
TICKS_MISSED = Counter("packstream_ticks_missed_total", "Ticks put off because a shard was locked for too long")

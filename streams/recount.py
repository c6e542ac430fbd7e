"""Counts the raw topic again, in the plainest way: what reconciliation holds everything else against. Pure.

It shares the decoding of records and the meaning of ticks with the agent, and nothing else: no packed marks, no
per-minute sets, no fast paths. It remembers every event id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field

from schemas.ad_columns import CLICK, Columns
from streams.watermarks import DAY_S, MINUTE_S, Grace, Watermark


@dataclass(slots=True)
class AdTotals:
    """An ad's day."""

    impressions: int = 0
    clicks: int = 0
    spend_micros: int = 0


@dataclass(slots=True)
class Recount:
    """One day, counted over all partitions. Feed each partition's records in order."""

    day: int
    grace: Grace
    known: Container[bytes]
    ads: dict[bytes, AdTotals] = field(default_factory=dict)
    late: set[bytes] = field(default_factory=set)  #: events of the day that came when they could not be counted
    counted: set[bytes] = field(default_factory=set)
    repeats: int = 0
    unknown: Counter[bytes] = field(default_factory=Counter)
    _watermarks: dict[int, Watermark] = field(default_factory=dict)

    def add(self, columns: Columns) -> None:
        """Take the next record."""
        watermark = self._watermarks.setdefault(columns.shard, Watermark(self.grace))
        if columns.tick_us is not None:
            watermark.advance(columns.tick_us)
        closed = self.day <= watermark.closed_day
        for jti, ad, kind, iat_s, exp_s, cost in zip(
            columns.jti, columns.ad, columns.kind, columns.iat_s, columns.exp_s, columns.cost_micros, strict=True
        ):
            if iat_s // DAY_S == self.day:
                late = closed or exp_s // MINUTE_S < watermark.oldest_bucket
                self._event(jti, columns.ads[ad], kind, cost, late=late)

    def _event(self, jti: bytes, ad_id: bytes, kind: int, cost: int, *, late: bool) -> None:
        if jti in self.counted:
            self.repeats += 1
        elif ad_id not in self.known:
            self.unknown[ad_id] += 1
        elif late:
            self.late.add(jti)
        else:
            self.counted.add(jti)
            totals = self.ads.setdefault(ad_id, AdTotals())
            totals.impressions += kind != CLICK
            totals.clicks += kind == CLICK
            totals.spend_micros += cost

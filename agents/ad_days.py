"""Closes days for owned shards: when a watermark passes a day's end, its totals go to Postgres, once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from models.ads import closing
from models.ads.closing import Totals
from models.ads.rules import day_from_number, day_number
from models.database import SessionFactory
from streams.counters import Counters
from streams.watermarks import NEVER

log = structlog.get_logger(__name__)

DAYS_A_STEP: Final = 31  #: closed at one tick; a clock that jumped further closes the rest at the next ticks
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DayCloser:
    """One shard's closures, for as long as this worker owns the shard."""

    def __init__(self, shard: int, *, shards: int, sessions: SessionFactory, now: Callable[[], datetime]) -> None:
        self.shard = shard
        self._shards, self._sessions, self._now = shards, sessions, now
        self._closed_through: int | None = None  #: as in Postgres

    async def follow(self, counters: Counters) -> None:
        """Close what the shard's watermark has passed. Raises a database error: call again."""
        watermark = counters.shard(self.shard).watermark
        if self._closed_through is None:
            self._closed_through = await self._read(watermark.base_day)
        last = min(watermark.closed_day, self._closed_through + DAYS_A_STEP)
        until = EPOCH + timedelta(microseconds=watermark.until_us)
        for number in range(self._closed_through + 1, last + 1):
            await self._close(counters, day_from_number(number), number, until)
            self._closed_through = number

    async def _read(self, base_day: int) -> int:
        async with self._sessions() as tx:
            found: date | None = await closing.closed_through(tx, self.shard)
        return max(base_day, NEVER if found is None else day_number(found))

    async def _close(self, counters: Counters, day: date, number: int, watermark: datetime) -> None:
        totals = [
            Totals(UUID(bytes=found.ad_id), found.impressions, found.clicks, found.spend_micros)
            for found in counters.of_shard(self.shard, number)
        ]
        async with self._sessions.begin() as tx:
            differing = await closing.close_day(
                tx,
                shard=self.shard,
                shards=self._shards,
                day=day,
                totals=totals,
                watermark=watermark,
                now=self._now(),
            )
        if differing:
            log.error("day_closed_differently", shard=self.shard, day=day, ads=[str(t.ad_id) for t in differing])
        log.info("day_closed", shard=self.shard, day=day.isoformat(), ads=len(totals))

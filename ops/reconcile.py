"""Reconciliation: count the raw topic again and hold everything downstream against it.

Levels: `counters` (the agent's table, read from its committed changelog), `rollups`, `charges`, `adjustments`, and of a
closed day `warehouse rollups` and `warehouse charges` where there is a warehouse. The raw
topic is counted up to the position that the table contains, so that a running system reconciles too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from agents import kafka
from agents.runtime.store import POSITION_KEY
from models.ads import reconciling
from models.ads.closing import Totals
from models.ads.reconciling import DayInPostgres
from models.ads.rules import charge_cents, day_number
from models.clock import Clock
from models.database import SessionFactory, make_engine, make_sessions
from ops.kafka_read import read_topic
from ops.reconcile_warehouse import compare_warehouse
from ops.settings import Settings
from ops.warehouse import connected_warehouse
from schemas.ad_columns import MalformedBatchError, unpack
from schemas.codec import UndecodableError, decode_dict
from streams.ad_day import AdDay
from streams.recount import Recount
from streams.topics import AD_COUNTERS_CHANGELOG, AD_EVENTS
from streams.watermarks import COUNTERS_KEPT_DAYS, Grace, Watermark

DIFFERENCES_MAX = 1_000  #: named in a report; the rest is counted
NOTHING = Totals(UUID(int=0), 0, 0, 0)

Progress = Callable[[int], None]
"""Called with the number of records just read."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one level has and should have. `key`: an ad, a store or an event."""

    level: str
    key: str
    expected: Any
    found: Any


@dataclass(slots=True)
class Reconciliation:
    """One day. Rollup fields are None while the day is open."""

    day: str
    ok: bool
    closed: bool
    accepted: int
    impressions: int | None
    clicks: int | None
    spend_micros: int | None
    adjustments: int
    unreadable: int = 0  #: records of the topic, of whatever day, that nobody can count: each is a dead letter
    differences: list[Difference] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Table:
    """The agent's table, as its changelog has it."""

    positions: dict[int, int] = field(default_factory=dict)
    counters: dict[bytes, bytes] = field(default_factory=dict)
    watermarks: dict[bytes, bytes] = field(default_factory=dict)

    def take(self, partition: int, key: bytes, value: bytes | None) -> None:
        """The next committed record."""
        if key == POSITION_KEY:
            self.positions[partition] = int(value or b"-1")
        elif key[:1] == b"c":
            if value is None:
                self.counters.pop(key, None)
            else:
                self.counters[key] = value
        elif key[:1] == b"w" and value is not None:
            self.watermarks[key] = value

    def day(self, day: int) -> dict[bytes, Totals]:
        """Counters of one day by ad."""
        days = (AdDay.unpack(key, value) for key, value in self.counters.items())
        return {
            d.ad_id: Totals(UUID(bytes=d.ad_id), d.impressions, d.clicks, d.spend_micros) for d in days if d.day == day
        }

    def keeps(self, day: int, grace: Grace) -> bool:
        """Whether no shard has let go of the day's counters yet."""
        return all(
            day >= Watermark.unpack(grace, packed).closed_day - COUNTERS_KEPT_DAYS
            for packed in self.watermarks.values()
        )


async def reconcile_day(settings: Settings, day: date, *, progress: Progress | None = None) -> Reconciliation:
    """One day; see `reconcile_days`."""
    return (await reconcile_days(settings, [day], progress=progress))[0]


async def reconcile_days(
    settings: Settings, days: Sequence[date], *, progress: Progress | None = None
) -> list[Reconciliation]:
    """Reconcile days in one pass over the topic, keep the reports, clear the charges of days that are at zero."""
    engine = make_engine(settings.sqlalchemy_url, pool_size=2, application="packstream-reconcile")
    try:
        return await _reconcile(settings, make_sessions(engine), days, progress or (lambda _: None))
    finally:
        await engine.dispose()


async def _reconcile(
    settings: Settings, sessions: SessionFactory, days: Sequence[date], progress: Progress
) -> list[Reconciliation]:
    grace = Grace(settings.ad_token_ttl_s, settings.clock_skew_s)
    async with sessions() as tx:
        stores = await reconciling.stores_of_ads(tx)
    table = await _read_table(settings, progress)
    recounts = {day: Recount(day_number(day), grace, stores) for day in days}
    unreadable = await _recount(settings, table, list(recounts.values()), progress)
    found = []
    for day, recount in recounts.items():
        async with sessions.begin() as tx:
            stored = await reconciling.read_day(tx, day)
        one = compare(day, recount, table, stored, stores, shards=settings.ad_shards)
        one.unreadable = unreadable
        if one.closed and settings.has_warehouse:
            await _add_warehouse(settings, one, day, stored)
        async with sessions.begin() as tx:
            now = await _business_time(settings, sessions)
            await reconciling.keep_report(tx, day, one.as_json(), cleared=one.ok and one.closed, now=now)
        found.append(one)
    return found


async def _add_warehouse(settings: Settings, one: Reconciliation, day: date, stored: DayInPostgres) -> None:
    """What the warehouse has differently of a closed day."""
    store = connected_warehouse(settings)
    try:
        differences = [Difference(*found) for found in await compare_warehouse(store, day, stored)]
    finally:
        store.close()
    one.differences = [*one.differences, *differences][:DIFFERENCES_MAX]
    one.ok = one.ok and not differences


async def _business_time(settings: Settings, sessions: SessionFactory) -> datetime:
    clock = Clock()
    if settings.test_clock:
        async with sessions() as tx:
            await clock.refresh(tx)
    return clock.now()


async def _read_table(settings: Settings, progress: Progress) -> Table:
    table = Table()
    records = read_topic(kafka.connection(settings), AD_COUNTERS_CHANGELOG, isolation="read_committed")
    async for batch in records:
        for record in batch:
            table.take(record.partition, record.key, record.value)
        progress(len(batch))
    return table


async def _recount(settings: Settings, table: Table, recounts: Sequence[Recount], progress: Progress) -> int:
    """Count the topic for each of `recounts`; how many of its records cannot be read."""
    unreadable = 0
    until = {partition: position + 1 for partition, position in table.positions.items()}
    async for batch in read_topic(kafka.connection(settings), AD_EVENTS, until=until):
        for record in batch:
            try:
                _, fields = decode_dict(record.value)
                columns = unpack(fields)
            except (UndecodableError, MalformedBatchError, KeyError):
                unreadable += 1
                continue
            for recount in recounts:
                recount.add(columns)
        progress(len(batch))
        await asyncio.sleep(0)
    return unreadable


def compare(
    day: date, recount: Recount, table: Table, stored: DayInPostgres, stores: dict[bytes, UUID], *, shards: int
) -> Reconciliation:
    """Hold each level of a day against the recount. Pure."""
    expected = {
        ad_id: Totals(UUID(bytes=ad_id), t.impressions, t.clicks, t.spend_micros) for ad_id, t in recount.ads.items()
    }
    closed = stored.closures >= shards
    differences: list[Difference] = []
    if table.keeps(day_number(day), recount.grace):
        differences += _ads("counters", expected, table.day(day_number(day)))
    if closed:
        differences += _ads("rollups", expected, {ad_id.bytes: totals for ad_id, totals in stored.rollups.items()})
        differences += _charges(expected, stored, stores)
    late = {UUID(bytes=jti) for jti in recount.late}
    repeated = {UUID(bytes=jti) for jti in recount.counted} & stored.adjustments
    adjustments = stored.adjustments - repeated
    differences += [
        Difference("adjustments", str(event_id), event_id in late, event_id in adjustments)
        for event_id in sorted(late ^ adjustments)
    ]
    totals = stored.rollups.values()
    return Reconciliation(
        day=day.isoformat(),
        ok=not differences,
        closed=closed,
        accepted=len(recount.counted) + len(recount.late),
        impressions=sum(t.impressions for t in totals) if closed else None,
        clicks=sum(t.clicks for t in totals) if closed else None,
        spend_micros=sum(t.spend_micros for t in totals) if closed else None,
        adjustments=len(adjustments),
        differences=differences[:DIFFERENCES_MAX],
    )


def _ads(level: str, expected: dict[bytes, Totals], found: dict[bytes, Totals]) -> list[Difference]:
    return [
        Difference(level, str(UUID(bytes=ad_id)), _values(expected.get(ad_id)), _values(found.get(ad_id)))
        for ad_id in sorted(expected.keys() | found.keys())
        if _values(expected.get(ad_id)) != _values(found.get(ad_id))
    ]


def _values(totals: Totals | None) -> dict[str, int]:
    found = totals or NOTHING
    return {"impressions": found.impressions, "clicks": found.clicks, "spend_micros": found.spend_micros}


def _charges(expected: dict[bytes, Totals], stored: DayInPostgres, stores: dict[bytes, UUID]) -> list[Difference]:
    spend: dict[UUID, int] = {}
    for ad_id, totals in expected.items():
        store_id = stores[ad_id]
        spend[store_id] = spend.get(store_id, 0) + totals.spend_micros
    due = {store_id: (micros, charge_cents(micros)) for store_id, micros in spend.items() if micros}
    return [
        Difference("charges", str(store_id), due.get(store_id), stored.charges.get(store_id))
        for store_id in sorted(due.keys() | stored.charges.keys())
        if due.get(store_id) != stored.charges.get(store_id)
    ]

"""What the warehouse has to have after events, and what it has; for tests of whatever writes it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from models.analytics.gateway import BigQuery
from schemas.records import AdDayTotals, Record
from schemas.warehouse_tables import TABLES
from streams.facts import DaySpend, facts_of
from tests.ad_stream import eventually
from tests.agent_site import execute

PARTS = ("postgres", "kafka", "redis", "bigquery")


def expected_ids(events: Iterable[Record], spend: DaySpend | None = None) -> Counter[tuple[str, str]]:
    """Table and id of each row that the events make."""
    return Counter((fact.table, fact.row_id) for event in events for fact in facts_of(event, spend or {}))


async def found_ids(store: BigQuery) -> Counter[tuple[str, str]]:
    """Table and id of each row of the warehouse, as often as it is there."""
    found: Counter[tuple[str, str]] = Counter()
    for table in TABLES:
        rows = await store.query(f"SELECT row_id, COUNT(*) AS n FROM {{{table}}} GROUP BY row_id")
        found.update({(table, row["row_id"]): row["n"] for row in rows})
    return found


async def until_exactly(store: BigQuery, expected: Counter[tuple[str, str]], timeout_s: float = 60) -> None:
    """Wait until the rows expected are there; then each of them is there once, whatever else is."""

    async def check() -> object:
        found = await found_ids(store)
        missing = len(expected.keys() - found.keys())
        return missing == 0 or f"{missing} rows of {len(expected)} are missing"

    await eventually(check, timeout_s=timeout_s)
    found = await found_ids(store)
    assert {key: n for key, n in found.items() if key in expected and n != 1} == {}


async def roll_up(engine: AsyncEngine, store_id: UUID, day: date, ads: Iterable[AdDayTotals]) -> None:
    """Ads of a store, and what they have come to on a closed day, in Postgres."""
    for ad in ads:
        await execute(
            engine,
            "INSERT INTO ads (id, store_id, name, billing_model, placement, target_type, bid_cpm_cents,"
            " daily_budget_cents, starts_at, headline, status, created_at, updated_at) VALUES (:ad, :store, 'x', 'cpm',"
            " 'home', 'store', 100, 10000, now(), 'x', 'active', now(), now()) ON CONFLICT DO NOTHING",
            ad=ad.ad_id,
            store=store_id,
        )
        await execute(
            engine,
            "INSERT INTO ad_daily_rollups (ad_id, day, store_id, shard, impressions, clicks, spend_micros, created_at)"
            " VALUES (:ad, :day, :store, 0, :impressions, :clicks, :spend, now())",
            ad=ad.ad_id,
            day=day,
            store=store_id,
            impressions=ad.impressions,
            clicks=ad.clicks,
            spend=ad.spend_micros,
        )


async def stays(check: Any, *, seconds: float) -> None:
    """What `check` finds holds for a while."""
    for _ in range(int(seconds / 0.5)):
        assert await check()
        await asyncio.sleep(0.5)

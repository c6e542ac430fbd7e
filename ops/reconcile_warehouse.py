"""The warehouse's part of reconciliation: rollups and charges of a closed day, held against Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import date
from typing import Any, Final
from uuid import UUID

from models.ads.reconciling import DayInPostgres
from models.analytics.gateway import BigQuery
from models.errors import Unavailable

WAIT_S: Final = 30.0  #: the agent may still be on its way
POLL_S: Final = 0.5

ROLLUPS: Final = """
SELECT ad_id, SUM(impressions) AS impressions, SUM(clicks) AS clicks, SUM(spend_micros) AS spend_micros
FROM {ad_daily_rollups} WHERE DATE(occurred_at) = @day GROUP BY ad_id
"""
CHARGES: Final = """
SELECT store_id, SUM(cost_micros) AS micros, SUM(cost_cents) AS cents
FROM {ad_event_facts} WHERE DATE(occurred_at) = @day AND type = 'charge' GROUP BY store_id
"""

Found = tuple[str, str, Any, Any]
"""Level, key, expected and found."""


async def compare_warehouse(store: BigQuery, day: date, stored: DayInPostgres) -> list[Found]:
    """What the warehouse has differently of a closed day, once the agent has had WAIT_S to bring it there."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            found = await _compare(store, day, stored)
        except Unavailable as exc:
            found = [("warehouse", day.isoformat(), "an answer", exc.detail)]
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(POLL_S)


async def _compare(store: BigQuery, day: date, stored: DayInPostgres) -> list[Found]:
    rollups = {
        UUID(row["ad_id"]): (row["impressions"], row["clicks"], row["spend_micros"])
        for row in await store.query(ROLLUPS, day=day)
    }
    due = {ad_id: (t.impressions, t.clicks, t.spend_micros) for ad_id, t in stored.rollups.items()}
    charges = {UUID(row["store_id"]): (row["micros"], row["cents"]) for row in await store.query(CHARGES, day=day)}
    return [
        *_differing("warehouse rollups", due, rollups),
        *_differing("warehouse charges", stored.charges, charges),
    ]


def _differing(level: str, due: Mapping[UUID, Any], found: Mapping[UUID, Any]) -> list[Found]:
    return [
        (level, str(key), due.get(key), found.get(key))
        for key in sorted(due.keys() | found.keys())
        if due.get(key) != found.get(key)
    ]

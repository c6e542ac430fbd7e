"""What the demo waits for, and what it reads when all is settled: plain SQL, as an auditor would write it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Final
from uuid import UUID

import asyncpg

from ops.demo.books import AdDayKey, Difference, Totals
from ops.demo.client import Api
from ops.demo.courses import Errand, StoredOrders
from ops.demo.licensing import StoredLicense
from ops.demo.order_rows import read_orders
from ops.demo.progress import Advance
from ops.demo.receipts import StoredSales
from ops.demo.sales_rows import read_sales
from ops.settings import Settings

POLL_S: Final = 0.2
PATIENCE_S: Final = 60.0
UNNUDGED: Final = "SELECT count(*) FROM orders WHERE nudged_at IS NULL AND id = ANY ($1::uuid[])"
ALIVE: Final = "SELECT count(*) FROM orders WHERE status = 'pending' AND id = ANY ($1::uuid[])"
PAST_THE_CLOSE: Final = timedelta(seconds=1)


class NotSettled(Exception):
    """Something that should come has not come in time."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What Postgres has of the demo's days, of the vendors' licences, and of what was sold."""

    rollups: dict[AdDayKey, Totals]
    charges: dict[tuple[date, str], tuple[int, int]]  #: by day and store: micros, cents
    leftovers: list[Difference]  #: rows in tables that have to be empty
    licenses: dict[str, StoredLicense]
    verified: set[str]  #: stores
    sales: StoredSales
    orders: StoredOrders


async def gates_open(api: Api, settings: Settings) -> None:
    """Wait until every shard's gate is open and ticks."""

    async def missing() -> str | None:
        shards = (await api.overview())["gate"]
        opened = sum(shard["state"] == "open" and shard["ticked_until"] is not None for shard in shards)
        return None if opened == settings.ad_shards else f"{opened} of {settings.ad_shards} gates are open"

    await _until(missing)


async def close_days(api: Api, settings: Settings, days: Sequence[date], advance: Advance) -> datetime:
    """Move the clock past the last close and wait until all shards have closed all days and charges are written.

    Gives what the clock was set to.
    """
    midnight = datetime.combine(days[-1] + timedelta(days=1), time_of_day(), UTC)
    grace = timedelta(seconds=settings.ad_token_ttl_s + settings.clock_skew_s)
    closed_at = midnight + grace + PAST_THE_CLOSE
    await api.set_clock(closed_at)
    wanted = {day.isoformat() for day in days}
    told = 0

    async def missing() -> str | None:
        nonlocal told
        done = {day["day"] for day in (await api.overview())["days"] if day["charged_at"] is not None}
        advance(len(done & wanted) - told)
        told = len(done & wanted)
        return None if wanted <= done else f"not closed and charged: {', '.join(sorted(wanted - done))}"

    await _until(missing)
    return closed_at


async def orders_settled(settings: Settings, errands: Sequence[Errand], now: datetime) -> None:
    """Wait until the orders that nobody answered are nudged and expired, as far as the clock says."""
    nudged = [UUID(errand.id) for errand in errands if errand.nudged(now)]
    expired = [UUID(errand.id) for errand in errands if errand.expired(now)]
    db = await asyncpg.connect(settings.database_url)
    try:

        async def missing() -> str | None:
            unnudged = await db.fetchval(UNNUDGED, nudged)
            alive = await db.fetchval(ALIVE, expired)
            return f"{unnudged} orders are not nudged, {alive} not expired" if unnudged or alive else None

        await _until(missing)
    finally:
        await db.close()


async def outbox_drained(settings: Settings) -> None:
    """Wait until all that is in the outbox now (ticks go on being written) has left it."""
    db = await asyncpg.connect(settings.database_url)
    try:
        last = await db.fetchval("SELECT max(seq) FROM outbox_events") or 0

        async def missing() -> str | None:
            left = await db.fetchval("SELECT count(*) FROM outbox_events WHERE seq <= $1", last)
            return f"{left} rows are still in the outbox" if left else None

        await _until(missing)
    finally:
        await db.close()


async def billed(settings: Settings) -> None:
    """Wait until every charge that may be billed is."""
    db = await asyncpg.connect(settings.database_url)
    try:

        async def missing() -> str | None:
            left = await db.fetchval("SELECT count(*) FROM usage_charges WHERE status = 'cleared'")
            return f"{left} charges are not billed" if left else None

        await _until(missing)
    finally:
        await db.close()


async def read(settings: Settings, days: Sequence[date], *, now: datetime) -> Stored:
    """Rollups, charges, licences, sales, orders, and what should not be there; `now` is what the clock shows."""
    db = await asyncpg.connect(settings.database_url)
    try:
        return Stored(
            await _rollups(db, days),
            await _charges(db, days),
            await _leftovers(db),
            await _licenses(db),
            {str(row["id"]) for row in await db.fetch("SELECT id FROM stores WHERE kyc_status = 'verified'")},
            await read_sales(db),
            await read_orders(db, settings, now),
        )
    finally:
        await db.close()


async def _rollups(db: asyncpg.Connection[Any], days: Sequence[date]) -> dict[AdDayKey, Totals]:
    rows = await db.fetch(
        "SELECT day, ad_id, impressions, clicks, spend_micros FROM ad_daily_rollups WHERE day = ANY($1::date[])", days
    )
    return {AdDayKey(day, str(ad_id)): Totals(*numbers) for day, ad_id, *numbers in rows}


async def _charges(db: asyncpg.Connection[Any], days: Sequence[date]) -> dict[tuple[date, str], tuple[int, int]]:
    rows = await db.fetch(
        "SELECT for_date, store_id, spend_micros, amount_cents FROM usage_charges"
        " WHERE type = 'ad_spend' AND for_date = ANY($1::date[])",
        days,
    )
    return {(day, str(store_id)): (micros, cents) for day, store_id, micros, cents in rows}


async def _licenses(db: asyncpg.Connection[Any]) -> dict[str, StoredLicense]:
    rows = await db.fetch(
        "SELECT l.id, l.store_id, l.status, count(m.id) = 1 AS whole FROM licenses l"
        " LEFT JOIN media_attachments a ON a.entity_type = 'license' AND a.entity_id = l.id"
        " LEFT JOIN media m ON m.id = a.media_id AND m.kind = 'license' AND m.status NOT IN ('pending', 'failed')"
        " GROUP BY l.id"
    )
    return {str(row["id"]): StoredLicense(str(row["store_id"]), row["status"], row["whole"]) for row in rows}


async def _leftovers(db: asyncpg.Connection[Any]) -> list[Difference]:
    found = []
    for level, table in (("late events", "ad_adjustments"), ("dead letters", "dead_letters")):
        count = await db.fetchval(f"SELECT count(*) FROM {table}")
        if count:
            found.append(Difference(level, table, 0, count))
    return found


async def _until(missing: Callable[[], Awaitable[str | None]]) -> None:
    """Ask until nothing is missing; NotSettled with what is, after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while (what := await missing()) is not None:
        if time.monotonic() > deadline:
            raise NotSettled(what)
        await asyncio.sleep(POLL_S)

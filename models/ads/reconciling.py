"""What Postgres knows of a day of advertising, for reconciliation, and what reconciliation decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from models.ads.closing import Totals, lock_day
from models.ads.tables import Ad, AdAdjustment, AdDailyRollup, AdDay, AdDayClosure
from models.billing import reads as billing_reads
from models.billing import writes as billing_writes


class DayInPostgres(NamedTuple):
    """A day as rollups, charges and adjustments have it."""

    closures: int
    charged_at: datetime | None
    rollups: dict[UUID, Totals]
    rollup_spend: dict[UUID, int]  #: store → micros, from the rollups
    charges: dict[UUID, tuple[int, int]]  #: store → (spend_micros, amount_cents)
    adjustments: set[UUID]


async def read_day(tx: AsyncSession, day: date) -> DayInPostgres:
    """One day, all its ads."""
    row = await tx.get(AdDay, day)
    closures = await tx.scalar(select(func.count()).select_from(AdDayClosure).where(AdDayClosure.day == day))
    rollups = (await tx.scalars(select(AdDailyRollup).where(AdDailyRollup.day == day))).all()
    late = await tx.scalars(select(AdAdjustment.event_id).where(AdAdjustment.day == day))
    return DayInPostgres(
        closures=closures or 0,
        charged_at=row.charged_at if row else None,
        rollups={r.ad_id: Totals(r.ad_id, r.impressions, r.clicks, r.spend_micros) for r in rollups},
        rollup_spend=_spend_by_store(rollups),
        charges=await billing_reads.ad_spend(tx, day),
        adjustments=set(late),
    )


async def stores_of_ads(tx: AsyncSession) -> dict[bytes, UUID]:
    """Every ad, by the 16 bytes of its id, with its store."""
    return {ad_id.bytes: store_id for ad_id, store_id in await tx.execute(select(Ad.id, Ad.store_id))}


async def keep_report(tx: AsyncSession, day: date, report: dict[str, Any], *, cleared: bool, now: datetime) -> None:
    """Keep the day's report; where all is at zero, clear its charges for billing."""
    await lock_day(tx, day)
    await tx.execute(update(AdDay).where(AdDay.day == day).values(reconciliation=report, reconciled_at=now))
    if cleared:
        await billing_writes.clear_ad_spend(tx, day, now=now)


async def report(tx: AsyncSession, day: date) -> dict[str, Any] | None:
    """The day's last report, if there is one."""
    return await tx.scalar(select(AdDay.reconciliation).where(AdDay.day == day))


def _spend_by_store(rollups: Sequence[AdDailyRollup]) -> dict[UUID, int]:
    found: dict[UUID, int] = {}
    for rollup in rollups:
        found[rollup.store_id] = found.get(rollup.store_id, 0) + rollup.spend_micros
    return {store_id: micros for store_id, micros in found.items() if micros}

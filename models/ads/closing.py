"""Closing days: rollups, charges and what came too late. For the `ad_counters` agent and `packstream rollup`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from itertools import groupby
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.ads.rules import EventKind, charge_cents
from models.ads.tables import Ad, AdAdjustment, AdDailyRollup, AdDay, AdDayClosure
from models.billing import writes as billing
from models.errors import Conflict
from schemas.ad_columns import CLICK
from schemas.records import AdDailyChargeRecorded, AdDayTotals, AdSpendRolledUp

ACTOR: Final = "ad_counters"
EVENT_NAMESPACE: Final = UUID("6f1d6c1e-3c7b-5a52-9d0a-1f6d0c8a7e11")  #: ids of rollup events follow from store and day


class Totals(NamedTuple):
    """An ad's totals of one day."""

    ad_id: UUID
    impressions: int
    clicks: int
    spend_micros: int


class LateEvent(NamedTuple):
    """An event that came after its day was closed, or too late to be told from a repeat."""

    event_id: UUID
    ad_id: UUID
    day: date
    kind: int
    cost_micros: int
    reason: str
    partition: int
    offset: int


class DayNotClosedError(Conflict):
    """Some shard still counts this day."""


async def known_ads(tx: AsyncSession, ids: Iterable[UUID]) -> dict[UUID, UUID]:
    """Of `ids`, those that are ads, with their stores."""
    rows = await tx.execute(select(Ad.id, Ad.store_id).where(Ad.id.in_(list(ids))))
    return {row.id: row.store_id for row in rows}


async def closed_through(tx: AsyncSession, shard: int) -> date | None:
    """The last day that `shard` has closed; None before the first."""
    return await tx.scalar(select(func.max(AdDayClosure.day)).where(AdDayClosure.shard == shard))


async def lock_day(tx: AsyncSession, day: date) -> AdDay:
    """The day's row, made when missing, locked until the transaction ends."""
    await tx.execute(insert(AdDay).values(day=day).on_conflict_do_nothing())
    return (await tx.execute(select(AdDay).where(AdDay.day == day).with_for_update())).scalar_one()


async def close_day(
    tx: AsyncSession,
    *,
    shard: int,
    shards: int,
    day: date,
    totals: Sequence[Totals],
    watermark: datetime,
    now: datetime,
) -> list[Totals]:
    """Write a shard's rollups of `day` and its closure; with the last of all `shards` also the day's charges.

    Closing again changes nothing. Returns the totals that differ from what was written before: none, unless something
    is badly wrong.
    """
    row = await lock_day(tx, day)
    known = await known_ads(tx, [t.ad_id for t in totals])
    rollups = [
        {**t._asdict(), "day": day, "store_id": known[t.ad_id], "shard": shard, "created_at": now} for t in totals
    ]
    if rollups:
        await tx.execute(insert(AdDailyRollup).on_conflict_do_nothing(), rollups)
    closure = {"day": day, "shard": shard, "ads": len(totals), "watermark": watermark, "closed_at": now}
    await tx.execute(insert(AdDayClosure).values(closure).on_conflict_do_nothing())
    if row.charged_at is None and await _closures(tx, day) >= shards:
        await _charge(tx, row, now=now)
    return await _differing(tx, shard, day, totals)


async def charge_day(tx: AsyncSession, day: date, *, shards: int, now: datetime) -> bool:
    """Write the charges of a closed day, once; False when they were there. Raises DayNotClosedError."""
    row = await tx.scalar(select(AdDay).where(AdDay.day == day).with_for_update())
    closures = 0 if row is None else await _closures(tx, day)
    if row is None or closures < shards:
        raise DayNotClosedError(f"{day}: {closures} of {shards} shards have closed it")
    if row.charged_at is not None:
        return False
    await _charge(tx, row, now=now)
    return True


async def charged_days(tx: AsyncSession, *, after: date | None) -> Sequence[date]:
    """Days whose charges are written, in order, from behind `after` on."""
    query = select(AdDay.day).where(AdDay.charged_at.is_not(None)).order_by(AdDay.day)
    return (await tx.scalars(query if after is None else query.where(AdDay.day > after))).all()


async def record_late(tx: AsyncSession, late: Sequence[LateEvent], *, now: datetime) -> None:
    """Keep events that cannot be counted any more, each once."""
    rows = [
        {
            **event._asdict(),
            "kind": EventKind.CLICK if event.kind == CLICK else EventKind.IMPRESSION,
            "created_at": now,
        }
        for event in late
    ]
    if rows:
        await tx.execute(insert(AdAdjustment).on_conflict_do_nothing(), rows)


async def _closures(tx: AsyncSession, day: date) -> int:
    return await tx.scalar(select(func.count()).select_from(AdDayClosure).where(AdDayClosure.day == day)) or 0


async def _differing(tx: AsyncSession, shard: int, day: date, totals: Sequence[Totals]) -> list[Totals]:
    rows = await tx.execute(
        select(AdDailyRollup.ad_id, AdDailyRollup.impressions, AdDailyRollup.clicks, AdDailyRollup.spend_micros).where(
            AdDailyRollup.day == day, AdDailyRollup.shard == shard
        )
    )
    return sorted(set(totals) ^ {Totals(*row) for row in rows})


async def _charge(tx: AsyncSession, row: AdDay, *, now: datetime) -> None:
    """Charges and events of a day that all shards have closed; store after store, in the order of their ids."""
    rollups = await tx.scalars(
        select(AdDailyRollup).where(AdDailyRollup.day == row.day).order_by(AdDailyRollup.store_id, AdDailyRollup.ad_id)
    )
    for store_id, ads in groupby(rollups, key=lambda rollup: rollup.store_id):
        await _charge_store(tx, store_id, row.day, list(ads), now=now)
    await tx.execute(update(AdDay).where(AdDay.day == row.day).values(charged_at=now))


async def _charge_store(
    tx: AsyncSession, store_id: UUID, day: date, rollups: Sequence[AdDailyRollup], *, now: datetime
) -> None:
    spend_micros = sum(rollup.spend_micros for rollup in rollups)
    await outbox.append(
        tx,
        AdSpendRolledUp(
            event_id=_event_id("ad_spend_rolled_up", store_id, day),
            occurred_at=now,
            actor=ACTOR,
            store_id=store_id,
            day=day,
            impressions=sum(rollup.impressions for rollup in rollups),
            clicks=sum(rollup.clicks for rollup in rollups),
            spend_micros=spend_micros,
            ads=[
                AdDayTotals(ad_id=r.ad_id, impressions=r.impressions, clicks=r.clicks, spend_micros=r.spend_micros)
                for r in rollups
            ],
        ),
    )
    if spend_micros == 0:
        return
    charge = await billing.record_ad_spend(
        tx, store_id, day, spend_micros=spend_micros, amount_cents=charge_cents(spend_micros), now=now
    )
    await outbox.append(
        tx,
        AdDailyChargeRecorded(
            event_id=_event_id("ad_daily_charge_recorded", store_id, day),
            occurred_at=now,
            actor=ACTOR,
            store_id=store_id,
            charge_id=charge,
            charge_type="ad_spend",
            for_date=day,
            spend_micros=spend_micros,
            amount_cents=charge_cents(spend_micros),
        ),
    )


def _event_id(event_type: str, store_id: UUID, day: date) -> UUID:
    return uuid5(EVENT_NAMESPACE, f"{event_type}:{store_id}:{day}")

"""Queries of the ads area."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.ads.catalog import Candidate, Snapshot
from models.ads.gateway import Offer
from models.ads.rules import AdStatus, Placement, TargetType, budget_micros, impression_cost_micros
from models.ads.tables import Ad as Ad  # by this name for the edge too
from models.ads.tables import AdCatalogVersion, AdDailyRollup
from models.catalog import reads as products
from models.database import Driver
from models.errors import NotFound
from models.media.rules import ORIGINAL, ObjectName
from models.stores import reads as stores
from schemas.records import AdDayTotals


async def ad_of(tx: AsyncSession, ad_id: UUID, *, store_id: UUID, lock: bool = False) -> Ad:
    """The store's ad, locked until the transaction ends if asked for; NotFound for anybody else's."""
    query = select(Ad).where(Ad.id == ad_id, Ad.store_id == store_id)
    ad = await tx.scalar(query.with_for_update() if lock else query)
    if ad is None:
        raise NotFound
    return ad


async def any_ad(tx: AsyncSession, ad_id: UUID) -> Ad:
    """An ad of whatever store, for operators; NotFound."""
    ad = await tx.get(Ad, ad_id)
    if ad is None:
        raise NotFound
    return ad


async def ads_of(
    tx: AsyncSession,
    *,
    store_id: UUID,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
    status: AdStatus | None = None,
) -> Sequence[Ad]:
    """The store's ads, newest first, from behind `after` (created_at, id) on."""
    query = select(Ad).where(Ad.store_id == store_id)
    if status is not None:
        query = query.where(Ad.status == status)
    if after is not None:
        query = query.where(tuple_(Ad.created_at, Ad.id) < after)
    rows = await tx.scalars(query.order_by(Ad.created_at.desc(), Ad.id.desc()).limit(limit))
    return rows.all()


async def catalog_version(tx: AsyncSession) -> int:
    """Moves with every commit that can change what is served."""
    return (await tx.scalars(select(AdCatalogVersion.version))).one()


async def snapshot(tx: AsyncSession) -> Snapshot:
    """The active ads with the standing of their stores; at least as new as the version that it carries."""
    version = await catalog_version(tx)
    columns = (
        Ad.id,
        Ad.store_id,
        Ad.placement,
        Ad.target_type,
        Ad.target_product_id,
        Ad.headline,
        Ad.creative_media_id,
        Ad.bid_cpm_cents,
        Ad.daily_budget_cents,
        Ad.starts_at,
        Ad.ends_at,
    )
    rows = (await tx.execute(select(*columns).where(Ad.status == AdStatus.ACTIVE))).all()
    standings = await stores.standings(tx, list({row.store_id for row in rows}))
    listed = await products.listed(tx, {row.target_product_id for row in rows if row.target_product_id is not None})
    return Snapshot(version, [_candidate(row, standings[row.store_id], listed) for row in rows])


def _candidate(row: Row[*tuple[Any, ...]], standing: stores.Standing, listed: Collection[UUID]) -> Candidate:
    return Candidate(
        ad_id=row.id,
        store_id=row.store_id,
        placement=Placement(row.placement),
        target_type=TargetType(row.target_type),
        target_id=row.target_product_id or row.store_id,
        headline=row.headline,
        creative=_creative(row.store_id, row.creative_media_id),
        bid_cpm_cents=row.bid_cpm_cents,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        state=standing.state,
        eligible=standing.may_sell,
        listed=row.target_product_id is None or row.target_product_id in listed,
        offer=Offer(row.id, impression_cost_micros(row.bid_cpm_cents), budget_micros(row.daily_budget_cents)),
    )


def _creative(store_id: UUID, media_id: UUID | None) -> str | None:
    return None if media_id is None else str(ObjectName(store_id, media_id, ORIGINAL))


async def ticked_until(driver: Driver, shards: Sequence[int]) -> dict[int, datetime | None]:
    """The last tick of each shard. Under the shard's lock it stands until the transaction ends."""
    rows = await driver.fetch("SELECT shard, ticked_until FROM ad_shards WHERE shard = ANY($1::int[])", shards)
    return {row["shard"]: row["ticked_until"] for row in rows}


async def day_totals(
    tx: AsyncSession, wanted: Collection[tuple[UUID, date]]
) -> dict[tuple[UUID, date], list[AdDayTotals]]:
    """The rollups of stores' closed days, by ad."""
    rows = await tx.scalars(
        select(AdDailyRollup)
        .where(tuple_(AdDailyRollup.store_id, AdDailyRollup.day).in_(list(wanted)))
        .order_by(AdDailyRollup.ad_id)
    )
    found: dict[tuple[UUID, date], list[AdDayTotals]] = {}
    for row in rows:
        found.setdefault((row.store_id, row.day), []).append(_totals(row))
    return found


async def totals_of_day(tx: AsyncSession, day: date) -> dict[UUID, list[AdDayTotals]]:
    """The rollups of a day, by store and ad."""
    rows = await tx.scalars(select(AdDailyRollup).where(AdDailyRollup.day == day).order_by(AdDailyRollup.ad_id))
    found: dict[UUID, list[AdDayTotals]] = {}
    for row in rows:
        found.setdefault(row.store_id, []).append(_totals(row))
    return found


def _totals(row: AdDailyRollup) -> AdDayTotals:
    return AdDayTotals(ad_id=row.ad_id, impressions=row.impressions, clicks=row.clicks, spend_micros=row.spend_micros)

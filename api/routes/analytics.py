"""A vendor's dashboards, from the warehouse: the store's own sales and ads, up to what has reached it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request

from api.analytics_services import AnalyticsServices
from api.dependencies import Now, Process, Vendor, tenant_of
from api.envelope import Envelope
from api.idempotency import IdempotentRoute
from models.ads import reads as ads
from models.analytics import reads
from models.analytics.reads import Advertising
from models.analytics.rules import Interval, timeframe
from schemas.http.analytics import (
    AdKpis,
    AdLine,
    AdPoint,
    AdsOut,
    MarketplaceKpis,
    MarketplaceOut,
    MarketplacePoint,
    TopCategory,
    TopProduct,
    TopZip,
)
from schemas.http.analytics import Interval as IntervalName
from schemas.http.common import Day, Id

ANSWER_S: Final = 15.0  #: then 503: the warehouse has until then

Since = Annotated[Day | None, Query(alias="from", description="a UTC day, included; default: 30 days up to `to`")]
Until = Annotated[Day | None, Query(alias="to", description="a UTC day, included; default: today")]

router = APIRouter(prefix="/api/v1/vendor/analytics", tags=["analytics"], route_class=IdempotentRoute)


@router.get("/marketplace")
async def marketplace(
    vendor: Vendor,
    now: Now,
    process: Process,
    since: Since = None,
    until: Until = None,
    interval: IntervalName = "day",
) -> Envelope[MarketplaceOut]:
    """The store's sales of at most 366 days: sums, a series, and the best products, categories and ZIP codes."""
    frame = timeframe(since, until, today=now.date())
    async with asyncio.timeout(ANSWER_S):
        found = await reads.marketplace(
            process.get(AnalyticsServices).warehouse, vendor.store_id, frame, Interval(interval)
        )
    kpis = MarketplaceKpis(
        **asdict(found.sales),
        aov_cents=found.aov_cents,
        new_buyers=found.new_buyers,
        returning_buyers=found.returning_buyers,
        revenue_cents=found.revenue_cents,
    )
    return Envelope(
        data=MarketplaceOut(
            kpis=kpis,
            series=[MarketplacePoint(date=day, **asdict(sales)) for day, sales in found.series],
            top_products=[TopProduct(**row) for row in found.top_products],
            top_categories=[TopCategory(**row) for row in found.top_categories],
            top_zips=[TopZip(**row) for row in found.top_zips],
        )
    )


@router.get("/ads")
async def advertising(
    request: Request,
    vendor: Vendor,
    now: Now,
    process: Process,
    since: Since = None,
    until: Until = None,
    ad_id: Id | None = None,
) -> Envelope[AdsOut]:
    """What the store's ads, or one of them, did, cost and led to in at most 366 days."""
    frame = timeframe(since, until, today=now.date())
    if ad_id is not None:  # in a transaction of its own: the warehouse may take its time
        async with process.transaction_for(partial(tenant_of, request)) as tx:
            await ads.ad_of(tx, ad_id, store_id=vendor.store_id)
    async with asyncio.timeout(ANSWER_S):
        found = await reads.advertising(process.get(AnalyticsServices).warehouse, vendor.store_id, frame, ad_id=ad_id)
    return Envelope(
        data=AdsOut(
            kpis=AdKpis(**_kpis(found.all)),
            series=[AdPoint(date=day, **asdict(sums)) for day, sums in found.series],
            ads=[AdLine(ad_id=UUID(key), **_kpis(sums)) for key, sums in found.ads],
        )
    )


def _kpis(sums: Advertising) -> dict[str, float]:
    return {**asdict(sums), "ctr": sums.ctr, "roas": sums.roas}

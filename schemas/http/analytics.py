"""A vendor's dashboards."""

from __future__ import annotations

from datetime import date
from typing import Literal
from uuid import UUID

from pydantic import Field

from schemas.http.common import Shape

Interval = Literal["day", "week", "month"]


class MarketplaceKpis(Shape):
    """Orders placed in the range, but for those rejected, canceled or expired; shipping is in no amount but revenue."""

    orders: int
    gross_cents: int = Field(description="before discounts")
    discounts_cents: int
    net_cents: int = Field(description="after discounts")
    aov_cents: int = Field(description="net / orders, rounded half to even")
    new_buyers: int = Field(description="whose first order with the vendor lies in the range")
    returning_buyers: int = Field(description="all others in the range")
    revenue_cents: int = Field(description="money of orders paid out in the range; not yet paid out: collected in it")


class MarketplacePoint(Shape):
    """`date` is the first day of the interval: for weeks a Monday."""

    date: date
    orders: int
    gross_cents: int
    discounts_cents: int
    net_cents: int


class TopProduct(Shape):
    """After volume discounts; promos are the order's."""

    product_id: UUID
    title: str
    quantity: int
    net_cents: int


class TopCategory(Shape):
    category: str
    net_cents: int


class TopZip(Shape):
    """Of the shipping address."""

    postal_code: str
    orders: int
    net_cents: int


class MarketplaceOut(Shape):
    """`series` has every interval of the range, empty ones too; the lists have ten entries at most, by net."""

    kpis: MarketplaceKpis
    series: list[MarketplacePoint]
    top_products: list[TopProduct]
    top_categories: list[TopCategory]
    top_zips: list[TopZip]


class AdSums(Shape):
    """Impressions, clicks and spend of closed days; conversions on the day of the order, while it counts."""

    impressions: int
    clicks: int
    spend_cents: int
    conversions: int
    attributed_cents: int = Field(description="a store ad's orders, a product ad's lines, after discounts")


class AdKpis(AdSums):
    ctr: float = Field(description="clicks / impressions; 0 without any")
    roas: float = Field(description="attributed / spend; 0 without any")


class AdPoint(AdSums):
    date: date


class AdLine(AdKpis):
    ad_id: UUID


class AdsOut(Shape):
    """`series` has every day of the range; `ads` those with anything in it (or the one asked for), most spent first."""

    kpis: AdKpis
    series: list[AdPoint]
    ads: list[AdLine]

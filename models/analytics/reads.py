"""What a vendor's dashboards show, asked of the warehouse; every query names the store.

An order's present state is its row with the highest revision, a conversion's likewise, and of rollups and charges one
row counts for an ad and day: so the answers are the same should a row be there twice. Weeks and months are added up
here, from days.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from models.analytics.gateway import Row, Warehouse
from models.analytics.rules import TOP, Interval, Timeframe, average_cents, begin_of, ratio

# The vendor's orders of the timeframe as they now stand, but for those that count for nothing.
COUNTED: Final = """
WITH latest AS (
  SELECT order_status, order_created_at, gross_cents, discounts_cents, net_cents, ship_postal_code
  FROM {marketplace_events} WHERE vendor_store_id = @store AND occurred_at >= @start
    AND order_created_at >= @start AND order_created_at < @end
  QUALIFY ROW_NUMBER() OVER (PARTITION BY order_id ORDER BY revision DESC) = 1
), counted AS (
  SELECT * FROM latest WHERE order_status NOT IN ('rejected', 'canceled', 'expired')
)
"""

DAYS: Final = f"""{COUNTED}
SELECT DATE(order_created_at) AS day, COUNT(*) AS orders, SUM(gross_cents) AS gross_cents,
  SUM(discounts_cents) AS discounts_cents, SUM(net_cents) AS net_cents
FROM counted GROUP BY day
"""

WITH_ITEMS: Final = COUNTED.replace("ship_postal_code\n", "ship_postal_code, items\n")

LINES: Final = f"""{WITH_ITEMS}, lines AS (
  SELECT item.product_id AS product_id, item.title AS title, item.category AS category, item.quantity AS quantity,
    item.net_cents AS cents, o.order_created_at AS ordered_at
  FROM counted AS o, UNNEST(o.items) AS item WHERE item.status != 'rejected'
)
"""

PRODUCTS: Final = f"""{LINES}
SELECT product_id, MAX_BY(title, ordered_at) AS title, SUM(quantity) AS quantity, SUM(cents) AS net_cents
FROM lines GROUP BY product_id ORDER BY net_cents DESC, product_id LIMIT {TOP}
"""

CATEGORIES: Final = f"""{LINES}
SELECT category, SUM(cents) AS net_cents FROM lines GROUP BY category ORDER BY net_cents DESC, category LIMIT {TOP}
"""

ZIPS: Final = f"""{COUNTED}
SELECT ship_postal_code AS postal_code, COUNT(*) AS orders, SUM(counted.net_cents) AS net_cents
FROM counted GROUP BY ship_postal_code ORDER BY net_cents DESC, postal_code LIMIT {TOP}
"""

# A buyer is new whose first order with the vendor, of all times, lies in the timeframe.
BUYERS: Final = """
WITH latest AS (
  SELECT order_id, buyer_store_id, order_status, order_created_at FROM {marketplace_events}
  WHERE vendor_store_id = @store AND order_created_at < @end
  QUALIFY ROW_NUMBER() OVER (PARTITION BY order_id ORDER BY revision DESC) = 1
), buyers AS (
  SELECT buyer_store_id, MIN(order_created_at) AS first_at, MAX(order_created_at) AS last_at
  FROM latest WHERE order_status NOT IN ('rejected', 'canceled', 'expired') GROUP BY buyer_store_id
)
SELECT COUNTIF(first_at >= @start) AS new_buyers, COUNTIF(first_at < @start) AS returning_buyers
FROM buyers WHERE last_at >= @start
"""

# Money counts when the vendor was paid; until then, when the buyer paid.
REVENUE: Final = """
WITH paid AS (
  SELECT paid_cents, occurred_at FROM {marketplace_events}
  WHERE vendor_store_id = @store AND occurred_at >= @start
    AND event_type IN ('cash_collected', 'ach_settled', 'order_paid')
  QUALIFY ROW_NUMBER() OVER (PARTITION BY order_id ORDER BY revision DESC) = 1
)
SELECT COALESCE(SUM(paid_cents), 0) AS revenue_cents FROM paid WHERE occurred_at < @end
"""

ADS: Final = """
WITH rollups AS (
  SELECT ad_id, occurred_at, impressions, clicks FROM {{ad_daily_rollups}}
  WHERE store_id = @store AND occurred_at >= @start AND occurred_at < @end {only}
  QUALIFY ROW_NUMBER() OVER (PARTITION BY row_id ORDER BY ingested_at) = 1
), charges AS (
  SELECT ad_id, occurred_at, cost_cents FROM {{ad_event_facts}}
  WHERE store_id = @store AND occurred_at >= @start AND occurred_at < @end AND type = 'charge' {only}
  QUALIFY ROW_NUMBER() OVER (PARTITION BY row_id ORDER BY ingested_at) = 1
), conversions AS (
  SELECT ad_id, occurred_at, revenue_cents, counts FROM {{ad_event_facts}}
  WHERE store_id = @store AND occurred_at >= @start AND occurred_at < @end AND type = 'conversion' {only}
  QUALIFY ROW_NUMBER() OVER (PARTITION BY conversion_id ORDER BY revision DESC) = 1
), facts AS (
  SELECT ad_id, DATE(occurred_at) AS day, impressions, clicks, 0 AS cost, 0 AS conversion, 0 AS revenue FROM rollups
  UNION ALL SELECT ad_id, DATE(occurred_at), 0, 0, cost_cents, 0, 0 FROM charges
  UNION ALL SELECT ad_id, DATE(occurred_at), 0, 0, 0, 1, revenue_cents FROM conversions WHERE counts
)
SELECT ad_id, CAST(NULL AS DATE) AS day, SUM(impressions) AS impressions, SUM(clicks) AS clicks,
  SUM(cost) AS spend_cents, SUM(conversion) AS conversions, SUM(revenue) AS attributed_cents
FROM facts GROUP BY ad_id
UNION ALL
SELECT CAST(NULL AS STRING), day, SUM(impressions), SUM(clicks), SUM(cost), SUM(conversion), SUM(revenue)
FROM facts GROUP BY day
"""


@dataclass(slots=True)
class Sales:
    """Orders and their money."""

    orders: int = 0
    gross_cents: int = 0
    discounts_cents: int = 0
    net_cents: int = 0


@dataclass(slots=True)
class Advertising:
    """What ads did, cost and led to."""

    impressions: int = 0
    clicks: int = 0
    spend_cents: int = 0
    conversions: int = 0
    attributed_cents: int = 0

    @property
    def ctr(self) -> float:
        """Clicks of an impression."""
        return ratio(self.clicks, self.impressions)

    @property
    def roas(self) -> float:
        """What came in for what was spent."""
        return ratio(self.attributed_cents, self.spend_cents)


class Marketplace(NamedTuple):
    """A vendor's sales in a timeframe."""

    sales: Sales
    aov_cents: int
    new_buyers: int
    returning_buyers: int
    revenue_cents: int
    series: list[tuple[date, Sales]]
    top_products: list[Row]
    top_categories: list[Row]
    top_zips: list[Row]


class AdReport(NamedTuple):
    """A vendor's advertising in a timeframe."""

    all: Advertising
    series: list[tuple[date, Advertising]]
    ads: list[tuple[str, Advertising]]


Sums = TypeVar("Sums", Sales, Advertising)


async def marketplace(warehouse: Warehouse, store_id: UUID, frame: Timeframe, interval: Interval) -> Marketplace:
    """The store's sales, by the day on which each order was placed. Raises Unavailable."""
    asked: dict[str, Any] = {"store": str(store_id), "start": frame.start, "end": frame.end}
    queries = (DAYS, PRODUCTS, CATEGORIES, ZIPS, BUYERS, REVENUE)
    days, products, categories, zips, [buyers], [revenue] = await asyncio.gather(
        *(warehouse.query(sql, **asked) for sql in queries)
    )
    sales = _sum(Sales(), days)
    return Marketplace(
        sales,
        average_cents(sales.net_cents, sales.orders),
        buyers["new_buyers"],
        buyers["returning_buyers"],
        revenue["revenue_cents"],
        _series(Sales, days, frame, interval),
        products,
        categories,
        zips,
    )


async def advertising(warehouse: Warehouse, store_id: UUID, frame: Timeframe, *, ad_id: UUID | None = None) -> AdReport:
    """The store's ads, or one of them, by day; most spent first. Raises Unavailable."""
    asked: dict[str, Any] = {"store": str(store_id), "start": frame.start, "end": frame.end}
    if ad_id is not None:
        asked["ad"] = str(ad_id)
    rows = await warehouse.query(ADS.format(only="AND ad_id = @ad" if ad_id is not None else ""), **asked)
    days = [row for row in rows if row["day"] is not None]
    ads = {row["ad_id"]: _sum(Advertising(), [row]) for row in rows if row["day"] is None}
    if ad_id is not None:
        ads.setdefault(str(ad_id), Advertising())
    ranked = sorted(ads.items(), key=lambda pair: (-pair[1].spend_cents, -pair[1].impressions, pair[0]))
    return AdReport(_sum(Advertising(), days), _series(Advertising, days, frame, Interval.DAY), ranked)


def _sum(total: Sums, rows: Iterable[Row]) -> Sums:
    for row in rows:
        for field in fields(total):
            setattr(total, field.name, getattr(total, field.name) + row[field.name])
    return total


def _series(kind: type[Sums], days: Sequence[Row], frame: Timeframe, interval: Interval) -> list[tuple[date, Sums]]:
    """Every interval of the timeframe, those without anything too."""
    found: defaultdict[date, list[Row]] = defaultdict(list)
    for row in days:
        found[begin_of(row["day"], interval)].append(row)
    return [(begin, _sum(kind(), found[begin])) for begin in frame.intervals(interval)]

"""Every vendor's dashboards, computed by the warehouse, against plain SQL over Postgres."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

import asyncpg

from ops.demo.books import Difference
from ops.demo.client import Api
from ops.demo.opening import Account, each
from ops.settings import Settings

PATIENCE_S: Final = 90.0
POLL_S: Final = 0.5
SALES: Final = """
SELECT vendor_store_id, count(*), sum(subtotal_cents)::bigint, sum(discounts_cents)::bigint,
       sum(subtotal_cents - discounts_cents)::bigint, count(DISTINCT buyer_store_id),
       count(*) FILTER (WHERE attribution IS NOT NULL),
       coalesce(sum(subtotal_cents - discounts_cents) FILTER (WHERE attribution IS NOT NULL), 0)::bigint
FROM orders WHERE status NOT IN ('rejected', 'canceled', 'expired') GROUP BY 1
"""
SHOWN: Final = "SELECT store_id, sum(impressions)::bigint, sum(clicks)::bigint FROM ad_daily_rollups GROUP BY 1"
SPENT: Final = "SELECT store_id, sum(amount_cents)::bigint FROM usage_charges WHERE type = 'ad_spend' GROUP BY 1"


class Kpis(NamedTuple):
    """A vendor's week. `buyers` are all new: the marketplace is as old as the week."""

    orders: int = 0
    gross_cents: int = 0
    discounts_cents: int = 0
    net_cents: int = 0
    buyers: int = 0
    conversions: int = 0
    attributed_cents: int = 0
    impressions: int = 0
    clicks: int = 0
    spend_cents: int = 0

    @property
    def aov_cents(self) -> int:
        return round(self.net_cents / self.orders) if self.orders else 0

    @property
    def roas(self) -> float:
        return self.attributed_cents / self.spend_cents if self.spend_cents else 0.0


@dataclass(frozen=True, slots=True)
class Dashboards:
    """By vendor store: as the dashboards say, and as Postgres has it."""

    shown: Mapping[str, Kpis]
    stored: Mapping[str, Kpis]
    names: Mapping[str, str]

    @property
    def best(self) -> tuple[str, Kpis]:
        """The vendor that sold most, with what its dashboards say."""
        store = max(self.shown, key=lambda one: (self.shown[one].net_cents, one))
        return self.names[store], self.shown[store]

    def as_json(self) -> dict[str, Any]:
        name, kpis = self.best
        best = {**kpis._asdict(), "aov_cents": kpis.aov_cents, "roas": round(kpis.roas, 4)}
        return {"vendors": len(self.shown), "best": {"vendor": name, **best}}


async def compare_with_warehouse(
    api: Api, settings: Settings, vendors: Mapping[str, Account], days: Sequence[date]
) -> Dashboards:
    """Ask each until its dashboards say what Postgres has; after PATIENCE_S they are taken as they are."""
    stored = await _stored(settings, [account.store_id for account in vendors.values()])
    names = {account.store_id: name for name, account in vendors.items()}
    deadline = time.monotonic() + PATIENCE_S
    shown: dict[str, Kpis] = {}
    while True:
        late = [account for account in vendors.values() if shown.get(account.store_id) != stored[account.store_id]]
        if not late or (shown and time.monotonic() > deadline):
            return Dashboards(shown, stored, names)
        shown |= await _shown(api, late, days)
        await asyncio.sleep(POLL_S)


async def _stored(settings: Settings, stores: Sequence[str]) -> dict[str, Kpis]:
    db = await asyncpg.connect(settings.database_url)
    try:
        found = dict.fromkeys(stores, Kpis())
        for row in await db.fetch(SALES):
            found[str(row[0])] = Kpis(*row[1:])
        for store, impressions, clicks in await db.fetch(SHOWN):
            found[str(store)] = found[str(store)]._replace(impressions=impressions, clicks=clicks)
        for store, cents in await db.fetch(SPENT):
            found[str(store)] = found[str(store)]._replace(spend_cents=cents)
        return found
    finally:
        await db.close()


async def _shown(api: Api, vendors: Sequence[Account], days: Sequence[date]) -> dict[str, Kpis]:
    asked = f"from={days[0]}&to={days[-1]}"

    async def look(account: Account) -> Kpis:
        sales = (await api.dashboard(account.token, f"marketplace?{asked}"))["kpis"]
        ads = (await api.dashboard(account.token, f"ads?{asked}"))["kpis"]
        money = {name: sales[name] for name in ("orders", "gross_cents", "discounts_cents", "net_cents")}
        return Kpis(
            **money,
            buyers=sales["new_buyers"] + sales["returning_buyers"],
            **{name: ads[name] for name in ("conversions", "attributed_cents", "impressions", "clicks", "spend_cents")},
        )

    found = await each(vendors, look, lambda count=1: None)
    return {account.store_id: kpis for account, kpis in zip(vendors, found, strict=True)}


def check_dashboards(dashboards: Dashboards) -> list[Difference]:
    """Each vendor and number."""
    return [
        Difference(
            f"dashboard: {field}", store, getattr(kpis, field), getattr(dashboards.shown.get(store), field, None)
        )
        for store, kpis in sorted(dashboards.stored.items())
        for field in Kpis._fields
        if getattr(kpis, field) != getattr(dashboards.shown.get(store), field, None)
    ]

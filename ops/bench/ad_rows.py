"""Vendor stores and their ads as rows, for benches that need many of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from models.database import new_id
from ops.settings import Settings

STORES: Final = 20
BID_CPM_CENTS: Final = 250
COST_MICROS: Final = 10 * BID_CPM_CENTS
BUDGET_CENTS: Final = 10_000_000  #: the highest there is: benches must not run into it
STATE: Final = "OR"

_STORE: Final = text(
    "INSERT INTO stores (id, name, type, address, state, kyc_status, subscription_active, created_at, updated_at)"
    " VALUES (:id, 'bench', 'vendor', '{}', :state, 'verified', true, :now, :now)"
)
_AD: Final = text(
    "INSERT INTO ads (id, store_id, name, billing_model, placement, target_type, bid_cpm_cents, daily_budget_cents,"
    " starts_at, headline, status, created_at, updated_at) VALUES (:id, :store, 'bench', 'cpm', 'home', 'store',"
    " :bid, :budget, :starts, 'bench', 'active', :now, :now)"
)


async def make_ads(settings: Settings, ids: Sequence[UUID]) -> list[UUID]:
    """Active ads with these ids, of vendors that may sell; the stores they belong to, one an ad."""
    now = datetime.now(UTC)
    stores = [new_id() for _ in range(STORES)]
    of_ads = [stores[n % STORES] for n in range(len(ids))]
    common = {"bid": BID_CPM_CENTS, "budget": BUDGET_CENTS, "now": now, "starts": now - timedelta(days=2)}
    rows = [{"id": ad_id, "store": store} | common for ad_id, store in zip(ids, of_ads, strict=True)]
    engine = create_async_engine(settings.sqlalchemy_url)
    try:
        async with engine.begin() as tx:
            await tx.execute(_STORE, [{"id": store, "state": STATE, "now": now} for store in stores])
            await tx.execute(_AD, rows)
    finally:
        await engine.dispose()
    return of_ads

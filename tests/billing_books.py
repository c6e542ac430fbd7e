"""Days of advertising that are closed, charged and reconciled, and the worker's biller, one round at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from agents.billing import Biller
from models.ads import closing, reconciling
from models.ads.closing import Totals
from models.database import SessionFactory, make_engine, make_sessions
from ops.stripe_account import stripe_account
from tests.ads_driver import active_ad, register_vendor
from tests.api_driver import Api, Person
from tests.catalogue import rows

DAY = date(2027, 3, 1)


@dataclass
class Books:
    """What an operator and the agents do with days of advertising."""

    api: Api
    sessions: SessionFactory

    async def close(self, ads: Sequence[dict[str, Any]], spend_micros: int, *, day: date = DAY) -> None:
        """Every shard closes the day; each ad has spent so much."""
        shards = self.api.services.settings.ad_shards
        now = datetime.now(UTC)
        for shard in range(shards):
            totals = [Totals(UUID(ad["id"]), 10, 1, spend_micros) for ad in ads] if shard == 0 else []
            async with self.sessions.begin() as tx:
                await closing.close_day(tx, shard=shard, shards=shards, day=day, totals=totals, watermark=now, now=now)

    async def reconcile(self, *, cleared: bool = True, day: date = DAY) -> None:
        """What `packstream reconcile` keeps of a day."""
        async with self.sessions.begin() as tx:
            await reconciling.keep_report(tx, day, {"ok": cleared}, cleared=cleared, now=datetime.now(UTC))

    async def charges(self) -> list[tuple[str, int, str | None]]:
        found = await rows(self.api, "SELECT status, amount_cents, stripe_id FROM usage_charges ORDER BY for_date, id")
        return [tuple(row) for row in found]

    async def let_time_pass(self, hours: float = 0) -> None:
        """Claims and pauses are over; the first attempts were so long ago."""
        await rows(
            self.api,
            "UPDATE usage_charges SET next_attempt_at = NULL,"
            " first_attempt_at = first_attempt_at - CAST(:ago AS interval)",
            ago=timedelta(hours=hours),
        )


@asynccontextmanager
async def books_of(api: Api) -> AsyncIterator[Books]:
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=5, application="test")
    yield Books(api, make_sessions(engine))
    await engine.dispose()


async def charged_vendor(api: Api, books: Books) -> Person:
    """A vendor with a cleared charge of 12.34 dollars."""
    vendor = await register_vendor(api)
    await books.close([await active_ad(api, vendor)], 12_340_000)
    await books.reconcile()
    return vendor


@asynccontextmanager
async def biller(books: Books, *, timeout_s: float = 8.0) -> AsyncIterator[Biller]:
    """The worker's, one round at a time."""
    stripe = stripe_account(books.api.services.settings.model_copy(update={"stripe_timeout_s": timeout_s}))
    assert stripe is not None
    yield Biller(sessions=books.sessions, stripe=stripe, attempt_s=30.0, now=books.api.services.clock.now)
    await stripe.close()

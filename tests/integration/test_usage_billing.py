"""Usage charges become Stripe usage exactly once, whatever dies between Stripe's answer and our commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agents.billing import Biller
from models.ads import closing, reconciling
from models.ads.closing import Totals
from models.database import SessionFactory, make_engine, make_sessions
from models.errors import Unavailable
from ops.settings import Settings
from ops.stripe_account import stripe_account
from tests.ads_driver import active_ad, register_vendor
from tests.api_driver import Api, Person, created, ok
from tests.catalogue import rows
from tests.stripe_fake import CHARGES, Account, fake_stripe, running_with, subscribe

DAY = date(2027, 3, 1)
ITEMS = "POST /v1/invoiceitems"


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    async with fake_stripe(tmp_path) as found:
        yield found


@pytest.fixture
async def api(alone_settings: Settings, account: Account) -> AsyncIterator[Api]:
    async with running_with(alone_settings, account) as started:
        yield started


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


@pytest.fixture
async def books(api: Api) -> AsyncIterator[Books]:
    engine = make_engine(api.services.settings.sqlalchemy_url, pool_size=5, application="test")
    yield Books(api, make_sessions(engine))
    await engine.dispose()


@asynccontextmanager
async def biller(books: Books, *, timeout_s: float = 8.0) -> AsyncIterator[Biller]:
    """The worker's, one round at a time."""
    stripe = stripe_account(books.api.services.settings.model_copy(update={"stripe_timeout_s": timeout_s}))
    assert stripe is not None
    yield Biller(sessions=books.sessions, stripe=stripe, attempt_s=30.0, now=books.api.services.clock.now)
    await stripe.close()


@pytest.fixture
async def charged(api: Api, books: Books) -> Person:
    """A vendor with a cleared charge of 12.34 dollars."""
    vendor = await register_vendor(api)
    await books.close([await active_ad(api, vendor)], 12_340_000)
    await books.reconcile()
    return vendor


async def test_a_rolled_up_and_reconciled_day_is_billed_once(api: Api, account: Account, books: Books) -> None:
    vendor, thrifty, other = [await register_vendor(api) for _ in range(3)]
    created(await subscribe(api, vendor))
    await account.settle()
    await books.close([await active_ad(api, vendor), await active_ad(api, vendor)], 6_174_999)
    async with biller(books) as agent:
        assert await agent.round() == 0, "not before the day is reconciled"
        await books.reconcile(cleared=False)
        assert await agent.round() == 0
        await books.reconcile()
        assert await agent.round() == 1
        assert await agent.round() == 0
    (item,) = account.all("invoiceitem")
    (charge,) = await rows(api, "SELECT id, status, stripe_id, billed_at FROM usage_charges")
    assert (item["amount"], item["currency"], item["metadata"]) == (1235, "usd", {"charge_id": str(charge.id)})
    assert (charge.status, charge.stripe_id) == ("billed", item["id"])
    assert charge.billed_at is not None
    assert item["customer"] == account.all("subscription")[0]["customer"]
    usage, invoice = ok(await api.as_(vendor).get(CHARGES))
    assert (usage["kind"], usage["status"], usage["amount_cents"]) == ("usage", "billed", 1235)
    assert (usage["for_date"], usage["stripe_id"]) == (DAY.isoformat(), item["id"])
    assert invoice["kind"] == "invoice"
    for vendor_without in (thrifty, other):
        assert ok(await api.as_(vendor_without).get(CHARGES)) == []


async def test_a_vendor_without_a_subscription_is_billed_too(account: Account, books: Books, charged: Person) -> None:
    async with biller(books) as agent:
        assert await agent.round() == 1
    (customer,), (item,) = account.all("customer"), account.all("invoiceitem")
    assert customer["metadata"] == {"store_id": charged.store["id"]}
    assert item["customer"] == customer["id"]


@pytest.mark.parametrize("hours", [0, 22.9, 23.1, 72], ids=lambda hours: f"{hours} h later")
async def test_a_crash_before_the_commit_leaves_one_item(
    account: Account, books: Books, charged: Person, hours: float
) -> None:
    account.fail(ITEMS, "hold")
    async with biller(books) as agent:
        dying = asyncio.create_task(agent.round())
        await account.fake.held.wait()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
    assert (await books.charges())[0][0] == "cleared"
    async with biller(books) as agent:
        assert await agent.round() == 0, "the claim still stands"
        await books.let_time_pass(hours)
        if hours >= 24:
            account.forget_keys()
        assert await agent.round() == 1
    (item,) = account.all("invoiceitem")
    assert await books.charges() == [("billed", 1234, item["id"])]


async def test_a_lost_answer_is_the_same_item(account: Account, books: Books, charged: Person) -> None:
    account.fail(ITEMS, "lose", times=4)
    async with biller(books) as agent:
        await agent.round()
        assert (await books.charges())[0][0] == "cleared"
        await books.let_time_pass()
        await agent.round()
    (item,) = account.all("invoiceitem")
    assert await books.charges() == [("billed", 1234, item["id"])]


async def test_while_stripe_is_away_charges_wait(api: Api, account: Account, books: Books, charged: Person) -> None:
    account.fail(ITEMS, "away", times=3)
    async with biller(books) as agent:
        assert await agent.round() == 1
        assert await agent.round() == 0, "it is put off"
        (waiting,) = await rows(api, "SELECT status, last_error FROM usage_charges")
        assert waiting.status == "cleared"
        assert "Unavailable" in waiting.last_error
        await books.let_time_pass()
        assert await agent.round() == 1
    assert [status for status, *_ in await books.charges()] == ["billed"]


async def test_a_refused_charge_is_kept_with_what_stripe_said(
    api: Api, account: Account, books: Books, charged: Person
) -> None:
    account.fail(ITEMS, "decline")
    async with biller(books) as agent:
        await agent.round()
    (kept,) = await rows(api, "SELECT status, attempts, last_error FROM usage_charges")
    assert tuple(kept) == ("cleared", 1, "card_declined: Your card was declined.")


async def test_many_billers_bill_each_charge_once(api: Api, account: Account, books: Books) -> None:
    vendors = [await register_vendor(api) for _ in range(3)]
    ads = [await active_ad(api, vendor) for vendor in vendors]
    for n in range(4):
        await books.close(ads, 5_000_000, day=DAY + timedelta(days=n))
        await books.reconcile(day=DAY + timedelta(days=n))

    async def work() -> None:
        async with biller(books) as agent:
            while await agent.round():
                pass

    await asyncio.gather(*(work() for _ in range(4)))
    items = account.all("invoiceitem")
    assert len(items) == 12
    assert {item["id"] for item in items} == {stripe_id for _, _, stripe_id in await books.charges()}
    assert len(account.all("customer")) == 3


async def test_unavailable_is_what_a_silent_stripe_is(books: Books, charged: Person, account: Account) -> None:
    account.fail(ITEMS, "hold")
    stripe = stripe_account(books.api.services.settings.model_copy(update={"stripe_timeout_s": 0.2}))
    assert stripe is not None
    customer = await stripe.make_customer(UUID(charged.store["id"]), key="one")
    charge_id = UUID(int=7)
    account.fail(ITEMS, "hold", times=2)
    with pytest.raises(Unavailable):
        await stripe.add_usage(customer, charge_id, amount_cents=1, currency="USD", description="x")
    assert (await stripe.find_usage(customer, charge_id)) is not None
    await stripe.close()

"""Usage charges become Stripe usage exactly once, whatever dies between Stripe's answer and our commit."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from models.errors import Unavailable
from ops.stripe_account import stripe_account
from tests.ads_driver import active_ad, register_vendor
from tests.api_driver import Api, Person, created, ok
from tests.billing_books import DAY, Books, biller
from tests.catalogue import rows
from tests.stripe_fake import CHARGES, Account, subscribe

ITEMS = "POST /v1/invoiceitems"


@pytest.fixture
def api(stripe_api: Api) -> Api:
    return stripe_api


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

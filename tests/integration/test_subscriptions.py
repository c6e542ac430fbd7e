"""Subscriptions: made once whatever dies, active by Stripe's own news, and what a vendor may do follows at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ops.settings import Settings
from tests import catalogue
from tests.ad_stream import eventually
from tests.ads_driver import active_ad, make_eligible, open_gates, serve
from tests.api_driver import Api, Person, created, fields, ok, problem, running
from tests.cart_shop import open_shop, quote, stock
from tests.catalogue import rows
from tests.licences import told
from tests.stripe_fake import (
    CHARGES,
    SUBSCRIPTION,
    Account,
    cancel,
    is_active,
    running_with,
    subscribe,
)


@pytest.fixture
async def api(api_settings: Settings, account: Account) -> AsyncIterator[Api]:
    async with running_with(api_settings, account) as started:
        yield started


@pytest.fixture
async def vendor(api: Api) -> Person:
    return await api.register("vendor")


async def test_a_new_subscription_becomes_active_by_stripes_news(api: Api, account: Account, vendor: Person) -> None:
    made = created(await subscribe(api, vendor))
    assert (made["store_id"], made["status"], made["active"]) == (vendor.store["id"], "incomplete", False)
    await account.settle()
    seen = ok(await api.as_(vendor).get(SUBSCRIPTION))
    assert (seen["id"], seen["status"], seen["active"]) == (made["id"], "active", True)
    assert seen["current_period_end"].endswith("Z")
    assert await is_active(api, vendor)
    changed = await told(api, vendor, "subscription_changed")
    assert [event.active for event in changed] == [True]
    asked = await told(api, vendor, "notification_requested")
    assert [(one.kind, one.values) for one in asked] == [("subscription_changed", {"state": "active"})]
    audited = await rows(
        api, "SELECT change FROM audit_log WHERE object_id = :id ORDER BY created_at, id", id=made["id"]
    )
    assert [row.change for row in audited] == [{"status": [None, "incomplete"]}, {"status": ["incomplete", "active"]}]


async def test_a_second_subscription_is_refused(api: Api, account: Account, vendor: Person) -> None:
    created(await subscribe(api, vendor))
    problem(await subscribe(api, vendor), 409, "already_exists")
    await account.settle()
    problem(await subscribe(api, vendor), 409, "already_exists")
    assert len(account.all("subscription")) == 1


async def test_parallel_requests_make_one_subscription(api: Api, account: Account, vendor: Person) -> None:
    answers = await asyncio.gather(*(subscribe(api, vendor, key=f"k{n}") for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert len(account.all("subscription")) == len(account.all("customer")) == 1
    again = await asyncio.gather(*(subscribe(api, vendor, key=f"k{n}") for n in range(8)))
    assert [answer.status_code for answer in again] == [answer.status_code for answer in answers]


async def test_a_replay_of_the_same_key_is_the_same_answer(api: Api, vendor: Person) -> None:
    first, again = await subscribe(api, vendor, key="one"), await subscribe(api, vendor, key="one")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()


async def dies_after_stripes_answer(api: Api, account: Account, vendor: Person, key: str) -> None:
    """Stripe has made the subscription; the request ends before it hears of that, and nothing of it is committed."""
    account.fail("POST /v1/subscriptions", "hold")
    request = asyncio.create_task(subscribe(api, vendor, key=key))
    await account.fake.held.wait()
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)


@pytest.mark.parametrize("same_key", [True, False], ids=["the same request", "another request"])
@pytest.mark.parametrize("news_first", [True, False], ids=["after the news", "before the news"])
@pytest.mark.parametrize("a_day_later", [True, False])
async def test_a_crash_after_stripes_answer_leaves_one_subscription(
    api: Api, account: Account, vendor: Person, same_key: bool, news_first: bool, a_day_later: bool
) -> None:
    account.api = None
    await dies_after_stripes_answer(api, account, vendor, "one")
    account.api = api
    if news_first:
        await account.settle()
    if a_day_later:
        account.forget_keys()
    retried = await subscribe(api, vendor, key="one" if same_key else "two")
    if news_first and not same_key:
        problem(retried, 409, "already_exists")
    else:
        created(retried)
    await account.settle()
    assert ok(await api.as_(vendor).get(SUBSCRIPTION))["status"] == "active"
    assert len(account.all("subscription")) == 1


async def test_a_lost_answer_of_stripe_is_asked_for_again(api: Api, account: Account, vendor: Person) -> None:
    account.fail("POST /v1/subscriptions", "lose", times=2)
    created(await subscribe(api, vendor))
    assert len(account.all("subscription")) == 1


async def test_stripe_away_is_a_503_and_the_request_goes_through_later(
    api: Api, account: Account, vendor: Person
) -> None:
    account.fail("POST /v1/customers", "away", times=3)
    problem(await subscribe(api, vendor, key="one"), 503, "unavailable")
    created(await subscribe(api, vendor, key="one"))


@pytest.mark.parametrize("method", ["pm_card_chargeDeclined", "pm_missing", "nothing"])
async def test_a_payment_method_that_stripe_refuses_is_named(
    api: Api, account: Account, vendor: Person, method: str
) -> None:
    refused = await subscribe(api, vendor, method=method)
    assert fields(problem(refused, 422, "validation_failed")) == {"payment_method_id"}
    assert account.all("subscription") == []
    created(await subscribe(api, vendor))


@pytest.mark.parametrize("method", ["", "pm with spaces", "../customers", 7, None])
async def test_a_malformed_payment_method_never_reaches_stripe(
    api: Api, account: Account, vendor: Person, method: Any
) -> None:
    refused = await subscribe(api, vendor, method=method)
    assert fields(problem(refused, 422, "validation_failed")) == {"payment_method_id"}
    assert account.all("customer") == []


async def test_cancel_ends_it_and_again_is_the_same_answer(api: Api, account: Account, vendor: Person) -> None:
    problem(await cancel(api, vendor), 404, "not_found")
    created(await subscribe(api, vendor))
    await account.settle()
    ended = ok(await cancel(api, vendor))
    assert (ended["status"], ended["active"]) == ("canceled", False)
    assert not await is_active(api, vendor)
    await account.settle()
    assert ok(await cancel(api, vendor)) == ended
    assert ok(await api.as_(vendor).get(SUBSCRIPTION)) == ended
    assert [one.active for one in await told(api, vendor, "subscription_changed")] == [True, False]
    again = created(await subscribe(api, vendor))
    assert again["id"] != ended["id"]
    await account.settle()
    assert await is_active(api, vendor)


async def test_a_cancel_whose_answer_was_lost_is_done_once(api: Api, account: Account, vendor: Person) -> None:
    made = created(await subscribe(api, vendor))
    await account.settle()
    account.fail(f"DELETE /v1/subscriptions/{made['stripe_subscription_id']}", "lose")
    assert ok(await cancel(api, vendor))["status"] == "canceled"


async def test_key_and_vendor_are_required(api: Api, vendor: Person) -> None:
    buyer = await api.register("buyer")
    async with api.as_(vendor) as client:
        body = {"payment_method_id": "pm_card_visa"}
        problem(await client.post(SUBSCRIPTION, json=body), 400, "idempotency_key_missing")
        problem(await client.post(f"{SUBSCRIPTION}/cancel"), 400, "idempotency_key_missing")
        problem(await client.get(SUBSCRIPTION), 404, "not_found")
    problem(await subscribe(api, buyer), 403, "forbidden")
    problem(await api.as_(buyer).get(CHARGES), 403, "forbidden")


async def test_without_stripe_billing_says_that_it_is_not_there(api_settings: Settings) -> None:
    async with running(api_settings) as api:
        vendor = await api.register("vendor")
        problem(await subscribe(api, vendor), 503, "unavailable")
        problem(await api.as_(vendor).get(SUBSCRIPTION), 404, "not_found")


async def test_the_first_payment_is_in_the_billing_history(api: Api, account: Account, vendor: Person) -> None:
    assert ok(await api.as_(vendor).get(CHARGES)) == []
    created(await subscribe(api, vendor))
    await account.settle()
    (paid,) = ok(await api.as_(vendor).get(CHARGES))
    assert (paid["kind"], paid["type"], paid["status"]) == ("invoice", "subscription", "paid")
    assert paid["amount_cents"] == paid["amount_paid_cents"] == 9_900
    assert ok(await api.as_(await api.register("vendor")).get(CHARGES)) == []


async def test_a_failing_first_payment_leaves_it_incomplete(api: Api, account: Account, vendor: Person) -> None:
    created(await subscribe(api, vendor, method="pm_card_chargeCustomerFail"))
    await account.settle()
    assert ok(await api.as_(vendor).get(SUBSCRIPTION))["status"] == "incomplete"
    assert not await is_active(api, vendor)
    (charge,) = ok(await api.as_(vendor).get(CHARGES))
    assert charge["status"] == "open"


async def test_browse_quote_and_serve_follow_the_subscription(alone_settings: Settings, account: Account) -> None:
    async with running_with(alone_settings, account) as api:
        vendor, buyer = await open_shop(api), await api.register("buyer")
        product_id = await stock(api, vendor)
        ad = await active_ad(api, vendor)
        await open_gates(api)
        await make_eligible(api, vendor.store["id"], subscribed=False)

        async def seen() -> tuple[bool, str, bool]:
            shown = product_id in await catalogue.ids(api, buyer)
            line = (await quote(api, buyer, product_id))["items"][0]["status"]
            served = (await serve(api, buyer))["ad"]
            return shown, line, served is not None and served["ad_id"] == ad["id"]

        async def sells(wanted: bool) -> None:
            """At once in the shop and in quotes; serve's memory follows within a second."""
            expected = (True, "ok", True) if wanted else (False, "invalid", False)
            assert (await seen())[:2] == expected[:2]

            async def all_of_it() -> bool:
                return await seen() == expected

            await eventually(all_of_it)

        await sells(False)
        made = created(await subscribe(api, vendor))
        await account.settle()
        await sells(True)
        for status, paid in (("past_due", False), ("trialing", True), ("unpaid", False), ("active", True)):
            await account.fake.set_status(made["stripe_subscription_id"], status)
            await account.settle()
            await sells(paid)
        ok(await cancel(api, vendor))
        await sells(False)

"""The check against Stripe: silent when both sides agree, by name when they do not, once a night."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result

from agents.billing_check import Nights, check
from ops.cli.billing import billing
from ops.stripe_account import stripe_account
from tests.api_driver import Api, Person, created, ok
from tests.billing_books import Books, biller
from tests.catalogue import rows
from tests.stripe_fake import Account, subscribe


@pytest.fixture
def api(stripe_api: Api) -> Api:
    return stripe_api


async def checked(books: Books) -> Any:
    """A night's check."""
    stripe = stripe_account(books.api.services.settings)
    assert stripe is not None
    found = await check(books.sessions, stripe, now=books.api.services.clock.now(), again_s=0)
    await stripe.close()
    return found


async def test_the_check_is_silent_when_both_sides_agree(
    api: Api, account: Account, books: Books, charged: Person
) -> None:
    created(await subscribe(api, charged))
    await account.settle()
    async with biller(books) as agent:
        await agent.round()
    found = await checked(books)
    assert (found.ok, found.charges, found.items, found.subscriptions) == (True, 1, 1, 1)


async def test_the_check_names_what_differs(api: Api, account: Account, books: Books, charged: Person) -> None:
    created(await subscribe(api, charged))
    await account.settle()
    async with biller(books) as agent:
        await agent.round()
    stripe = stripe_account(api.services.settings)
    assert stripe is not None
    customer = account.all("customer")[0]["id"]
    stray, (item,) = UUID(int=99), account.all("invoiceitem")
    stray_item = await stripe.add_usage(customer, stray, amount_cents=5, currency="USD", description="stray")
    await stripe.subscribe(
        customer, account.all("payment_method")[0]["id"], store_id=UUID(charged.store["id"]), request="r", key="k"
    )
    await account.settle()
    await stripe.close()
    (row,) = await rows(api, "UPDATE usage_charges SET stripe_id = 'ii_lost' RETURNING id")
    counts = "UPDATE subscriptions SET status = 'past_due' WHERE replaced_at IS NULL RETURNING stripe_subscription_id"
    (held,) = await rows(api, counts)
    found = [tuple(one) for one in (await checked(books)).differences]
    assert set(map(str, found)) == {
        str(("usage", str(row.id), [[item["id"], 1234, "USD"]], [["ii_lost", 1234, "USD"]])),
        str(("usage", str(stray), [[stray_item.stripe_id, 5, "USD"]], [])),
        str(("subscription", held.stripe_subscription_id, "active", "past_due")),
        str(("store", charged.store["id"], "one live subscription", "2 live subscriptions")),
        str(("store", charged.store["id"], "active: False", "active: True")),
    }


async def test_every_night_is_checked_once(api: Api, books: Books, charged: Person) -> None:
    admin = await api.register_admin()
    stripe = stripe_account(api.services.settings)
    assert stripe is not None
    nights = Nights(books.sessions, stripe, follow=True)
    for day, hour in ((1, 1), (1, 3), (1, 9), (2, 1), (2, 2)):
        moment = datetime(2030, 5, day, hour, tzinfo=UTC)
        ok(await api.as_(admin).post("/api/admin/ops/clock", json={"now": moment.isoformat()}))
        found = await nights.check_due(again_s=0)
        assert (found is not None) == ((day, hour) in ((1, 3), (2, 2)))
    await stripe.close()
    kept = await rows(api, "SELECT day, ok FROM billing_checks ORDER BY day")
    assert [tuple(row) for row in kept] == [(date(2030, 5, 1), True), (date(2030, 5, 2), True)]


async def test_the_check_is_a_command(
    api: Api, account: Account, books: Books, charged: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = api.services.settings
    for name in ("database_url", "stripe_api_base", "packstream_env"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    async with biller(books) as agent:
        await agent.round()

    def run(*options: str) -> Result:
        return CliRunner().invoke(billing, ["check", *options, "--data", settings.data_dir], catch_exceptions=False)

    done = await asyncio.to_thread(run, "--json")
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (0, True)
    await rows(api, "UPDATE usage_charges SET amount_cents = amount_cents + 1")
    done = await asyncio.to_thread(run)
    assert done.exit_code == 1
    assert "1 differences" in done.stdout

"""What a cart is to its store: one, private, kept whole under parallel quotes, with the ad tokens that led to it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from api.ad_services import AdServices
from models.cart import reads, writes
from models.cart.attribution import TokenRules
from models.cart.reads import HeldCart
from models.cart.writes import QuoteTerms
from models.database import driver_of, new_id
from models.tenancy import SCOPE, Tenant
from ops.settings import Settings
from schemas.http.cart import NewQuote
from tests.ads_driver import execute
from tests.api_driver import ADDRESS, Api, Person, ok, problem, running
from tests.cart_shop import NOON, look, open_shop, post, promise, quote, stock, wants
from tests.statements import statements


async def rows_of(api: Api, buyer: Person) -> dict[str, int]:
    """How many rows of each table the buyer's carts have."""
    tables = ("cart_records", "cart_items", "cart_vendor_groups")
    store = UUID(buyer.store["id"])
    return {
        table: (await execute(api, f"SELECT count(*) FROM {table} WHERE buyer_store_id = :s", s=store))[0][0]
        for table in tables
    }


def scoped(api: Api, buyer: Person) -> AsyncSession:
    """A session in which Postgres shows what the buyer's store may see, as a request's does."""
    tenant = Tenant(UUID(buyer.store["id"]), UUID(buyer.user["id"]))
    return api.services.sessions(info={SCOPE: lambda: tenant})


def terms(api: Api) -> QuoteTerms:
    return QuoteTerms(900, TokenRules(api.services.get(AdServices).keys, ttl_s=30 * 86_400, skew_s=5))


async def hold(tx: AsyncSession, cart: dict[str, Any], buyer: Person) -> HeldCart:
    """What a checkout begins with."""
    return await reads.hold(await driver_of(tx), UUID(cart["id"]), buyer_store_id=UUID(buyer.store["id"]))


async def convert(tx: AsyncSession, cart: HeldCart) -> None:
    """What a checkout does to the cart at NOON."""
    converted = cart.converted(
        checkout_group_id=new_id(), payment_method="cash", shipping_address=ADDRESS, shipping_line=None
    )
    await writes.convert(await driver_of(tx), converted, now=NOON)


# -- one cart a store -------------------------------------------------------------------------------------------------


async def test_parallel_first_quotes_make_one_cart_and_it_is_whole(api: Api, vendor: Person, buyer: Person) -> None:
    other = await open_shop(api)
    mine, theirs = await stock(api, vendor), await stock(api, other, price_cents=500)
    bodies = [wants((mine, n + 1)) if n % 2 else wants((theirs, n + 1), mine) for n in range(12)]
    answers = await asyncio.gather(*(post(api, buyer, {"items": items}) for items in bodies))
    carts = [ok(answer) for answer in answers]
    assert len({cart["id"] for cart in carts}) == 1
    kept = ok(await look(api, buyer))
    assert kept in carts
    assert await rows_of(api, buyer) == {
        "cart_records": 1,
        "cart_items": len(kept["items"]),
        "cart_vendor_groups": len(kept["vendor_groups"]),
    }


async def test_a_quote_waits_for_the_checkout_that_holds_the_cart_and_then_starts_another(
    api: Api, vendor: Person, buyer: Person
) -> None:
    product = await stock(api, vendor)
    cart = await quote(api, buyer, product)
    async with scoped(api, buyer) as tx:
        held = await hold(tx, cart, buyer)
        waiting = asyncio.create_task(quote(api, buyer, (product, 2)))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await convert(tx, held)
        await tx.commit()
    fresh = await waiting
    assert (fresh["id"] != cart["id"], fresh["status"], fresh["total_cents"]) == (True, "active", 2_000)
    assert ok(await look(api, buyer))["id"] == fresh["id"]


async def test_a_checkout_that_waited_for_a_quote_sees_the_lines_of_that_quote(
    api: Api, vendor: Person, buyer: Person
) -> None:
    product, other = await stock(api, vendor), await stock(api, vendor)
    first = await quote(api, buyer, product)
    store = UUID(buyer.store["id"])
    async with scoped(api, buyer) as quoting, scoped(api, buyer) as checking_out:
        body = NewQuote.model_validate({"items": wants(other, str(new_id()))})
        await writes.quote(await driver_of(quoting), body, terms(api), buyer_store_id=store, now=NOON)
        waiting = asyncio.create_task(hold(checking_out, first, buyer))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await quoting.commit()
        seen = await reads.quote_of(await driver_of(checking_out), (await waiting).id)
        assert [line.status for line in seen.lines] == ["ok", "invalid"]


# -- conversion -------------------------------------------------------------------------------------------------------


async def test_after_conversion_there_is_no_cart_and_the_next_quote_starts_one(
    api: Api, vendor: Person, buyer: Person
) -> None:
    product = await stock(api, vendor)
    sold = await quote(api, buyer, (product, 4))
    async with scoped(api, buyer) as tx:
        await convert(tx, await hold(tx, sold, buyer))
        await tx.commit()
    problem(await look(api, buyer), 404, "not_found")
    fresh = await quote(api, buyer, product)
    assert fresh["id"] != sold["id"]
    async with scoped(api, buyer) as tx:
        kept = await hold(tx, sold, buyer)
        assert (kept.status, kept.payment_method, kept.shipping_address) == ("converted", "cash", ADDRESS)
        assert [line.quantity for line in (await reads.quote_of(await driver_of(tx), kept.id)).lines] == [4]
    query = "SELECT converted_at, total_cents FROM cart_records WHERE id = :id"
    assert (await execute(api, query, id=kept.id))[0] == (NOON, 4_000)


# -- whose cart it is -------------------------------------------------------------------------------------------------


async def test_a_cart_is_its_stores_alone(api: Api, vendor: Person, buyer: Person) -> None:
    stranger = await api.register("buyer")
    product = await stock(api, vendor)
    cart = await quote(api, buyer, product)
    problem(await look(api, stranger), 404, "not_found")
    assert (await quote(api, stranger, (product, 9)))["id"] != cart["id"]
    assert ok(await look(api, buyer)) == cart


async def test_postgres_itself_shows_and_lets_write_nothing_of_another_stores_cart(
    api: Api, vendor: Person, buyer: Person
) -> None:
    stranger = await api.register("buyer")
    await quote(api, buyer, await stock(api, vendor))
    mine, theirs = UUID(buyer.store["id"]), UUID(stranger.store["id"])
    for person, seen in ((buyer, 1), (stranger, 0), (vendor, 0)):
        async with scoped(api, person) as tx:
            for table in ("cart_records", "cart_items", "cart_vendor_groups"):
                assert await tx.scalar(text(f"SELECT count(*) FROM {table}")) == seen
    async with scoped(api, stranger) as tx:
        changed = await tx.execute(
            text("UPDATE cart_records SET buyer_store_id = :mine WHERE buyer_store_id = :theirs RETURNING id"),
            {"mine": theirs, "theirs": mine},
        )
        assert changed.all() == []
    body = NewQuote.model_validate({"items": wants(str(new_id()))})
    async with scoped(api, stranger) as tx:
        with pytest.raises(DBAPIError, match="row-level security"):
            await writes.quote(tx, body, terms(api), buyer_store_id=mine, now=NOON)


# -- a quote's cost and what it leaves alone --------------------------------------------------------------------------


async def test_a_quote_takes_as_many_statements_for_a_hundred_items_as_for_two(
    api: Api, vendor: Person, buyer: Person
) -> None:
    await promise(api, vendor)
    known = [await stock(api, vendor, moq=1 + n % 2, max_qty=5 if n % 3 else None) for n in range(30)]
    unknown = [str(new_id()) for _ in range(70)]
    promos = [{"vendor_store_id": vendor.store["id"], "code": "TEN"}]
    kinds: list[list[str]] = []  # of statements, by quote
    async with scoped(api, buyer) as tx:
        db = await driver_of(tx)
        with statements(lambda sql, _: kinds[-1].append(sql)):
            for items in (wants(known[0], unknown[0]), wants(*known, *unknown)):
                kinds.append([])
                body = NewQuote.model_validate({"items": items, "promos": promos})
                await writes.quote(db, body, terms(api), buyer_store_id=UUID(buyer.store["id"]), now=NOON)
    few, many = kinds
    assert 0 < len(few) < 14
    assert many == few


async def test_a_quote_moves_no_stock_and_publishes_nothing(alone: Api) -> None:
    vendor, buyer = await open_shop(alone), await alone.register("buyer")
    product = await stock(alone, vendor, on_hand=5)
    events = await execute(alone, "SELECT count(*) FROM outbox_events")
    before = await execute(alone, "SELECT * FROM inventory")
    for quantity in (5, 6):
        await quote(alone, buyer, (product, quantity))
    assert await execute(alone, "SELECT * FROM inventory") == before
    assert await execute(alone, "SELECT count(*) FROM outbox_events") == events


# -- idempotency ------------------------------------------------------------------------------------------------------


async def test_a_replayed_quote_gives_the_first_answer_and_replaces_nothing(
    api: Api, vendor: Person, buyer: Person
) -> None:
    product = await stock(api, vendor)
    first = await post(api, buyer, {"items": wants(product)}, key="k")
    newer = await quote(api, buyer, (product, 7))
    again = await post(api, buyer, {"items": wants(product)}, key="k", now=NOON + timedelta(minutes=5))
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert ok(await look(api, buyer)) == newer
    problem(await post(api, buyer, {"items": wants((product, 2))}, key="k"), 422, "idempotency_key_reused")


async def test_twins_of_one_quote_have_one_answer(api: Api, vendor: Person, buyer: Person) -> None:
    body = {"items": wants(await stock(api, vendor))}
    answers = await asyncio.gather(*(post(api, buyer, body, key="k") for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1


# -- settings ---------------------------------------------------------------------------------------------------------


async def test_the_life_of_a_quote_and_the_limit_of_requests_are_settings(api_settings: Settings) -> None:
    tight = api_settings.model_copy(update={"quote_ttl_s": 60, "rate_limit_scale": 0.0025})  # 3 writes a minute
    async with running(tight) as api:
        buyer = await api.register("buyer")
        cart = await quote(api, buyer, str(new_id()))
        assert cart["valid_until"] == "2027-03-01T12:01:00Z"
        answers = [await post(api, buyer, {"items": wants(str(new_id()))}) for _ in range(4)]
        assert problem(answers[-1], 429, "rate_limited")
        assert int(answers[-1].headers["retry-after"]) >= 1


async def test_quotes_are_counted_and_timed(api: Api, vendor: Person, buyer: Person) -> None:
    before = await scrape(api)
    await quote(api, buyer, (await stock(api, vendor, on_hand=1), 5), str(new_id()), attribution_tokens=["x"])
    after = await scrape(api)
    for name in (
        "packstream_cart_quotes_total",
        "packstream_cart_quote_seconds_count",
        'packstream_cart_quote_lines_total{status="not_available"}',
        'packstream_cart_quote_lines_total{status="invalid"}',
        'packstream_cart_quote_warnings_total{code="insufficient_stock"}',
        'packstream_cart_tokens_total{outcome="invalid"}',
    ):
        assert after[name] - before.get(name, 0) == 1, name


async def scrape(api: Api) -> dict[str, float]:
    lines = (await api.http.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}


@pytest.mark.parametrize("depth", [300, 2_000])
async def test_a_body_nested_absurdly_deep_is_refused_like_any_other(api: Api, buyer: Person, depth: int) -> None:
    body = '{"items":' + "[" * depth + "]" * depth + "}"
    sent = {"content-type": "application/json"}
    async with api.as_(buyer) as client:
        problem(await client.post("/api/v1/cart", content=body, headers=sent), 400, "idempotency_key_missing")
        keyed = sent | {"idempotency-key": str(new_id())}
        problem(await client.post("/api/v1/cart", content=body, headers=keyed), 422, "validation_failed")

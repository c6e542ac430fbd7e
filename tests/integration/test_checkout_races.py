"""Checkouts beside each other, beside quotes of their cart, and beside changes of their vendors."""

from __future__ import annotations

import asyncio
from uuid import UUID

from api.ad_services import AdServices
from models.cart.attribution import TokenRules
from models.checkout import writes
from models.checkout.writes import CheckoutTerms
from models.stores import reads as stores
from models.stores.rules import KycStatus
from models.stores.writes import set_kyc
from models.tenancy import Tenant
from schemas.http.orders import NewCheckout
from tests.api_driver import ADDRESS, Api, Person, created, ok, problem
from tests.cart_shop import NOON, quote, stock
from tests.cart_shop import look as look_at_cart
from tests.checkout_driver import left, post, reserved
from tests.media_bucket import as_owner

NOTHING = {"orders": 0, "order_line_items": 0, "payment_intents": 0, "converted": 0, "events": 0}


async def test_sixty_four_buyers_of_a_hundred_units_never_get_more_and_every_answer_is_true(
    api: Api, vendor: Person, other: Person
) -> None:
    a, b = await stock(api, vendor, on_hand=100), await stock(api, other, on_hand=100)
    buyers = [await api.register("buyer") for _ in range(64)]
    carts = [
        await quote(api, buyer, *(((a, 3), (b, 2)) if n % 2 else ((b, 3), (a, 2)))) for n, buyer in enumerate(buyers)
    ]
    answers = await asyncio.gather(*(post(api, buyer, cart["id"]) for buyer, cart in zip(buyers, carts, strict=True)))
    told = {a: 0, b: 0}
    for buyer, cart, answer in zip(buyers, carts, answers, strict=True):
        if answer.status_code == 409:
            problem(answer, 409, "no_orderable_items")
            assert await left(api, buyer) == NOTHING
            continue
        done = created(answer)
        lines = [line for order in done["vendor_orders"] for line in order["line_items"]]
        assert all(line["status"] == "pending" for line in lines)  # a vendor's only line fails with its vendor
        assert len(lines) + len(done["rejected_vendors"]) == len(cart["items"])
        for line in lines:
            told[line["product_id"]] += line["quantity"]
    assert await reserved(api, a, b) == [told[a], told[b]]
    assert 98 <= min(told.values()) <= max(told.values()) <= 100


async def test_a_cart_is_converted_as_one_of_its_quotes_said_or_is_quoted_anew(
    api: Api, vendor: Person, other: Person, buyer: Person
) -> None:
    a, b = await stock(api, vendor), await stock(api, other)
    for n in range(12):
        before = await quote(api, buyer, (a, n + 1))
        done, after = await asyncio.gather(post(api, buyer, before["id"]), quote(api, buyer, (b, n + 1)))
        (order,) = created(done)["vendor_orders"]
        ((line, product),) = [(line, line["product_id"]) for line in order["line_items"]]
        assert line["quantity"] == n + 1
        if after["id"] == before["id"]:  # the quote came first
            assert (product, line["cart_item_id"]) == (b, after["items"][0]["id"])
            problem(await look_at_cart(api, buyer), 404, "not_found")
        else:
            assert (product, line["cart_item_id"]) == (a, before["items"][0]["id"])
            assert ok(await look_at_cart(api, buyer)) == after


async def test_a_checkout_under_way_does_not_put_off_a_change_of_its_vendors_standing(
    api: Api, vendor: Person, buyer: Person
) -> None:
    """A vendor that sells all the time is always referred to by some transaction: its licence could never expire."""
    product, store = await stock(api, vendor), UUID(vendor.store["id"])
    cart = await quote(api, buyer, product)
    tenant = Tenant(UUID(buyer.store["id"]), UUID(buyer.user["id"]))
    body = NewCheckout.model_validate({"cart_id": cart["id"], "shipping_address": ADDRESS, "payment_method": "cash"})
    terms = CheckoutTerms(60, 30, TokenRules(api.services.get(AdServices).keys, ttl_s=60, skew_s=5))
    async with api.services.drivers.begin(tenant) as db, as_owner(api) as housekeeper:
        await writes.check_out(db, body, terms, buyer_store_id=tenant.store_id, actor="test", now=NOON, render=id)
        async with asyncio.timeout(5):
            assert await stores.lock_free(housekeeper, {store}) == {store}
            await set_kyc(housekeeper, store, KycStatus.EXPIRED, actor="test", now=NOON)
    assert await reserved(api, product) == [1]

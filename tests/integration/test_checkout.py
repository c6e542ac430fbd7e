"""A checkout makes one order a vendor of what can be had now, holds its stock, tells of it twice, and happens once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from models.database import new_id
from models.tenancy import SCOPE, Tenant
from schemas.records import CheckoutConverted, NotificationRequested
from tests.ads_driver import execute, make_eligible
from tests.api_driver import ADDRESS, Api, Person, fields, ok, problem
from tests.cart_shop import NOON, open_shop, promise, quote, set_product, stock
from tests.cart_shop import look as look_at_cart
from tests.checkout_driver import SHIPPING, check_out, left, look, post, published, reserved

NOTHING = {"orders": 0, "order_line_items": 0, "payment_intents": 0, "converted": 0, "events": 0}
ORDER_FIELDS = {
    "id", "number", "checkout_group_id", "cart_id", "buyer_store_id", "vendor_store_id", "status", "currency",
    "subtotal_cents", "discounts_cents", "shipping_cents", "total_cents", "payment_method", "shipping_address",
    "shipping_line", "promo", "warnings", "attribution", "line_items", "payment_intent", "expires_at", "nudged_at",
    "created_at",
}  # fmt: skip
LINE_FIELDS = {
    "id", "cart_item_id", "product_id", "title", "quantity", "unit_price_cents", "applied_volume_discount",
    "line_subtotal_cents", "line_total_cents", "status", "rejection_reason", "attribution",
}  # fmt: skip


async def take_away(api: Api, product: str, on_hand: int = 0) -> None:
    await execute(api, "UPDATE inventory SET on_hand = :n WHERE product_id = :id", n=on_hand, id=UUID(product))


# -- what it makes ----------------------------------------------------------------------------------------------------


async def test_each_vendor_gets_one_order_that_says_what_the_cart_said(
    api: Api, vendor: Person, other: Person, buyer: Person
) -> None:
    tiers = [{"min_qty": 10, "type": "percent", "value": 1_000}]
    a = await stock(api, vendor, volume_discounts=tiers, max_qty=50)
    b, c = await stock(api, vendor, price_cents=250), await stock(api, other, price_cents=333)
    await promise(api, vendor)
    asked = [{"vendor_store_id": vendor.store["id"], "code": "ten"}]
    cart = await quote(api, buyer, (a, 10), (c, 3), (b, 2), promos=asked)
    done = await check_out(api, buyer, cart, payment_method="ach", shipping_line=SHIPPING)
    assert done.keys() == {
        "checkout_group_id", "cart_id", "payment_method", "shipping_address", "shipping_line", "vendor_orders",
        "rejected_vendors", "total_cents",
    }  # fmt: skip
    assert (done["cart_id"], done["payment_method"], done["shipping_line"]) == (cart["id"], "ach", SHIPPING)
    assert done["shipping_address"].items() >= ADDRESS.items()
    assert done["rejected_vendors"] == []
    first, second = done["vendor_orders"]
    assert [o["vendor_store_id"] for o in (first, second)] == [vendor.store["id"], other.store["id"]]
    for order, group in zip((first, second), cart["vendor_groups"], strict=True):
        assert order.keys() >= ORDER_FIELDS
        assert (order["status"], order["currency"], order["shipping_cents"]) == ("pending", "USD", 700)
        for name in ("subtotal_cents", "discounts_cents", "promo", "warnings"):
            assert order[name] == group[name]
        assert order["total_cents"] == group["total_cents"] + 700
        intent = order["payment_intent"]
        assert (intent["method"], intent["status"], intent["amount_cents"]) == ("ach", "unpaid", order["total_cents"])
        assert (order["created_at"], order["expires_at"], order["nudged_at"]) == (
            "2027-03-01T12:00:00Z", "2027-03-02T12:00:00Z", None,
        )  # fmt: skip
    assert first["total_cents"] == 8_550 + 700  # (10,000 - 1,000 + 500) less a tenth
    assert done["total_cents"] == first["total_cents"] + second["total_cents"]
    items = {item["product_id"]: item for item in cart["items"]}
    assert [line["product_id"] for line in first["line_items"]] == [a, b]
    for line in (*first["line_items"], *second["line_items"]):
        item = items[line["product_id"]]
        assert line.keys() >= LINE_FIELDS
        assert (line["cart_item_id"], line["status"], line["rejection_reason"]) == (item["id"], "pending", None)
        for name in ("title", "quantity", "unit_price_cents", "applied_volume_discount", "moq", "max_qty", "warnings"):
            assert line[name] == item[name]
    assert await reserved(api, a, b, c) == [10, 2, 3]
    assert first["number"] != second["number"]


async def test_an_order_stays_as_it_was_placed_whatever_becomes_of_the_catalogue(
    api: Api, vendor: Person, buyer: Person
) -> None:
    product = await stock(api, vendor)
    (order,) = (await check_out(api, buyer, await quote(api, buyer, product)))["vendor_orders"]
    await set_product(api, product, title="Another", price_cents=1, moq=9)
    assert ok(await look(api, buyer, f"/{order['id']}")) == ok(await look(api, vendor, f"/{order['id']}")) == order


async def test_exactly_two_events_tell_of_it(api: Api, vendor: Person, other: Person, buyer: Person) -> None:
    products = [await stock(api, vendor), await stock(api, other)]
    cart = await quote(api, buyer, *products)
    done = await check_out(api, buyer, cart, shipping_line=SHIPPING)
    assert (await left(api, buyer))["events"] == 2
    converted, notice = await published(api, cart)
    assert isinstance(converted, CheckoutConverted)
    assert isinstance(notice, NotificationRequested)
    group = UUID(done["checkout_group_id"])
    assert (converted.event_id, converted.checkout_group_id, converted.total_cents) == (
        group,
        group,
        done["total_cents"],
    )
    assert (notice.kind, notice.subject_id, str(notice.store_id)) == ("checkout", group, buyer.store["id"])
    assert notice.values == {"checkout_group_id": str(group), "orders": "2", "total": "$34.00"}
    for order, told in zip(done["vendor_orders"], converted.orders, strict=True):
        assert (str(told.order_id), told.number, told.status) == (order["id"], order["number"], "pending")
        assert (told.total_cents, told.shipping_cents) == (order["total_cents"], 700)
        assert (told.ship_to.state, told.ship_to.postal_code) == ("OR", "97201")
        assert (told.expires_at - NOON, told.nudge_at - NOON) == (timedelta(hours=24), timedelta(hours=12))
        (line,) = told.lines
        assert (str(line.product_id), line.category, line.quantity) == (
            order["line_items"][0]["product_id"], "flower", 1,
        )  # fmt: skip


async def test_the_cart_is_gone_and_the_next_quote_starts_another(api: Api, vendor: Person, buyer: Person) -> None:
    product = await stock(api, vendor)
    cart = await quote(api, buyer, product)
    await check_out(api, buyer, cart)
    problem(await look_at_cart(api, buyer), 404, "not_found")
    assert (await quote(api, buyer, product))["id"] != cart["id"]


# -- what cannot be had any more --------------------------------------------------------------------------------------


async def test_a_line_that_fails_is_rejected_beside_others_and_takes_exactly_its_total_off(
    api: Api, vendor: Person, buyer: Person
) -> None:
    tiers = [{"min_qty": 2, "type": "percent", "value": 1_000}]
    short, gone = await stock(api, vendor, volume_discounts=tiers), await stock(api, vendor, price_cents=300)
    there = await stock(api, vendor, price_cents=500)
    await promise(api, vendor, type="amount", value=100)
    asked = [{"vendor_store_id": vendor.store["id"], "code": "TEN"}]
    cart = await quote(api, buyer, (short, 2), gone, there, promos=asked)
    await take_away(api, short, 1)
    await set_product(api, gone, active=False)
    done = await check_out(api, buyer, cart, shipping_line=SHIPPING)
    (order,) = done["vendor_orders"]
    assert [(line["status"], line["rejection_reason"]) for line in order["line_items"]] == [
        ("rejected", "insufficient_stock"),
        ("rejected", "product_unavailable"),
        ("pending", None),
    ]
    assert (order["subtotal_cents"], order["discounts_cents"], order["total_cents"]) == (500, 100, 400 + 700)
    assert order["total_cents"] == cart["total_cents"] - 1_800 - 300 + 700
    assert order["promo"]["discount_cents"] == 100
    assert order["payment_intent"]["amount_cents"] == done["total_cents"] == 1_100
    assert await reserved(api, short, gone, there) == [0, 0, 1]


async def test_an_order_is_never_below_zero(api: Api, vendor: Person, buyer: Person) -> None:
    dear, cheap = await stock(api, vendor, price_cents=5_000), await stock(api, vendor, price_cents=100)
    await promise(api, vendor, type="amount", value=4_000)
    asked = [{"vendor_store_id": vendor.store["id"], "code": "TEN"}]
    cart = await quote(api, buyer, dear, cheap, promos=asked)
    await take_away(api, dear)
    (order,) = (await check_out(api, buyer, cart))["vendor_orders"]
    assert (order["subtotal_cents"], order["discounts_cents"], order["total_cents"]) == (100, 100, 0)


async def test_vendors_of_whom_nothing_can_be_had_are_named_and_get_no_order(
    api: Api, vendor: Person, other: Person, buyer: Person
) -> None:
    barred, never = await open_shop(api), await open_shop(api)
    a, b, c = await stock(api, vendor), await stock(api, other), await stock(api, barred)
    d = await stock(api, never, on_hand=0)
    cart = await quote(api, buyer, a, b, c, d)
    await take_away(api, b)
    await make_eligible(api, barred.store["id"], subscribed=False)
    done = await check_out(api, buyer, cart)
    assert [order["vendor_store_id"] for order in done["vendor_orders"]] == [vendor.store["id"]]
    assert done["rejected_vendors"] == [
        {"vendor_store_id": other.store["id"], "reason": "insufficient_stock"},
        {"vendor_store_id": barred.store["id"], "reason": "vendor_not_eligible"},
        {"vendor_store_id": never.store["id"], "reason": "insufficient_stock"},
    ]
    assert await reserved(api, a, b, c, d) == [1, 0, 0, 0]
    assert ok(await post(api, buyer, cart["id"])) == done


async def test_when_nothing_can_be_had_every_line_is_named_and_nothing_is_written(
    api: Api, vendor: Person, other: Person, buyer: Person
) -> None:
    a, b, unknown = await stock(api, vendor), await stock(api, other), str(new_id())
    cart = await quote(api, buyer, a, b, unknown)
    await take_away(api, a)
    await make_eligible(api, other.store["id"], kyc="expired")
    refused = problem(await post(api, buyer, cart["id"]), 409, "no_orderable_items")
    assert {(entry["field"], entry["code"]) for entry in refused["errors"]} == {
        (f"items.{a}", "insufficient_stock"),
        (f"items.{b}", "vendor_not_eligible"),
        (f"items.{unknown}", "product_unavailable"),
    }
    assert await left(api, buyer) == NOTHING
    assert await reserved(api, a, b) == [0, 0]
    assert ok(await look_at_cart(api, buyer)) == cart
    await take_away(api, a, 1)
    assert len((await check_out(api, buyer, cart))["vendor_orders"]) == 1


async def test_of_a_hundred_lines_that_cannot_be_had_each_is_named(api: Api, buyer: Person) -> None:
    cart = await quote(api, buyer, *(str(new_id()) for _ in range(100)))
    refused = problem(await post(api, buyer, cart["id"]), 409, "no_orderable_items")
    assert [entry["field"] for entry in refused["errors"]] == [f"items.{item['product_id']}" for item in cart["items"]]


async def test_what_becomes_of_products_and_vendors_after_the_quote_decides_what_is_sold(
    api: Api, vendor: Person, other: Person, buyer: Person
) -> None:
    deleted, kept = await stock(api, vendor), await stock(api, vendor)
    moved = await stock(api, other)
    cart = await quote(api, buyer, deleted, kept, moved)
    assert (await api.as_(vendor).delete(f"/api/v1/vendor/products/{deleted}")).status_code == 204
    await set_product(api, kept, price_cents=9_999, moq=5, max_qty=6)
    await execute(api, "UPDATE stores SET state = 'CA' WHERE id = :id", id=UUID(other.store["id"]))
    done = await check_out(api, buyer, cart)
    (order,) = done["vendor_orders"]
    assert [(line["status"], line["rejection_reason"]) for line in order["line_items"]] == [
        ("rejected", "product_unavailable"),
        ("pending", None),
    ]
    assert (order["line_items"][1]["quantity"], order["total_cents"]) == (1, 1_000)  # as it was quoted
    assert done["rejected_vendors"] == [{"vendor_store_id": other.store["id"], "reason": "insufficient_stock"}]
    assert await reserved(api, deleted, kept, moved) == [0, 1, 0]


async def test_another_payload_under_the_key_is_refused_and_under_another_key_is_the_first_checkout(
    api: Api, vendor: Person, buyer: Person
) -> None:
    cart = await quote(api, buyer, await stock(api, vendor))
    done = await check_out(api, buyer, cart, key="one")
    problem(await post(api, buyer, cart["id"], key="one", payment_method="ach"), 422, "idempotency_key_reused")
    again = ok(await post(api, buyer, cart["id"], key="two", payment_method="ach", shipping_line=SHIPPING))
    assert again == done


async def test_a_quote_that_has_expired_is_not_sold(api: Api, vendor: Person, buyer: Person) -> None:
    cart = await quote(api, buyer, await stock(api, vendor))
    late = NOON + timedelta(seconds=900)
    problem(await post(api, buyer, cart["id"], now=late), 409, "cart_not_active")
    assert await left(api, buyer) == NOTHING
    await check_out(api, buyer, cart, now=late - timedelta(seconds=1))
    assert (await post(api, buyer, cart["id"], now=late)).status_code == 200


# -- who, and with what -----------------------------------------------------------------------------------------------


async def test_a_cart_of_another_store_is_not_there_and_vendors_do_not_check_out(
    api: Api, vendor: Person, buyer: Person
) -> None:
    stranger = await api.register("buyer")
    cart = await quote(api, buyer, await stock(api, vendor))
    problem(await post(api, stranger, cart["id"]), 404, "not_found")
    problem(await post(api, buyer, str(new_id())), 404, "not_found")
    problem(await post(api, vendor, cart["id"]), 403, "forbidden")


async def test_what_is_not_a_checkout_is_refused(api: Api, vendor: Person, buyer: Person) -> None:
    cart = await quote(api, buyer, await stock(api, vendor))
    for changes, field in (
        ({"payment_method": "gold"}, "payment_method"),
        ({"shipping_address": {**ADDRESS, "country": "CA"}}, "shipping_address.country"),
        ({"shipping_line": {**SHIPPING, "price_cents": -1}}, "shipping_line.price_cents"),
        ({"shipping_line": {"code": "van"}}, "shipping_line.title"),
        ({"total_cents": 1}, "total_cents"),
    ):
        refused = problem(await post(api, buyer, cart["id"], **changes), 422, "validation_failed")  # type: ignore[arg-type]
        assert field in fields(refused)
    async with api.as_(buyer) as client:
        body = {"cart_id": cart["id"], "shipping_address": ADDRESS, "payment_method": "cash"}
        problem(await client.post("/api/v1/checkout", json=body), 400, "idempotency_key_missing")


async def test_postgres_itself_shows_orders_to_both_sides_alone_and_lets_only_the_buyer_place_them(
    api: Api, vendor: Person, other: Person, buyer: Person
) -> None:
    await check_out(api, buyer, await quote(api, buyer, await stock(api, vendor)))
    for person, seen in ((buyer, 1), (vendor, 1), (other, 0)):
        tenant = Tenant(UUID(person.store["id"]), UUID(person.user["id"]))
        async with api.services.sessions(info={SCOPE: lambda tenant=tenant: tenant}) as tx:
            for table in ("orders", "order_line_items", "payment_intents"):
                assert await tx.scalar(text(f"SELECT count(*) FROM {table}")) == seen
            copy = text(
                "INSERT INTO payment_intents SELECT gen_random_uuid(), gen_random_uuid(), buyer_store_id,"
                " vendor_store_id, method, status, amount_cents, NULL, NULL, NULL, NULL, created_at, updated_at"
                " FROM payment_intents"
            )
            if person is vendor:
                with pytest.raises(DBAPIError, match="row-level security"):
                    await tx.execute(copy)


# -- it happens once --------------------------------------------------------------------------------------------------


async def test_parallel_retries_under_different_keys_make_one_group(
    api: Api, vendor: Person, other: Person, buyer: Person
) -> None:
    a, b = await stock(api, vendor), await stock(api, other)
    cart = await quote(api, buyer, (a, 2), (b, 3))
    answers = await asyncio.gather(*(post(api, buyer, cart["id"]) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.text for answer in answers}) == 1
    assert await left(api, buyer) == {
        "orders": 2, "order_line_items": 2, "payment_intents": 2, "converted": 1, "events": 2,
    }  # fmt: skip
    assert await reserved(api, a, b) == [2, 3]


async def test_a_replay_of_the_key_is_the_first_answer(api: Api, vendor: Person, buyer: Person) -> None:
    cart = await quote(api, buyer, await stock(api, vendor))
    first = await post(api, buyer, cart["id"], key="k")
    again = await post(api, buyer, cart["id"], key="k", now=NOON + timedelta(hours=1))
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"

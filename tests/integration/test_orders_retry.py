"""An expired order is placed again once: the same lines at the same prices, of what can be had today."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from models.orders import expiring
from tests.ads_driver import execute, make_eligible
from tests.api_driver import Api, created, fields, ok, problem
from tests.cart_shop import NOON, open_shop, promise, quote, set_product, stock
from tests.checkout_driver import SHIPPING, check_out, look, reserved
from tests.media_bucket import as_owner
from tests.order_driver import Placed, ask, new_key, notices, placed, told

TOMORROW = NOON + timedelta(days=1, hours=1)
SAME = (
    "cart_id", "buyer_store_id", "vendor_store_id", "currency", "subtotal_cents", "discounts_cents", "shipping_cents",
    "total_cents", "payment_method", "shipping_address", "shipping_line", "promo", "warnings", "attribution",
)  # fmt: skip


async def expire(api: Api, one: Placed) -> None:
    """What the timer does when the order's deadline has passed."""
    async with as_owner(api) as tx:
        done = (await expiring.expire(tx, [UUID(one.id)], actor="order_ttl", now=TOMORROW)).done
    assert UUID(one.id) in done


async def test_a_retry_is_a_new_order_of_the_same_things_at_the_same_prices(api: Api) -> None:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    await promise(api, vendor)
    products = [await stock(api, vendor), await stock(api, vendor)]
    promos = [{"vendor_store_id": vendor.store["id"], "code": "TEN"}]
    cart = await quote(api, buyer, (products[0], 3), (products[1], 2), promos=promos)
    one = Placed(
        buyer, vendor, products, (await check_out(api, buyer, cart, shipping_line=SHIPPING))["vendor_orders"][0]
    )
    await expire(api, one)
    await set_product(api, products[0], price_cents=9_999)

    again = created(await ask(api, buyer, one.id, "retry", now=TOMORROW))
    assert {name: again[name] for name in SAME} == {name: one.order[name] for name in SAME}
    assert (again["status"], again["retry_of"], again["created_at"]) == ("pending", one.id, "2027-03-02T13:00:00Z")
    assert again["expires_at"] == "2027-03-03T13:00:00Z"
    assert again["number"] != one.order["number"]
    assert again["checkout_group_id"] != one.order["checkout_group_id"]
    assert again["payment_intent"]["amount_cents"] == again["total_cents"]
    assert again["payment_intent"]["status"] == "unpaid"
    for before, after in zip(one.order["line_items"], again["line_items"], strict=True):
        assert {**after, "id": before["id"]} == before
        assert after["id"] != before["id"]
    assert await reserved(api, *products) == [3, 2]
    (event,) = await told(api, again)
    assert (event.event_type, event.order.status, str(event.order.retry_of)) == ("order_retried", "pending", one.id)
    assert str(event.checkout_group_id) == again["checkout_group_id"]
    assert await notices(api, again) == [(vendor.store["id"], "order_placed")]

    assert ok(await ask(api, buyer, one.id, "retry", now=TOMORROW)) == again
    assert await reserved(api, *products) == [3, 2]
    assert len(await told(api, again)) == len(await notices(api, again)) == 1
    assert [order["id"] for order in ok(await look(api, buyer))] == [again["id"], one.id]


async def test_a_retry_rejects_lines_that_cannot_be_had(api: Api) -> None:
    one = await placed(api, 3, 2, 1, shipping_line=SHIPPING)
    await expire(api, one)
    await execute(api, "UPDATE inventory SET on_hand = 2 WHERE product_id = :id", id=UUID(one.products[0]))
    await set_product(api, one.products[1], active=False)
    again = created(await ask(api, one.buyer, one.id, "retry", now=TOMORROW))
    assert [(line["status"], line["rejection_reason"]) for line in again["line_items"]] == [
        ("rejected", "insufficient_stock"),
        ("rejected", "product_unavailable"),
        ("pending", None),
    ]
    assert (again["subtotal_cents"], again["total_cents"], again["payment_intent"]["amount_cents"]) == (
        1_000,
        1_700,
        1_700,
    )
    assert await reserved(api, *one.products) == [0, 0, 1]


async def test_a_line_that_was_rejected_before_is_tried_again(api: Api) -> None:
    one = await placed(api, 3, 2)
    body = {"decisions": [{"line_item_id": one.lines[0], "decision": "reject"}]}
    ok(await ask(api, one.vendor, one.id, "line-items/decision", body))
    await expire(api, one)
    again = created(await ask(api, one.buyer, one.id, "retry", now=TOMORROW))
    assert [line["status"] for line in again["line_items"]] == ["pending", "pending"]
    assert again["total_cents"] == one.order["total_cents"] == 5_000
    assert await reserved(api, *one.products) == [3, 2]


async def test_a_retry_of_nothing_is_refused_and_may_be_asked_again(api: Api) -> None:
    one = await placed(api, 3, 2)
    await expire(api, one)
    await execute(
        api, "UPDATE inventory SET on_hand = 0 WHERE product_id = ANY (:ids)", ids=[UUID(id_) for id_ in one.products]
    )
    refused = problem(await ask(api, one.buyer, one.id, "retry", now=TOMORROW), 409, "no_orderable_items")
    assert fields(refused) == {f"items.{product}" for product in one.products}
    await make_eligible(api, one.vendor.store["id"], subscribed=False)
    problem(await ask(api, one.buyer, one.id, "retry", now=TOMORROW), 403, "vendor_not_eligible")
    assert [order["id"] for order in ok(await look(api, one.buyer))] == [one.id]
    await make_eligible(api, one.vendor.store["id"])
    await execute(api, "UPDATE inventory SET on_hand = 9 WHERE product_id = :id", id=UUID(one.products[0]))
    created(await ask(api, one.buyer, one.id, "retry", now=TOMORROW))


async def test_retries_at_once_make_one_order(api: Api) -> None:
    one = await placed(api, 2)
    await expire(api, one)
    answers = await asyncio.gather(
        *(ask(api, one.buyer, one.id, "retry", now=TOMORROW, key=new_key()) for _ in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    assert await reserved(api, *one.products) == [2]

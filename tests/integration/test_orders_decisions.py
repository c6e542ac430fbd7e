"""What a vendor's decisions make of an order: its lines, its money, the stock it holds, and what the buyer hears."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

from models.database import new_id
from tests.ads_driver import execute
from tests.api_driver import Api, fields, problem
from tests.cart_shop import NOON, open_shop, promise, quote, stock
from tests.checkout_driver import SHIPPING, check_out, reserved
from tests.order_driver import Placed, ask, notices, placed, read, step, told

LATER = NOON + timedelta(minutes=5)
LINES = "line-items/decision"


def ruled(*rulings: tuple[str, str]) -> dict[str, Any]:
    return {"decisions": [{"line_item_id": line, "decision": decision} for line, decision in rulings]}


def statuses(order: dict[str, Any]) -> list[str]:
    return [line["status"] for line in order["line_items"]]


def money(order: dict[str, Any]) -> tuple[int, int, int, int, int]:
    names = ("subtotal_cents", "discounts_cents", "shipping_cents", "total_cents")
    subtotal, discounts, shipping, total = (order[name] for name in names)
    return subtotal, discounts, shipping, total, order["payment_intent"]["amount_cents"]


async def test_an_accepted_order_is_as_it_was_ordered(api: Api) -> None:
    one = await placed(api, 3, 2, shipping_line=SHIPPING)
    accepted = await step(api, one.vendor, one.id, "decision", {"decision": "accept"}, now=LATER)
    assert (accepted["status"], statuses(accepted)) == ("accepted", ["accepted", "accepted"])
    assert (accepted["decided_at"], accepted["decision_reason"]) == ("2027-03-01T12:05:00Z", None)
    assert money(accepted) == money(one.order) == (5_000, 0, 700, 5_700, 5_700)
    assert accepted["payment_intent"] == one.order["payment_intent"]
    assert await reserved(api, *one.products) == [3, 2]
    (event,) = await told(api, one.order)
    assert (event.event_type, event.order.status, event.reason) == ("order_decided", "accepted", None)
    assert [str(line) for line in event.decided_lines] == one.lines
    assert await notices(api, one.order) == [(one.buyer.store["id"], "order_decided")]

    assert await step(api, one.vendor, one.id, "decision", {"decision": "accept"}, now=NOON) == accepted
    refused = problem(await ask(api, one.vendor, one.id, "decision", {"decision": "reject"}), 409, "state_conflict")
    assert "accepted" in refused["detail"]
    assert await read(api, one.buyer, one.id) == accepted
    assert len(await told(api, one.order)) == len(await notices(api, one.order)) == 1


async def test_of_a_rejected_order_nothing_is_owed_and_nothing_held(api: Api) -> None:
    one = await placed(api, 3, 2)
    body = {"decision": "reject", "reason": "closed for repairs"}
    rejected = await step(api, one.vendor, one.id, "decision", body, now=LATER)
    assert (rejected["status"], rejected["decision_reason"]) == ("rejected", "closed for repairs")
    assert [(line["status"], line["rejection_reason"]) for line in rejected["line_items"]] == [
        ("rejected", "closed for repairs")
    ] * 2
    assert (rejected["payment_intent"]["status"], money(rejected)) == ("canceled", (0, 0, 0, 0, 0))
    assert await reserved(api, *one.products) == [0, 0]
    (event,) = await told(api, one.order)
    assert (event.order.status, event.order.payment_status, event.reason) == (
        "rejected",
        "canceled",
        "closed for repairs",
    )
    assert await step(api, one.vendor, one.id, "decision", {"decision": "reject"}, now=NOON) == rejected
    refused = problem(await ask(api, one.vendor, one.id, "decision", {"decision": "accept"}), 409, "state_conflict")
    assert "rejected" in refused["detail"]
    assert await reserved(api, *one.products) == [0, 0]
    assert await notices(api, one.order) == [(one.buyer.store["id"], "order_decided")]


async def test_lines_are_decided_one_by_one_and_the_order_with_its_last(api: Api) -> None:
    one = await placed(api, 3, 2, 1, shipping_line=SHIPPING)
    first, second, third = one.lines
    pending = await step(api, one.vendor, one.id, LINES, ruled((first, "accept")), now=LATER)
    assert (pending["status"], statuses(pending)) == ("pending", ["accepted", "pending", "pending"])
    assert (pending["decided_at"], money(pending)) == (None, money(one.order))
    body = {"decisions": [{"line_item_id": second, "decision": "reject", "reason": "spoilt"}]}
    fewer = await step(api, one.vendor, one.id, LINES, body, now=LATER)
    assert (fewer["status"], statuses(fewer)) == ("pending", ["accepted", "rejected", "pending"])
    assert fewer["line_items"][1]["rejection_reason"] == "spoilt"
    assert money(fewer) == (4_000, 0, 700, 4_700, 4_700)
    assert await reserved(api, *one.products) == [3, 0, 1]
    assert await notices(api, one.order) == []

    done = await step(api, one.vendor, one.id, LINES, ruled((third, "accept")), now=LATER)
    assert (done["status"], done["decided_at"]) == ("partially_accepted", "2027-03-01T12:05:00Z")
    assert [[str(line) for line in event.decided_lines] for event in await told(api, one.order)] == [
        [first],
        [second],
        [third],
    ]
    assert [event.order.status for event in await told(api, one.order)] == ["pending", "pending", "partially_accepted"]
    assert await notices(api, one.order) == [(one.buyer.store["id"], "order_decided")]
    assert await step(api, one.vendor, one.id, "decision", {"decision": "accept"}) == done


async def test_a_line_is_decided_once(api: Api) -> None:
    one = await placed(api, 3, 2, 1)
    first, second, third = one.lines
    said = ruled((first, "accept"), (second, "reject"))
    pending = await step(api, one.vendor, one.id, LINES, said)
    assert await step(api, one.vendor, one.id, LINES, said, now=LATER) == pending
    for otherwise in (ruled((first, "reject")), ruled((second, "accept"), (third, "accept"))):
        refused = problem(await ask(api, one.vendor, one.id, LINES, otherwise), 409, "state_conflict")
        assert "pending" in refused["detail"]
    assert await read(api, one.vendor, one.id) == pending
    assert len(await told(api, one.order)) == 1
    done = await step(api, one.vendor, one.id, LINES, ruled((first, "accept"), (third, "accept")))
    assert [str(line) for line in (await told(api, one.order))[-1].decided_lines] == [third]
    assert await step(api, one.vendor, one.id, LINES, said) == done
    refused = problem(await ask(api, one.vendor, one.id, LINES, ruled((first, "reject"))), 409, "state_conflict")
    assert "partially_accepted" in refused["detail"]
    assert await reserved(api, *one.products) == [3, 0, 1]


async def test_an_order_whose_every_line_is_rejected_is_rejected(api: Api) -> None:
    one = await placed(api, 3, 2, shipping_line=SHIPPING)
    await step(api, one.vendor, one.id, LINES, ruled((one.lines[0], "reject")))
    done = await step(api, one.vendor, one.id, LINES, ruled((one.lines[1], "reject")))
    assert (done["status"], done["payment_intent"]["status"]) == ("rejected", "canceled")
    assert money(done) == (0, 0, 700, 700, 700)
    assert await reserved(api, *one.products) == [0, 0]
    assert await notices(api, one.order) == [(one.buyer.store["id"], "order_decided")]


async def test_a_decision_on_the_order_takes_what_is_left_of_it(api: Api) -> None:
    one = await placed(api, 3, 2)
    await step(api, one.vendor, one.id, LINES, ruled((one.lines[0], "reject")))
    done = await step(api, one.vendor, one.id, "decision", {"decision": "accept"})
    assert (done["status"], statuses(done)) == ("partially_accepted", ["rejected", "accepted"])
    assert await step(api, one.vendor, one.id, "decision", {"decision": "accept"}) == done

    other = await placed(api, 3, 2)
    await step(api, other.vendor, other.id, LINES, ruled((other.lines[0], "accept")))
    done = await step(api, other.vendor, other.id, "decision", {"decision": "reject"})
    assert (done["status"], statuses(done)) == ("rejected", ["rejected", "rejected"])
    assert await reserved(api, *other.products) == [0, 0]


async def test_the_promo_stays_as_it_was_however_little_is_left(api: Api) -> None:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    await promise(api, vendor, "LOTS", type="amount", value=2_500)
    tier = [{"min_qty": 3, "type": "percent", "value": 1_000}]
    products = [await stock(api, vendor, volume_discounts=tier), await stock(api, vendor)]
    store = vendor.store["id"]
    cart = await quote(
        api, buyer, (products[0], 3), (products[1], 2), promos=[{"vendor_store_id": store, "code": "lots"}]
    )
    order = (await check_out(api, buyer, cart, shipping_line=SHIPPING))["vendor_orders"][0]
    one = Placed(buyer, vendor, products, order)
    assert money(order) == (5_000, 2_800, 700, 2_900, 2_900)
    less = await step(api, vendor, one.id, LINES, ruled((one.lines[0], "reject")))
    assert money(less) == (2_000, 2_000, 700, 700, 700)  # 2,000 of goods are less than the promo takes off
    assert less["promo"] == order["promo"]
    assert less["promo"]["discount_cents"] == 2_500


async def test_decisions_that_make_no_sense_change_nothing(api: Api) -> None:
    one = await placed(api, 1, 1)
    first = one.lines[0]
    for action, body, field in (
        ("decision", None, "body"),
        ("decision", {}, "decision"),
        ("decision", {"decision": "maybe"}, "decision"),
        ("decision", {"decision": "reject", "reason": "x" * 501}, "reason"),
        ("decision", {"decision": "accept", "note": ""}, "note"),
        (LINES, {"decisions": []}, "decisions"),
        (LINES, ruled((first, "accept"), (first, "accept")), "decisions"),
        (LINES, ruled((first, "perhaps")), "decisions.0.decision"),
        (LINES, ruled(("x", "accept")), "decisions.0.line_item_id"),
        (LINES, ruled(*((str(new_id()), "accept") for _ in range(101))), "decisions"),
        (
            LINES,
            {"decisions": [{"line_item_id": first, "decision": "reject", "reason": "x" * 501}]},
            "decisions.0.reason",
        ),
    ):
        refused = problem(await ask(api, one.vendor, one.id, action, body), 422, "validation_failed")
        assert fields(refused) == {field}, body
    other = await placed(api, shop=(one.vendor, one.buyer))
    for stranger in (other.lines[0], str(new_id())):
        problem(
            await ask(api, one.vendor, one.id, LINES, ruled((first, "accept"), (stranger, "accept"))), 404, "not_found"
        )
    assert await read(api, one.vendor, one.id) == one.order
    assert await told(api, one.order) == []


async def test_a_line_that_checkout_rejected_makes_the_order_partly_accepted(api: Api) -> None:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    products = [await stock(api, vendor, on_hand=5), await stock(api, vendor)]
    cart = await quote(api, buyer, (products[0], 5), (products[1], 2))
    rival = await api.register("buyer")
    await check_out(api, rival, await quote(api, rival, (products[0], 1)))
    order = (await check_out(api, buyer, cart))["vendor_orders"][0]
    assert statuses(order) == ["rejected", "pending"]
    body = ruled((order["line_items"][0]["id"], "accept"))
    problem(await ask(api, vendor, order["id"], LINES, body), 409, "state_conflict")
    done = await step(api, vendor, order["id"], "decision", {"decision": "accept"})
    assert (done["status"], statuses(done)) == ("partially_accepted", ["rejected", "accepted"])
    assert done["line_items"][0]["rejection_reason"] == "insufficient_stock"
    assert await step(api, vendor, order["id"], "decision", {"decision": "accept"}) == done
    assert await reserved(api, *products) == [1, 2]


async def test_whatever_lines_are_rejected_in_whatever_order_the_money_is_that_of_those_that_stay(api: Api) -> None:
    vendor, buyer = await open_shop(api), await api.register("buyer")
    await promise(api, vendor, "SOME", type="amount", value=4_321)
    tier = [{"min_qty": 3, "type": "percent", "value": 1_250}]
    products = [
        await stock(api, vendor, price_cents=price, volume_discounts=tier) for price in (199, 1_001, 2_345, 777, 50)
    ]
    for seed in range(8):
        chance = Random(seed)
        wanted = [(product, chance.randint(1, 5)) for product in chance.sample(products, chance.randint(2, 5))]
        promos = [{"vendor_store_id": vendor.store["id"], "code": "some"}] if seed % 2 else []
        cart = await quote(api, buyer, *wanted, promos=promos)
        order = (await check_out(api, buyer, cart, shipping_line=SHIPPING))["vendor_orders"][0]
        promo = order["promo"]["discount_cents"] if promos else 0
        open_lines = [line["id"] for line in order["line_items"]]
        chance.shuffle(open_lines)
        while open_lines:
            batch = [open_lines.pop() for _ in range(chance.randint(1, len(open_lines)))]
            rulings = [(line, chance.choice(("accept", "reject"))) for line in batch]
            order = await step(api, vendor, order["id"], LINES, ruled(*rulings))
            staying = [line for line in order["line_items"] if line["status"] != "rejected"]
            goods = max(0, sum(line["line_total_cents"] for line in staying) - promo)
            subtotal = sum(line["unit_price_cents"] * line["quantity"] for line in staying)
            assert money(order) == (subtotal, subtotal - goods, 700, goods + 700, goods + 700), seed
    rows = await execute(
        api,
        "SELECT i.product_id, i.reserved, coalesce(sum(l.quantity), 0) AS held FROM inventory i LEFT JOIN"
        " (order_line_items l JOIN orders o ON o.id = l.order_id AND o.status <> 'rejected')"
        " ON l.product_id = i.product_id AND l.status <> 'rejected' WHERE i.store_id = :store GROUP BY i.product_id",
        store=UUID(vendor.store["id"]),
    )
    assert [row.reserved for row in rows] == [row.held for row in rows]

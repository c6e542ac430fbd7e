"""An order's steps over HTTP: what each changes, whom it tells, and that asked for twice it happens once."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from models.orders import expiring
from tests.ads_driver import execute
from tests.api_driver import Api, fields, ok, problem
from tests.cart_shop import NOON
from tests.checkout_driver import reserved
from tests.media_bucket import as_owner
from tests.order_driver import ask, notices, placed, put, read, step, told

LATER = NOON + timedelta(minutes=5)


async def test_a_canceled_order_owes_nothing_and_gives_its_stock_back(api: Api) -> None:
    one = await placed(api, 3, 2)
    canceled = await step(api, one.buyer, one.id, "cancel", {"reason": "too late"}, now=LATER)
    assert (canceled["status"], canceled["cancel_reason"]) == ("canceled", "too late")
    assert canceled["canceled_at"] == "2027-03-01T12:05:00Z"
    assert canceled["payment_intent"]["status"] == "canceled"
    assert canceled["total_cents"] == one.order["total_cents"] == 5_000
    assert await reserved(api, *one.products) == [0, 0]
    (event,) = await told(api, one.order)
    assert (event.event_type, event.reason, event.occurred_at) == ("order_canceled", "too late", LATER)
    assert (event.order.status, event.order.payment_status) == ("canceled", "canceled")
    assert [str(line.line_item_id) for line in event.order.lines] == one.lines
    assert await notices(api, one.order) == [(one.vendor.store["id"], "order_canceled")]

    again = await step(api, one.buyer, one.id, "cancel", {"reason": "again"}, now=LATER + timedelta(hours=1))
    assert again == canceled == await read(api, one.vendor, one.id)
    assert len(await told(api, one.order)) == len(await notices(api, one.order)) == 1
    assert await reserved(api, *one.products) == [0, 0]


async def test_a_cancel_needs_no_body_and_takes_no_other(api: Api) -> None:
    one = await placed(api)
    for body in ({"why": "x"}, {"reason": "x" * 501}, {"reason": 5}, []):
        problem(await ask(api, one.buyer, one.id, "cancel", body), 422, "validation_failed")
    canceled = await step(api, one.buyer, one.id, "cancel")
    assert (canceled["status"], canceled["cancel_reason"]) == ("canceled", None)


async def test_a_vendor_is_nudged_once_an_hour_by_whomever(api: Api) -> None:
    one = await placed(api)
    nudged = await step(api, one.buyer, one.id, "nudge", now=LATER)
    assert (nudged["status"], nudged["nudged_at"]) == ("pending", "2027-03-01T12:05:00Z")
    soon = LATER + timedelta(minutes=59, seconds=59, milliseconds=500)
    refused = await ask(api, one.buyer, one.id, "nudge", now=soon)
    problem(refused, 429, "rate_limited")
    assert refused.headers["retry-after"] == "1"
    await step(api, one.buyer, one.id, "nudge", now=LATER + timedelta(hours=1))
    assert [event.event_type for event in await told(api, one.order)] == ["order_nudged"] * 2
    assert await notices(api, one.order) == [(one.vendor.store["id"], "order_nudged")] * 2


async def test_the_clocks_nudge_counts_like_the_buyers(api: Api) -> None:
    one = await placed(api)
    half = NOON + timedelta(hours=12)
    async with as_owner(api) as tx:
        assert UUID(one.id) in (await expiring.nudge(tx, [UUID(one.id)], actor="order_ttl", now=half)).done
    problem(await ask(api, one.buyer, one.id, "nudge", now=half + timedelta(minutes=59)), 429, "rate_limited")
    await step(api, one.buyer, one.id, "nudge", now=half + timedelta(hours=1))
    assert [event.actor for event in await told(api, one.order)] == ["order_ttl", f"user:{one.buyer.user['id']}"]


async def test_a_fulfilled_order_is_ready_for_dispatch(api: Api) -> None:
    one = await placed(api)
    await put(api, one.id, "accepted")
    ready = await step(api, one.vendor, one.id, "fulfill", now=LATER)
    assert (ready["status"], ready["ready_at"]) == ("ready_for_dispatch", "2027-03-01T12:05:00Z")
    assert await step(api, one.vendor, one.id, "fulfill", now=LATER + timedelta(hours=1)) == ready
    events = [event.event_type for event in await told(api, one.order)]
    assert events in (["order_ready_for_dispatch"], ["order_ready_for_dispatch", "order_assigned"])  # are there agents?
    assert await notices(api, one.order) == []
    assert await reserved(api, *one.products) == [1]


async def test_the_vendors_word_that_it_was_paid_is_kept_once_and_moves_no_money(api: Api) -> None:
    one = await placed(api)
    await put(api, one.id, "delivered")
    said = await step(api, one.vendor, one.id, "confirm-paid", now=LATER)
    assert (said["status"], said["vendor_confirmed_paid_at"]) == ("delivered", "2027-03-01T12:05:00Z")
    assert said["payment_intent"] == one.order["payment_intent"]
    assert await step(api, one.vendor, one.id, "confirm-paid", now=LATER + timedelta(hours=1)) == said
    entries = await execute(api, "SELECT actor, action FROM audit_log WHERE object_id = :id", id=one.id)
    assert [tuple(row) for row in entries] == [(f"user:{one.vendor.user['id']}", "order.confirmed_paid")]
    assert await told(api, one.order) == []
    await put(api, one.id, "closed")
    assert ok(await ask(api, one.vendor, one.id, "confirm-paid"))["status"] == "closed"
    assert fields(problem(await ask(api, one.buyer, "x", "cancel"), 404, "not_found")) == set()

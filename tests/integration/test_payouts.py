"""Money over HTTP: cash and transfers settle an order once, payouts close it once, the ledger has both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from models.database import new_id
from ops.settings import Settings
from tests.ads_driver import execute
from tests.api_driver import Api, Person, fields, ok, problem, running
from tests.cart_shop import NOON
from tests.checkout_driver import SHIPPING
from tests.delivery_driver import appoint, brought, carry, ready
from tests.ledger_driver import PAYOUTS, collect, confirm, delivered, entries, settle_ach, settled
from tests.order_driver import notices, put, read, told

LATER = NOON + timedelta(minutes=5)
IN = ("cash_collected", 5_700, {"cash": 5_700, "vendor_payable": -5_700})
ELSEWHERE = (
    "pending", "accepted", "partially_accepted", "rejected", "canceled", "expired", "ready_for_dispatch", "in_transit",
    "closed",
)  # fmt: skip
OUT = ("vendor_payout", 5_700, {"cash": -5_700, "vendor_payable": 5_700})


@pytest.fixture
async def api(api_settings: Settings) -> AsyncIterator[Api]:
    """An API that leaves ready orders in the queue."""
    async with running(api_settings.model_copy(update={"auto_assign": False})) as started:
        yield started


@pytest.fixture
async def agent(api: Api) -> Person:
    return await appoint(api)


@pytest.fixture
async def admin(api: Api) -> Person:
    return await api.register_admin()


def intent(order: dict[str, Any]) -> tuple[str, str | None, str | None]:
    """Status, and when cash was collected and the vendor paid."""
    found = order["payment_intent"]
    return found["status"], found["cash_collected_at"], found["paid_at"]


async def queued(api: Api, admin: Person, *, limit: int = 100) -> list[dict[str, Any]]:
    """The whole queue of payouts."""
    found: list[dict[str, Any]] = []
    params = {"limit": str(limit)}
    while True:
        async with api.as_(admin) as client:
            answer = await client.get(PAYOUTS, params=params)
        found += ok(answer)
        if answer.json()["meta"]["next_cursor"] is None:
            return found
        params["cursor"] = answer.json()["meta"]["next_cursor"]


# -- cash -------------------------------------------------------------------------------------------------------------


async def test_cash_that_was_collected_settles_the_order_once(api: Api, agent: Person) -> None:
    one = await delivered(api, agent, 3, 2, shipping_line=SHIPPING)
    done = ok(await collect(api, agent, one, now=LATER))
    assert (done["status"], intent(done)) == ("delivered", ("settled", "2027-03-01T12:05:00Z", None))
    assert done["assignment"]["agent_id"] == agent.user["id"]
    assert ok(await collect(api, agent, one, now=NOON + timedelta(hours=1))) == done
    assert await entries(api, one.id) == [IN]
    (event,) = [event for event in await told(api, one.order) if event.event_type == "cash_collected"]
    assert (event.amount_cents, event.occurred_at, event.order.payment_status) == (5_700, LATER, "settled")
    assert str(event.agent_id) == agent.user["id"]
    assert {name: done[name] for name in one.order} == await read(api, one.buyer, one.id)


async def test_only_the_total_is_taken_and_only_by_the_agent_of_a_delivered_cash_order(api: Api, agent: Person) -> None:
    one = await ready(api)
    await brought(api, agent, one.id, "assign")
    for action in ("pickup", "deliver"):
        early = problem(await collect(api, agent, one, amount_cents=1), 409, "state_conflict")
        assert early["detail"].endswith(("ready_for_dispatch", "in_transit"))
        await brought(api, agent, one.id, action)
    for amount in (999, 1_001, 0):
        refused = problem(await collect(api, agent, one, amount_cents=amount), 422, "validation_failed")
        assert fields(refused) == {"amount_cents"}
    for body in ({"amount_cents": "1000"}, {"amount_cents": -1}, {"amount_cents": 1000.5}, {}, {"cents": 1_000}):
        problem(await carry(api, agent, one.id, "cash-collected", body), 422, "validation_failed")
    problem(await collect(api, await appoint(api), one), 404, "not_found")
    assert await entries(api, one.id) == []
    assert intent(await read(api, one.buyer, one.id)) == ("unpaid", None, None)
    ok(await collect(api, agent, one))
    problem(await collect(api, agent, one, amount_cents=999), 422, "validation_failed")
    by_transfer = await delivered(api, agent, payment_method="ach")
    assert "delivered" in problem(await collect(api, agent, by_transfer), 409, "state_conflict")["detail"]


async def test_cash_that_is_reported_many_times_at_once_is_booked_once(api: Api, agent: Person) -> None:
    one = await delivered(api, agent)
    answers = await asyncio.gather(*(collect(api, agent, one) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(await entries(api, one.id)) == 1


async def test_no_money_moves_in_any_other_state(api: Api, agent: Person, admin: Person) -> None:
    for method in ("cash", "ach"):
        one = await delivered(api, agent, payment_method=method)
        for status in ELSEWHERE:
            await put(api, one.id, status)
            answers = [await collect(api, agent, one), await settle_ach(api, admin, one.id)]
            if status != "closed":  # which is where a confirmed payout leads
                answers.append(await confirm(api, admin, one.id))
            for answer in answers:
                assert problem(answer, 409, "state_conflict")["detail"].endswith(status)
        assert await entries(api, one.id) == []


# -- transfers --------------------------------------------------------------------------------------------------------


async def test_a_bank_transfer_settles_an_ach_order_once(api: Api, agent: Person, admin: Person) -> None:
    one = await delivered(api, agent, payment_method="ach")
    problem(await confirm(api, admin, one.id), 409, "state_conflict")
    done = ok(await settle_ach(api, admin, one.id, now=LATER))
    assert (done["status"], intent(done)) == ("delivered", ("settled", None, None))
    assert done["payment_intent"]["settled_at"] == "2027-03-01T12:05:00Z"
    assert ok(await settle_ach(api, admin, one.id, now=NOON + timedelta(hours=1))) == done
    ok(await confirm(api, admin, one.id))
    assert await entries(api, one.id) == [
        ("ach_settled", 1_000, {"bank": 1_000, "vendor_payable": -1_000}),
        ("vendor_payout", 1_000, {"bank": -1_000, "vendor_payable": 1_000}),
    ]
    assert [event.event_type for event in await told(api, one.order)][-2:] == ["ach_settled", "order_paid"]
    cash = await delivered(api, agent)
    problem(await settle_ach(api, admin, cash.id), 409, "state_conflict")
    problem(await settle_ach(api, admin, str(new_id())), 404, "not_found")
    async with api.as_(admin) as client:
        bare = await client.post(f"/api/admin/orders/{cash.id}/ach-settled")
    problem(bare, 400, "idempotency_key_missing")


# -- payouts ----------------------------------------------------------------------------------------------------------


async def test_a_confirmed_payout_closes_the_order_once_whatever_the_key(
    api: Api, agent: Person, admin: Person
) -> None:
    one = await settled(api, agent, 3, 2, shipping_line=SHIPPING)
    waiting = ok(await api.as_(admin).get(f"{PAYOUTS}/{one.id}"))
    assert (waiting["order_id"], waiting["amount_cents"], waiting["payout_cents"]) == (one.id, 5_700, 5_700)
    assert [event["type"] for event in waiting["ledger_events"]] == ["cash_collected"]
    done = ok(await confirm(api, admin, one.id, key="one", now=LATER))
    assert (done["status"], done["closed_at"]) == ("closed", "2027-03-01T12:05:00Z")
    assert intent(done) == ("paid", "2027-03-01T12:00:00Z", "2027-03-01T12:05:00Z")
    assert [event["type"] for event in done["ledger_events"]] == ["cash_collected", "vendor_payout"]
    for key in ("one", "two"):
        assert ok(await confirm(api, admin, one.id, key=key, now=LATER if key == "one" else NOON)) == done
    assert ok(await api.as_(admin).get(f"{PAYOUTS}/{one.id}")) == done
    assert await entries(api, one.id) == [IN, OUT]
    events = [event for event in await told(api, one.order) if event.event_type == "order_paid"]
    assert [(event.amount_cents, event.order.status, event.order.payment_status) for event in events] == [
        (5_700, "closed", "paid")
    ]
    assert str(events[0].ledger_event_id) == done["ledger_events"][1]["id"]
    told_vendor = (one.vendor.store["id"], "payout_confirmed")
    assert [notice for notice in await notices(api, one.order) if notice[1] == "payout_confirmed"] == [told_vendor]


async def test_payouts_confirmed_at_once_are_paid_once(api: Api, agent: Person, admin: Person) -> None:
    one = await settled(api, agent)
    answers = await asyncio.gather(*(confirm(api, admin, one.id) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(await entries(api, one.id)) == 2


async def test_the_queue_has_what_is_settled_and_unpaid_page_by_page(api: Api, agent: Person, admin: Person) -> None:
    times = [NOON + timedelta(hours=hour) for hour in (2, 0, 1, 1)]
    orders = [await settled(api, agent, now=now) for now in times]
    await delivered(api, agent)
    mine = {one.id for one in orders}
    for limit in (1, 100):
        queue = [row for row in await queued(api, admin, limit=limit) if row["id"] in mine]
        at_times = [row["payment_intent"]["settled_at"] for row in queue]
        assert at_times == sorted(at_times)
        assert {row["id"] for row in queue} == mine
        assert len(queue) == 4
    ok(await confirm(api, admin, orders[0].id))
    assert {row["id"] for row in await queued(api, admin) if row["id"] in mine} == mine - {orders[0].id}


async def test_only_what_is_settled_is_paid_out(api: Api, agent: Person, admin: Person) -> None:
    one = await delivered(api, agent)
    problem(await api.as_(admin).get(f"{PAYOUTS}/{one.id}"), 404, "not_found")
    refused = problem(await confirm(api, admin, one.id), 409, "state_conflict")
    assert "delivered" in refused["detail"]
    for unknown in (str(new_id()), "x"):
        problem(await confirm(api, admin, unknown), 404, "not_found")
        problem(await api.as_(admin).get(f"{PAYOUTS}/{unknown}"), 404, "not_found")
    async with api.as_(admin) as client:
        problem(await client.post(f"{PAYOUTS}/{one.id}/confirm"), 400, "idempotency_key_missing")
    assert await entries(api, one.id) == []


async def test_a_platform_fee_is_one_more_posting(api_settings: Settings) -> None:
    with_fee = api_settings.model_copy(update={"auto_assign": False, "platform_fee_bp": 250})
    async with running(with_fee) as api:
        agent, admin = await appoint(api), await api.register_admin()
        one = await settled(api, agent, 3)
        waiting = ok(await api.as_(admin).get(f"{PAYOUTS}/{one.id}"))
        assert (waiting["amount_cents"], waiting["platform_fee_cents"], waiting["payout_cents"]) == (3_000, 75, 2_925)
        done = ok(await confirm(api, admin, one.id))
        assert (done["amount_cents"], done["platform_fee_cents"], done["payout_cents"]) == (3_000, 75, 2_925)
        assert (await entries(api, one.id))[1] == (
            "vendor_payout",
            3_000,
            {"vendor_payable": 3_000, "cash": -2_925, "platform_fees": -75},
        )


async def test_an_order_of_nothing_is_settled_and_paid_too(api: Api, agent: Person, admin: Person) -> None:
    one = await delivered(api, agent)
    await put(api, one.id, "delivered")
    await execute(
        api,
        "UPDATE orders SET discounts_cents = subtotal_cents, total_cents = 0 WHERE id = CAST(:id AS uuid)",
        id=one.id,
    )
    await execute(api, "UPDATE payment_intents SET amount_cents = 0 WHERE order_id = CAST(:id AS uuid)", id=one.id)
    ok(await collect(api, agent, one, amount_cents=0))
    ok(await confirm(api, admin, one.id))
    assert [amount for _, amount, _ in await entries(api, one.id)] == [0, 0]

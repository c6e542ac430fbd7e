"""Deliveries over HTTP: who gets an order, each step once and by its agent alone, stock leaves with the pickup."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError

from models.database import new_id
from ops.settings import Settings
from tests.ads_driver import execute
from tests.api_driver import Api, fields, ok, problem, running
from tests.cart_shop import NOON
from tests.delivery_driver import appoint, assignments, brought, carry, on_shelf, ready, seen_by
from tests.order_driver import ask, notices, placed, put, read, step, told

LATER = NOON + timedelta(minutes=5)


@pytest.fixture
async def manual(api_settings: Settings) -> AsyncIterator[Api]:
    """An API that leaves ready orders in the queue."""
    async with running(api_settings.model_copy(update={"auto_assign": False})) as started:
        yield started


# -- who gets it ------------------------------------------------------------------------------------------------------


async def test_a_ready_order_goes_at_once_to_an_agent_who_carries_least(alone: Api) -> None:
    agents = [await appoint(alone) for _ in range(3)]
    orders = [await ready(alone) for _ in range(6)]
    given = [(await assignments(alone, one.id)) for one in orders]
    assert all(len(rows) == 1 and rows[0][1:] == ("assigned", True) for rows in given)
    assert Counter(rows[0][0] for rows in given) == {agent.user["id"]: 2 for agent in agents}
    for agent in agents:
        mine = await seen_by(alone, agent, "assignments")
        assert {one["agent_id"] for one in mine} == {agent.user["id"]}
        assert len(mine) == 2
    assert await seen_by(alone, agents[0], "orders") == []
    (_, event) = await told(alone, orders[0].order)
    assert (event.event_type, event.automatic, str(event.agent_id)) == ("order_assigned", True, given[0][0][0])
    assert event.order.status == "ready_for_dispatch"


async def test_orders_made_ready_at_once_are_shared_out_evenly(alone: Api) -> None:
    agents = [await appoint(alone) for _ in range(4)]
    orders = [await placed(alone) for _ in range(12)]
    for one in orders:
        await put(alone, one.id, "accepted")
    await asyncio.gather(*(step(alone, one.vendor, one.id, "fulfill") for one in orders))
    rows = [row for one in orders for row in await assignments(alone, one.id)]
    assert Counter(agent for agent, *_ in rows) == {agent.user["id"]: 3 for agent in agents}


async def test_what_was_delivered_is_no_load_any_more(alone: Api) -> None:
    busy, free = await appoint(alone), await appoint(alone)
    orders = {(await assignments(alone, one.id))[0][0]: one for one in [await ready(alone), await ready(alone)]}
    await brought(alone, free, orders[free.user["id"]].id, "pickup", "deliver")
    assert {row[0] for row in await assignments(alone, (await ready(alone)).id)} == {free.user["id"]}
    assert len(await seen_by(alone, busy, "assignments")) == 1


async def test_without_an_agent_a_ready_order_waits_and_a_repeated_fulfil_gives_it_out(alone: Api) -> None:
    one = await ready(alone)
    assert await assignments(alone, one.id) == []
    agent = await appoint(alone)
    assert [order["id"] for order in await seen_by(alone, agent, "orders")] == [one.id]
    await step(alone, one.vendor, one.id, "fulfill")
    assert [row[0] for row in await assignments(alone, one.id)] == [agent.user["id"]]


async def test_an_agent_takes_an_order_from_the_queue_and_then_it_is_taken(manual: Api) -> None:
    agent, other, one = await appoint(manual), await appoint(manual), await ready(manual)
    assert await assignments(manual, one.id) == []
    taken = ok(await carry(manual, agent, one.id, "assign", now=LATER))
    assert (taken["id"], taken["order_id"], taken["status"]) == (one.id, one.id, "ready_for_dispatch")
    assert (taken["agent_id"], taken["assignment"]["status"]) == (agent.user["id"], "assigned")
    assert (taken["assignment"]["automatic"], taken["assignment"]["assigned_at"]) == (False, "2027-03-01T12:05:00Z")
    assert [line["id"] for line in taken["line_items"]] == one.lines
    assert ok(await carry(manual, agent, one.id, "assign", now=NOON + timedelta(hours=1))) == taken
    assert (
        "ready_for_dispatch" in problem(await carry(manual, other, one.id, "assign"), 409, "state_conflict")["detail"]
    )
    assert [event.event_type for event in await told(manual, one.order)][1:] == ["order_assigned"]
    assert [order["id"] for order in await seen_by(manual, agent, "assignments")] == [one.id]
    assert one.id not in [order["id"] for order in await seen_by(manual, agent, "orders")]


async def test_of_agents_who_take_one_order_at_once_one_gets_it(manual: Api) -> None:
    agents, one = [await appoint(manual) for _ in range(6)], await ready(manual)
    answers = await asyncio.gather(*(carry(manual, agent, one.id, "assign") for agent in agents))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    assert len(await assignments(manual, one.id)) == 1


async def test_the_queue_shows_the_longest_ready_first_and_nothing_else(alone: Api) -> None:
    orders = [await ready(alone, now=NOON + timedelta(hours=hour)) for hour in (2, 0, 1, 1, 0)]
    await placed(alone)
    agent = await appoint(alone)
    hours = [2, 0, 1, 1, 0]
    expected = [one.id for _, one in sorted(zip(hours, orders, strict=True), key=lambda pair: (pair[0], pair[1].id))]
    queue = await seen_by(alone, agent, "orders")
    assert [order["id"] for order in queue] == expected
    assert all(order["agent_id"] is None and order["assignment"] is None for order in queue)


async def test_postgres_itself_lets_an_order_have_one_agent(manual: Api) -> None:
    agent, one = await appoint(manual), await ready(manual)
    await brought(manual, agent, one.id, "assign")
    copy = (
        "INSERT INTO delivery_assignments SELECT gen_random_uuid(), order_id, agent_id, buyer_store_id,"
        " vendor_store_id, status, automatic, assigned_at FROM delivery_assignments WHERE order_id = :id"
    )
    with pytest.raises(IntegrityError, match="uq_delivery_assignments_order_id"):
        await execute(manual, copy, id=UUID(one.id))


# -- the way ----------------------------------------------------------------------------------------------------------


async def test_the_way_of_an_order(manual: Api) -> None:
    agent, one = await appoint(manual), await ready(manual, 3, 2)
    await brought(manual, agent, one.id, "assign")
    assert [await on_shelf(manual, product) for product in one.products] == [(1_000, 3), (1_000, 2)]
    gone = await brought(manual, agent, one.id, "pickup", now=LATER)
    assert (gone["status"], gone["in_transit_at"]) == ("in_transit", "2027-03-01T12:05:00Z")
    assert (gone["assignment"]["status"], gone["assignment"]["picked_up_at"]) == ("picked_up", "2027-03-01T12:05:00Z")
    assert [await on_shelf(manual, product) for product in one.products] == [(997, 0), (998, 0)]
    assert await brought(manual, agent, one.id, "pickup", now=NOON + timedelta(hours=1)) == gone
    there = await brought(manual, agent, one.id, "deliver", now=NOON + timedelta(hours=2))
    assert (there["status"], there["delivered_at"]) == ("delivered", "2027-03-01T14:00:00Z")
    assert there["assignment"]["status"] == "delivered"
    assert await brought(manual, agent, one.id, "deliver", now=NOON + timedelta(hours=3)) == there
    assert [await on_shelf(manual, product) for product in one.products] == [(997, 0), (998, 0)]
    events = (await told(manual, one.order))[2:]
    assert [event.event_type for event in events] == ["order_in_transit", "order_delivered"]
    assert {str(event.agent_id) for event in events} == {agent.user["id"]}
    assert [event.order.status for event in events] == ["in_transit", "delivered"]
    buyer = one.buyer.store["id"]
    assert await notices(manual, one.order) == [(buyer, "order_in_transit"), (buyer, "order_delivered")]
    order = await read(manual, one.buyer, one.id)
    assert {name: there[name] for name in order} == order


async def test_only_the_assigned_agent_moves_an_order(manual: Api) -> None:
    agent, other, one = await appoint(manual), await appoint(manual), await ready(manual)
    for who in (agent, other):
        problem(await carry(manual, who, one.id, "pickup"), 404, "not_found")
    await brought(manual, agent, one.id, "assign")
    for action in ("pickup", "deliver"):
        problem(await carry(manual, other, one.id, action), 404, "not_found")
        problem(await carry(manual, one.vendor, one.id, action), 403, "forbidden")
        problem(await carry(manual, agent, str(new_id()), action), 404, "not_found")
    problem(await carry(manual, agent, str(new_id()), "assign"), 404, "not_found")
    assert [event.event_type for event in await told(manual, one.order)][-1] == "order_assigned"


STATUSES = (
    "pending", "accepted", "partially_accepted", "rejected", "canceled", "expired", "ready_for_dispatch", "in_transit",
    "delivered", "closed",
)  # fmt: skip
POSSIBLE = {
    "assign": {"ready_for_dispatch"},
    "pickup": {"ready_for_dispatch", "in_transit"},
    "deliver": {"in_transit", "delivered"},
}


@pytest.mark.parametrize("action", POSSIBLE)
async def test_a_step_that_the_state_forbids_is_refused_by_its_name(manual: Api, action: str) -> None:
    agent, one = await appoint(manual), await ready(manual)
    await brought(manual, agent, one.id, "assign")
    for status in STATUSES:
        if status not in POSSIBLE[action]:
            await put(manual, one.id, status)
            refused = problem(await carry(manual, agent, one.id, action), 409, "state_conflict")
            assert refused["detail"].endswith(status)
    assert len(await told(manual, one.order)) == 2


async def test_a_canceled_order_leaves_its_agent_and_its_history(manual: Api) -> None:
    agent, one = await appoint(manual), await ready(manual)
    await brought(manual, agent, one.id, "assign")
    await step(manual, one.buyer, one.id, "cancel")
    assert await assignments(manual, one.id) == [(agent.user["id"], "canceled", False)]
    problem(await carry(manual, agent, one.id, "pickup"), 404, "not_found")
    assert one.id not in [order["id"] for order in await seen_by(manual, agent, "assignments")]
    (kept,) = await seen_by(manual, agent, "assignments", status="canceled")
    assert (kept["id"], kept["assignment"]["status"]) == (one.id, "canceled")
    await step(manual, one.buyer, one.id, "cancel")
    assert await on_shelf(manual, one.products[0]) == (1_000, 0)


async def test_of_a_pickup_and_a_cancel_at_once_one_wins(manual: Api) -> None:
    agent = await appoint(manual)
    for _ in range(5):
        one = await ready(manual)
        await brought(manual, agent, one.id, "assign")
        picked, canceled = await asyncio.gather(
            carry(manual, agent, one.id, "pickup"), ask(manual, one.buyer, one.id, "cancel")
        )
        ends = (picked.status_code, canceled.status_code)
        assert ends in {(200, 409), (404, 200)}
        assert await on_shelf(manual, one.products[0]) == ((999, 0) if ends[0] == 200 else (1_000, 0))


async def test_lists_refuse_what_they_do_not_know(manual: Api) -> None:
    agent = await appoint(manual)
    async with manual.as_(agent) as client:
        for path, params in (
            ("orders", {"limit": "0"}),
            ("orders", {"cursor": "x"}),
            ("assignments", {"status": "lost"}),
        ):
            refused = problem(await client.get(f"/api/v1/agent/{path}", params=params), 422, "validation_failed")
            assert fields(refused) == set(params)

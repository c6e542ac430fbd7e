"""Every action on an order in every status, over HTTP: possible, done already, or 409; by members of its stores.

`alone`: where other tests have left agents, an order that becomes ready is given to one of them.
"""

from __future__ import annotations

from typing import Any

from models.orders.rules import OrderStatus
from tests.api_driver import Api, ok, problem
from tests.cart_shop import open_shop
from tests.checkout_driver import reserved
from tests.contracts.cast import joined
from tests.order_driver import VENDOR, Placed, ask, new_key, notices, placed, put, read, step, told

ACTIONS = ("cancel", "nudge", "retry", "accept", "reject", "accept line", "reject line", "fulfill", "confirm-paid")
POSSIBLE = {
    ("pending", "accept"): "accepted",
    ("pending", "reject"): "rejected",
    ("pending", "accept line"): "pending",
    ("pending", "reject line"): "pending",
    ("pending", "nudge"): "pending",
    ("pending", "cancel"): "canceled",
    ("accepted", "cancel"): "canceled",
    ("accepted", "fulfill"): "ready_for_dispatch",
    ("partially_accepted", "cancel"): "canceled",
    ("partially_accepted", "fulfill"): "ready_for_dispatch",
    ("ready_for_dispatch", "cancel"): "canceled",
    ("expired", "retry"): "pending",  # the new order
    ("delivered", "confirm-paid"): "delivered",
    ("closed", "confirm-paid"): "closed",
}
DONE = {
    ("accepted", "accept"),
    ("accepted", "accept line"),
    ("partially_accepted", "accept"),
    ("partially_accepted", "accept line"),
    ("rejected", "reject"),
    ("rejected", "reject line"),
    ("canceled", "cancel"),
    ("ready_for_dispatch", "fulfill"),
}


async def do(api: Api, one: Placed, action: str) -> Any:
    """Ask for an action, as the side whose it is."""
    verb, _, line = action.partition(" ")
    if line:
        body = {"decisions": [{"line_item_id": one.lines[0], "decision": verb}]}
        return await ask(api, one.vendor, one.id, "line-items/decision", body)
    if verb in ("accept", "reject"):
        return await ask(api, one.vendor, one.id, "decision", {"decision": verb})
    person = one.vendor if verb in ("fulfill", "confirm-paid") else one.buyer
    return await ask(api, person, one.id, verb)


async def test_what_a_status_forbids_is_a_conflict_and_changes_nothing(alone: Api) -> None:
    shop = await open_shop(alone), await alone.register("buyer")
    for status in OrderStatus:
        one = await placed(alone, 2, 1, shop=shop)
        await put(alone, one.id, status)
        before = await read(alone, one.buyer, one.id)
        for action in ACTIONS:
            if (status, action) in DONE:
                assert ok(await do(alone, one, action)) == before, (status, action)
            elif (status, action) not in POSSIBLE:
                refused = problem(await do(alone, one, action), 409, "state_conflict")
                assert refused["detail"].endswith(f" {status}"), (status, action)
        assert await read(alone, one.buyer, one.id) == before
        assert await told(alone, one.order) == await notices(alone, one.order) == []
        assert await reserved(alone, *one.products) == [2, 1]


async def test_what_a_status_allows_leads_where_the_table_says_and_is_told_once(alone: Api) -> None:
    shop = await open_shop(alone), await alone.register("buyer")
    for (status, action), after in POSSIBLE.items():
        one = await placed(alone, 2, 1, shop=shop)
        await put(alone, one.id, status)
        answer = await do(alone, one, action)
        assert answer.status_code == (201 if action == "retry" else 200), (status, action)
        order = answer.json()["data"]
        assert order["status"] == after, (status, action)
        events = [(event.event_type, event.order.status) for event in await told(alone, order)]
        kind = {"cancel": "canceled", "nudge": "nudged", "retry": "retried", "fulfill": "ready_for_dispatch"}.get(
            action
        )
        expected = [] if action == "confirm-paid" else [(f"order_{kind or 'decided'}", after)]
        assert events == expected, (status, action)


async def test_an_order_of_other_stores_is_not_there(api: Api) -> None:
    one = await placed(api, 1)
    stranger = one._replace(vendor=await open_shop(api), buyer=await api.register("buyer"))
    for action in ACTIONS:
        problem(await do(api, stranger, action), 404, "not_found")
    assert await read(api, one.buyer, one.id) == one.order


async def test_neither_side_does_what_is_the_others(api: Api) -> None:
    one = await placed(api, 1)
    swapped = one._replace(vendor=one.buyer, buyer=one.vendor)
    for action in ACTIONS:
        problem(await do(api, swapped, action), 403, "forbidden")
    assert await read(api, one.buyer, one.id) == one.order


async def test_staff_do_the_work_of_orders(api: Api) -> None:
    one = await placed(api, 1)
    clerk, shopper = await joined(api, one.vendor, "staff"), await joined(api, one.buyer, "staff")
    await step(api, shopper, one.id, "nudge")
    await step(api, clerk, one.id, "decision", {"decision": "accept"})
    await step(api, clerk, one.id, "fulfill")
    await step(api, shopper, one.id, "cancel")
    nudged, decided, *_, canceled = await told(api, one.order)
    assert nudged.actor == canceled.actor == f"user:{shopper.user['id']}"
    assert decided.actor == f"user:{clerk.user['id']}"


async def test_a_step_under_a_key_is_answered_as_it_was(api: Api) -> None:
    one, key = await placed(api, 1), new_key()
    accepted = await ask(api, one.vendor, one.id, "decision", {"decision": "accept"}, key=key)
    await step(api, one.buyer, one.id, "cancel")
    again = await ask(api, one.vendor, one.id, "decision", {"decision": "accept"}, key=key)
    assert (again.status_code, again.content) == (200, accepted.content)
    assert again.headers["idempotent-replayed"] == "true"
    other = await ask(api, one.vendor, one.id, "decision", {"decision": "reject"}, key=key)
    problem(other, 422, "idempotency_key_reused")
    problem(await ask(api, one.vendor, one.id, "decision", {"decision": "accept"}), 409, "state_conflict")
    async with api.as_(one.vendor) as client:
        problem(
            await client.post(
                f"{VENDOR}/{one.id}/decision", content=b"{", headers={"content-type": "application/json"}
            ),
            422,
            "validation_failed",
        )

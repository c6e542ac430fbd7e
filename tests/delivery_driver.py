"""Drives deliveries in tests: agents, ready orders, and an agent's steps."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from tests.ads_driver import execute
from tests.api_driver import PASSWORD, Api, Person, created, new_email, ok
from tests.cart_shop import NOON
from tests.order_driver import Placed, asked_at, placed, put, step

AGENT = "/api/v1/agent"


async def appoint(api: Api) -> Person:
    """A new delivery agent, signed in."""
    email = new_email()
    body = {"email": email, "password": PASSWORD, "first_name": "Ed", "last_name": "Carrier"}
    user = created(await api.as_(await api.register_admin()).post("/api/admin/agents", json=body))
    session = ok(await api.http.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD}))
    return Person(email, user, {}, session["tokens"])


async def ready(api: Api, *quantities: int, now: datetime = NOON, **checkout: Any) -> Placed:
    """An order that was just made ready for dispatch."""
    one = await placed(api, *quantities, **checkout)
    await put(api, one.id, "accepted")
    await step(api, one.vendor, one.id, "fulfill", now=now)
    return one


async def carry(
    api: Api,
    agent: Person,
    order_id: str,
    action: str,
    body: Any = None,
    *,
    now: datetime = NOON,
    key: str | None = None,
) -> httpx.Response:
    """A request for an agent's step: assign, pickup, deliver, cash-collected."""
    async with api.as_(agent) as client:
        return await client.post(f"{AGENT}/orders/{order_id}/{action}", json=body, headers=asked_at(now, key))


async def brought(api: Api, agent: Person, order_id: str, *actions: str, now: datetime = NOON) -> dict[str, Any]:
    """The order behind steps that are possible, in their order."""
    for action in actions:
        order: dict[str, Any] = ok(await carry(api, agent, order_id, action, now=now))
    return order


async def seen_by(api: Api, agent: Person, path: str, **params: str) -> list[dict[str, Any]]:
    """A whole list of the agent's (orders, assignments), page after page of two."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        async with api.as_(agent) as client:
            answer = await client.get(f"{AGENT}/{path}", params={"limit": "2", **params, **cursor})
        found += ok(answer)
        if answer.json()["meta"]["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["meta"]["next_cursor"]}


async def assignments(api: Api, order_id: str) -> list[tuple[str, str, bool]]:
    """Agent, status and whether automatic, of all assignments that the order ever had."""
    rows = await execute(
        api,
        "SELECT agent_id, status, automatic FROM delivery_assignments WHERE order_id = :id ORDER BY id",
        id=UUID(order_id),
    )
    return [(str(row.agent_id), row.status, row.automatic) for row in rows]


async def on_shelf(api: Api, product: str) -> tuple[int, int]:
    """What is there of a product, and what of that is held."""
    (row,) = await execute(api, "SELECT on_hand, reserved FROM inventory WHERE product_id = :id", id=UUID(product))
    return row.on_hand, row.reserved

"""Drives money in tests: delivered orders, cash, payouts; and reads what the ledger has."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from models.database import new_id
from tests.ads_driver import at, execute
from tests.api_driver import Api, Person, ok
from tests.cart_shop import NOON
from tests.delivery_driver import brought, carry, ready
from tests.order_driver import Placed

PAYOUTS = "/api/admin/payouts"


async def delivered(api: Api, agent: Person, *quantities: int, **checkout: Any) -> Placed:
    """An order that the agent took and delivered, for an API that assigns none by itself."""
    one = await ready(api, *quantities, **checkout)
    await brought(api, agent, one.id, "assign", "pickup", "deliver")
    return one


async def collect(
    api: Api, agent: Person, one: Placed, *, amount_cents: int | None = None, now: datetime = NOON
) -> httpx.Response:
    """The agent says that it was given the order's total, or another amount."""
    amount = one.order["total_cents"] if amount_cents is None else amount_cents
    return await carry(api, agent, one.id, "cash-collected", {"amount_cents": amount}, now=now)


async def settled(api: Api, agent: Person, *quantities: int, now: datetime = NOON, **checkout: Any) -> Placed:
    """An order whose cash was collected."""
    one = await delivered(api, agent, *quantities, **checkout)
    ok(await collect(api, agent, one, now=now))
    return one


async def confirm(
    api: Api, admin: Person, order_id: str, *, key: str | None = None, now: datetime = NOON
) -> httpx.Response:
    return await act(api, admin, f"{PAYOUTS}/{order_id}/confirm", key=key, now=now)


async def settle_ach(
    api: Api, admin: Person, order_id: str, *, key: str | None = None, now: datetime = NOON
) -> httpx.Response:
    return await act(api, admin, f"/api/admin/orders/{order_id}/ach-settled", key=key, now=now)


async def act(api: Api, person: Person, path: str, *, key: str | None, now: datetime) -> httpx.Response:
    """A POST under a key of its own unless one is given."""
    headers = at(now) | {"idempotency-key": key or str(new_id())}
    async with api.as_(person) as client:
        return await client.post(path, headers=headers)


async def entries(api: Api, order_id: str) -> list[tuple[str, int, dict[str, int]]]:
    """Type, amount and postings of an order's events, in sequence."""
    rows = await execute(
        api,
        "SELECT e.type, e.amount_cents, jsonb_object_agg(p.account, p.amount_cents) AS postings FROM ledger_events e"
        " JOIN ledger_postings p ON p.event_id = e.id WHERE e.order_id = :id GROUP BY e.id ORDER BY e.sequence",
        id=UUID(order_id),
    )
    return [tuple(row) for row in rows]  # type: ignore[misc]

"""Drives orders through their life in tests, and reads what each step left in Postgres."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import httpx

from models.database import new_id
from models.notifications.rules import NotificationKind, text_of
from schemas.codec import decode
from tests.ads_driver import at, execute
from tests.api_driver import Api, Person, ok
from tests.cart_shop import NOON, open_shop, quote, stock
from tests.checkout_driver import check_out

BUYER, VENDOR = "/api/v1/orders", "/api/v1/vendor/orders"
ROUTES = {
    "cancel": BUYER,
    "nudge": BUYER,
    "retry": BUYER,
    "decision": VENDOR,
    "line-items/decision": VENDOR,
    "fulfill": VENDOR,
    "confirm-paid": VENDOR,
}
IN_STATUS = {
    "status": "CAST(:status AS text)",
    "decided_at": "CASE WHEN :status IN ('pending', 'canceled', 'expired') THEN NULL ELSE created_at END",
    "canceled_at": "CASE :status WHEN 'canceled' THEN created_at END",
    "expired_at": "CASE :status WHEN 'expired' THEN created_at END",
    "ready_at": "CASE WHEN :status IN ('ready_for_dispatch', 'in_transit', 'delivered', 'closed') THEN created_at END",
    "delivered_at": "CASE WHEN :status IN ('delivered', 'closed') THEN created_at END",
}


class Placed(NamedTuple):
    """An order of one vendor, fresh from checkout, and who it is between."""

    buyer: Person
    vendor: Person
    products: Sequence[str]
    order: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.order["id"])

    @property
    def lines(self) -> list[str]:
        return [line["id"] for line in self.order["line_items"]]


async def placed(api: Api, *quantities: int, shop: tuple[Person, Person] | None = None, **checkout: Any) -> Placed:
    """An order of as many products (at ten dollars), so many of each; of one piece of one product unless told."""
    vendor, buyer = shop or (await open_shop(api), await api.register("buyer"))
    wanted = quantities or (1,)
    products = [await stock(api, vendor) for _ in wanted]
    cart = await quote(api, buyer, *zip(products, wanted, strict=True))
    done = await check_out(api, buyer, cart, **checkout)
    return Placed(buyer, vendor, products, done["vendor_orders"][0])


async def ask(
    api: Api,
    person: Person,
    order_id: str,
    action: str,
    body: Any = None,
    *,
    now: datetime = NOON,
    key: str | None = None,
) -> httpx.Response:
    """A request for a step of an order's life."""
    async with api.as_(person) as client:
        return await client.post(f"{ROUTES[action]}/{order_id}/{action}", json=body, headers=asked_at(now, key))


def asked_at(now: datetime, key: str | None) -> dict[str, str]:
    """The headers of a request at a time, under a key if there is one."""
    return at(now) | ({"idempotency-key": key} if key else {})


async def step(api: Api, person: Person, order_id: str, action: str, body: Any = None, **more: Any) -> dict[str, Any]:
    """The order as a step that is possible leaves it."""
    order: dict[str, Any] = ok(await ask(api, person, order_id, action, body, **more))
    return order


async def read(api: Api, person: Person, order_id: str) -> dict[str, Any]:
    async with api.as_(person) as client:
        order: dict[str, Any] = ok(await client.get(f"{BUYER}/{order_id}"))
    return order


async def put(api: Api, order_id: str, status: str) -> None:
    """Let the order be in a status, and its lines as they are then, whatever led there; stock stays as it is."""
    changes = ", ".join(f"{name} = {value}" for name, value in IN_STATUS.items())
    await execute(api, f"UPDATE orders SET {changes} WHERE id = :id", id=UUID(order_id), status=status)
    line = {"pending": "pending", "canceled": "pending", "expired": "pending", "rejected": "rejected"}
    await execute(
        api,
        "UPDATE order_line_items SET status = :line WHERE order_id = :id",
        id=UUID(order_id),
        line=line.get(status, "accepted"),
    )


async def told(api: Api, order: dict[str, Any]) -> list[Any]:
    """The events of an order after its checkout, in order."""
    rows = await execute(
        api,
        "SELECT payload FROM outbox_events WHERE aggregatetype = 'orders' AND aggregateid = :group"
        " AND type <> 'checkout_converted' ORDER BY seq",
        group=order["checkout_group_id"],
    )
    events = [decode(row.payload) for row in rows]
    return [event for event in events if str(event.order.order_id) == order["id"]]  # type: ignore[attr-defined]


async def notices(api: Api, order: dict[str, Any]) -> list[tuple[str, str]]:
    """Which stores are to hear of what about an order: (store, kind), in order. Each text has all its values."""
    stores = [order["buyer_store_id"], order["vendor_store_id"]]
    rows = await execute(
        api,
        "SELECT payload FROM outbox_events WHERE type = 'notification_requested' AND aggregateid = ANY (:stores)"
        " ORDER BY seq",
        stores=stores,
    )
    events: list[Any] = [decode(row.payload) for row in rows]
    about = [one for one in events if str(one.subject_id) == order["id"]]
    for one in about:
        assert not re.search(r"\$[a-z]", " ".join(text_of(NotificationKind(one.kind), one.values))), one
    return [(str(one.store_id), one.kind) for one in about]


def new_key() -> str:
    return str(new_id())

"""Drives checkouts in tests, and reads what they left in Postgres."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx

from models.database import new_id
from schemas.codec import decode
from tests.ads_driver import at, execute
from tests.api_driver import ADDRESS, Api, Person, created
from tests.cart_shop import NOON

CHECKOUT = "/api/v1/checkout"
ORDERS = "/api/v1/orders"
SHIPPING = {"code": "van", "title": "Our van", "price_cents": 700}


async def post(
    api: Api, buyer: Person, cart_id: str, *, key: str | None = None, now: datetime = NOON, **changes: Any
) -> httpx.Response:
    """A checkout of a cart, under a key of its own unless one is given."""
    body = {"cart_id": cart_id, "shipping_address": ADDRESS, "payment_method": "cash"} | changes
    headers = {"idempotency-key": key or str(new_id())} | at(now)
    async with api.as_(buyer) as client:
        return await client.post(CHECKOUT, json=body, headers=headers)


async def check_out(api: Api, buyer: Person, cart: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What a first checkout of the cart gives."""
    done: dict[str, Any] = created(await post(api, buyer, cart["id"], **changes))
    return done


async def look(api: Api, person: Person, path: str = "", **params: str) -> httpx.Response:
    async with api.as_(person) as client:
        return await client.get(ORDERS + path, params=params, headers=at(NOON))


async def reserved(api: Api, *products: str) -> list[int]:
    """What is held of each product."""
    rows = await execute(
        api,
        "SELECT product_id, reserved FROM inventory WHERE product_id = ANY (:ids)",
        ids=[UUID(product) for product in products],
    )
    held = {str(row.product_id): row.reserved for row in rows}
    return [held[product] for product in products]


async def published(api: Api, cart: dict[str, Any]) -> list[Any]:
    """The events that the cart's checkout left in the outbox, typed."""
    rows = await execute(
        api,
        "SELECT payload FROM outbox_events WHERE type IN ('checkout_converted', 'notification_requested')"
        " AND aggregateid IN (SELECT unnest(ARRAY[checkout_group_id::text, buyer_store_id::text])"
        " FROM cart_records WHERE id = :cart) ORDER BY seq",
        cart=UUID(cart["id"]),
    )
    return [decode(row.payload) for row in rows]


async def left(api: Api, buyer: Person) -> dict[str, int]:
    """How many rows of each table the buyer has, and how many of its carts were converted."""
    store = UUID(buyer.store["id"])
    counts = {
        table: (await execute(api, f"SELECT count(*) FROM {table} WHERE buyer_store_id = :s", s=store))[0][0]
        for table in ("orders", "order_line_items", "payment_intents")
    }
    converted = "SELECT count(*) FROM cart_records WHERE buyer_store_id = :s AND status = 'converted'"
    events = (
        "SELECT count(*) FROM outbox_events WHERE aggregateid = :own OR aggregateid IN"
        " (SELECT checkout_group_id::text FROM cart_records WHERE buyer_store_id = :s)"
    )
    return counts | {
        "converted": (await execute(api, converted, s=store))[0][0],
        "events": (await execute(api, events, s=store, own=str(store)))[0][0],
    }

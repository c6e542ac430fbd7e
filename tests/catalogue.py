"""The catalogue in tests: vendors who may sell, their products, and what was written about them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from models.audit import AuditEntry
from models.database import new_id
from models.outbox import OutboxEvent
from models.stores import writes as stores
from models.stores.rules import KycStatus
from schemas.codec import decode
from tests.api_driver import ADDRESS, Api, Person, created, ok
from tests.media_bucket import as_owner

PRODUCTS = "/api/v1/vendor/products"
SHOP = "/api/v1/products"
INVENTORY = "/api/v1/inventory"
PROMOS = "/api/v1/vendor/promos"


def draft(**changes: Any) -> dict[str, Any]:
    """A body that POST /vendor/products takes."""
    body = {
        "sku": f"SKU-{new_id()}",
        "title": "Blue Dream",
        "category": "flower",
        "unit": "ounce",
        "price_cents": 12000,
    }
    return body | changes


def promo(**changes: Any) -> dict[str, Any]:
    """A body that POST /vendor/promos takes."""
    return {"code": "Spring10", "type": "percent", "value": 1000} | changes


async def set_standing(api: Api, person: Person, *, kyc: str = "verified", subscribed: bool = True) -> None:
    """What licences and Stripe's news of a subscription lead to."""
    store_id, now = UUID(person.store["id"]), datetime.now(UTC)
    async with as_owner(api) as tx:
        await stores.set_kyc(tx, store_id, KycStatus(kyc), actor="test", now=now)
        await stores.set_subscription(tx, store_id, subscribed, actor="test", now=now)


async def in_state(api: Api, kind: str, state: str) -> Person:
    """Someone with a store in a state."""
    store = {"name": f"Goods of {state}", "type": kind, "address": ADDRESS | {"state": state}}
    return await api.register(kind, store=store)


async def seller(api: Api, state: str = "OR") -> Person:
    """A vendor who may sell."""
    person = await in_state(api, "vendor", state)
    await set_standing(api, person)
    return person


async def product(api: Api, vendor: Person, **changes: Any) -> dict[str, Any]:
    """A product of the vendor."""
    made: dict[str, Any] = created(await api.as_(vendor).post(PRODUCTS, json=draft(**changes)))
    return made


async def stock(api: Api, vendor: Person, product_id: str, on_hand: int) -> dict[str, Any]:
    """What the vendor says is there."""
    answer = await api.as_(vendor).put(
        f"{INVENTORY}/{product_id}", json={"on_hand": on_hand}, headers={"Idempotency-Key": str(new_id())}
    )
    said: dict[str, Any] = ok(answer)
    return said


async def listing(api: Api, person: Person, path: str = SHOP, **params: Any) -> list[dict[str, Any]]:
    """A whole list, page after page; the last has no cursor."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query = params | ({"cursor": cursor} if cursor else {})
        answer = await api.as_(person).get(path, params=query)
        found += ok(answer)
        cursor = answer.json()["meta"]["next_cursor"]
        if cursor is None:
            return found


async def ids(api: Api, person: Person, path: str = SHOP, **params: Any) -> list[str]:
    return [one["id"] for one in await listing(api, person, path, **params)]


async def published(api: Api, product_id: str) -> list[Any]:
    """The events about a product, in order."""
    async with as_owner(api) as tx:
        query = select(OutboxEvent.payload).where(OutboxEvent.aggregateid == product_id).order_by(OutboxEvent.seq)
        return [decode(payload) for payload in await tx.scalars(query)]


async def audited(api: Api, object_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Actor, action and change of every entry about a product, its stock or a promo, in order."""
    async with as_owner(api) as tx:
        query = select(AuditEntry).where(AuditEntry.object_id == object_id).order_by(AuditEntry.id)
        return [(row.actor, row.action, row.change) for row in await tx.scalars(query)]


async def rows(api: Api, sql: str, **values: Any) -> Sequence[Any]:
    """Run a statement as the database's owner; its rows, if it has any."""
    async with as_owner(api) as tx:
        result = await tx.execute(text(sql), values)
        return result.all() if result.returns_rows else []

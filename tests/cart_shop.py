"""Drives carts in tests: vendors with products in stock, promos, and quotes of what buyers want."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx

from models.database import new_id
from tests import catalogue
from tests.ads_driver import at, execute, register_vendor
from tests.api_driver import Api, Person, created, ok

CART = "/api/v1/cart"
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


async def open_shop(api: Api, **store: Any) -> Person:
    """A vendor that may sell; `state` moves the store away from where buyers are (OR)."""
    return await register_vendor(api, **store)


async def stock(api: Api, vendor: Person, *, on_hand: int = 1_000, **changes: Any) -> str:
    """The id of a new product of the vendor, for ten dollars, in stock."""
    product_id = str((await catalogue.product(api, vendor, **({"price_cents": 1_000} | changes)))["id"])
    await catalogue.stock(api, vendor, product_id, on_hand)
    return product_id


async def promise(api: Api, vendor: Person, code: str = "TEN", **changes: Any) -> None:
    """A promo of the vendor: ten per cent off, always, unless `changes` says otherwise."""
    body = catalogue.promo(code=code, **changes)
    created(await api.as_(vendor).post(catalogue.PROMOS, json=body))


def wants(*products: str | tuple[str, int]) -> list[dict[str, Any]]:
    """Items of a quote; one of each unless a quantity is said."""
    pairs = [(one, 1) if isinstance(one, str) else one for one in products]
    return [{"product_id": product, "quantity": quantity} for product, quantity in pairs]


async def post(api: Api, buyer: Person, body: Any, *, key: str | None = None, now: datetime = NOON) -> httpx.Response:
    """A request for a quote, under a key of its own unless one is given."""
    headers = {"idempotency-key": key or str(new_id())} | at(now)
    async with api.as_(buyer) as client:
        return await client.post(CART, json=body, headers=headers)


async def quote(api: Api, buyer: Person, *items: Any, now: datetime = NOON, **more: Any) -> dict[str, Any]:
    """The cart that a quote makes."""
    cart: dict[str, Any] = ok(await post(api, buyer, {"items": wants(*items), **more}, now=now))
    return cart


async def look(api: Api, buyer: Person, *, now: datetime = NOON) -> httpx.Response:
    async with api.as_(buyer) as client:
        return await client.get(CART, headers=at(now))


def codes(level: dict[str, Any]) -> list[str]:
    """The codes of a line's, a group's or a cart's warnings."""
    assert all(warning.keys() == {"code", "message"} and warning["message"] for warning in level["warnings"])
    return [warning["code"] for warning in level["warnings"]]


async def set_product(api: Api, product_id: str, **columns: Any) -> None:
    """Change columns of a product as the database's owner."""
    changes = ", ".join(f"{name} = :{name}" for name in columns)
    await execute(api, f"UPDATE products SET {changes} WHERE id = :id", id=UUID(product_id), **columns)

"""Queries on carts."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from models.cart.rules import CartStatus
from models.cart.tables import CartRecord as CartRecord  # by this name for other areas too
from models.errors import NotFound

WHOLE = (selectinload(CartRecord.items), selectinload(CartRecord.vendor_groups))


async def active(tx: AsyncSession, *, buyer_store_id: UUID) -> CartRecord:
    """The store's active cart with its lines and groups. NotFound where there is none."""
    query = select(CartRecord).where(
        CartRecord.buyer_store_id == buyer_store_id, CartRecord.status == CartStatus.ACTIVE
    )
    return await _one(tx, query)


async def cart(tx: AsyncSession, cart_id: UUID, *, buyer_store_id: UUID, lock: bool = False) -> CartRecord:
    """One of the store's carts, of any status, with its lines and groups. NotFound for any other id.

    `lock` holds the row until the transaction ends; lines and groups are read after that, so they are those of the
    quote that is in force. `ok_items` says how many lines can be ordered.
    """
    query = select(CartRecord).where(CartRecord.id == cart_id, CartRecord.buyer_store_id == buyer_store_id)
    return await _one(tx, query.with_for_update() if lock else query)


async def _one(tx: AsyncSession, query: Select[CartRecord]) -> CartRecord:
    found = await tx.scalar(query.options(*WHOLE).execution_options(populate_existing=True))
    if found is None:
        raise NotFound("there is no such cart")
    return found

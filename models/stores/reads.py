"""Queries on stores."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import NotFound
from models.stores.tables import Store


async def store(tx: AsyncSession, store_id: UUID, *, lock: bool = False) -> Store:
    """NotFound for an unknown id; `lock` holds the row until the transaction ends.

    The lock lets rows be inserted that refer to the store, and does not wait for those who do: carts and orders hold
    a busy vendor's row all the time, and its licence could never expire.
    """
    found = await tx.get(Store, store_id, with_for_update={"key_share": True} if lock else None)
    if found is None:
        raise NotFound
    return found


async def lock_free(tx: AsyncSession, store_ids: Collection[UUID]) -> set[UUID]:
    """Lock those of the stores that nobody else has locked, as `store` does, without waiting."""
    query = select(Store.id).where(Store.id.in_(store_ids)).with_for_update(skip_locked=True, key_share=True)
    return set(await tx.scalars(query))


async def by_ids(tx: AsyncSession, store_ids: Collection[UUID]) -> dict[UUID, Store]:
    """Those of the stores that exist."""
    if not store_ids:
        return {}
    return {found.id: found for found in await tx.scalars(select(Store).where(Store.id.in_(store_ids)))}


class Standing(NamedTuple):
    """Where a store is and whether it may sell (and so advertise)."""

    state: str
    may_sell: bool


async def standings(tx: AsyncSession, store_ids: Collection[UUID]) -> dict[UUID, Standing]:
    """The standing of each of the stores that exists."""
    may_sell = func.store_may_sell(Store.kyc_status, Store.subscription_active)
    rows = await tx.execute(select(Store.id, Store.state, may_sell).where(Store.id.in_(store_ids)))
    return {store_id: Standing(state, sells) for store_id, state, sells in rows}


def state_of(store_id: str) -> str:
    """As a value in a statement: where the store of a parameter is."""
    return f"(SELECT state FROM stores WHERE id = {store_id})"


def selling_to(store_id: UUID) -> ColumnElement[Sequence[UUID]]:
    """As an array in a query: the vendors who may sell, in the store's own state."""
    state = select(Store.state).where(Store.id == store_id).scalar_subquery()
    return func.array(select(func.selling_vendors(state)).scalar_subquery(), type_=ARRAY(Uuid()))

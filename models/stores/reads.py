"""Queries on stores."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import NotFound
from models.stores.rules import KycStatus, may_sell
from models.stores.tables import Store


async def store(tx: AsyncSession, store_id: UUID, *, lock: bool = False) -> Store:
    """NotFound for an unknown id; `lock` holds the row until the transaction ends."""
    found = await tx.get(Store, store_id, with_for_update=lock or None)
    if found is None:
        raise NotFound
    return found


async def lock_free(tx: AsyncSession, store_ids: Collection[UUID]) -> set[UUID]:
    """Lock those of the stores that nobody else has locked, without waiting, until the transaction ends."""
    query = select(Store.id).where(Store.id.in_(store_ids)).with_for_update(skip_locked=True)
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
    columns = select(Store.id, Store.state, Store.kyc_status, Store.subscription_active)
    rows = await tx.execute(columns.where(Store.id.in_(store_ids)))
    return {
        row.id: Standing(row.state, may_sell(kyc_status=KycStatus(row.kyc_status), subscription_active=row[3]))
        for row in rows
    }

"""What other areas may know of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from models.stores.rules import KycStatus, may_sell
from models.stores.tables import Store


class Standing(NamedTuple):
    """Where a store is and whether it may sell (and so advertise)."""

    state: str
    may_sell: bool


async def standings(tx: AsyncSession, store_ids: Sequence[UUID]) -> dict[UUID, Standing]:
    """The standing of each of the stores that exists."""
    columns = select(Store.id, Store.state, Store.kyc_status, Store.subscription_active)
    rows = await tx.execute(columns.where(Store.id.in_(store_ids)))
    return {
        store_id: Standing(state, may_sell(kyc_status=KycStatus(kyc), subscription_active=subscribed))
        for store_id, state, kyc, subscribed in rows
    }

"""Queries on licences."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import NotFound
from models.licensing.rules import LicenseStatus
from models.licensing.tables import License

After = tuple[datetime, UUID]


async def of_store(tx: AsyncSession, store_id: UUID, *, limit: int, after: After | None) -> Sequence[License]:
    """The store's licences, newest first."""
    query = select(License).where(License.store_id == store_id)
    if after is not None:
        query = query.where(tuple_(License.created_at, License.id) < after)
    return (await tx.scalars(query.order_by(License.created_at.desc(), License.id.desc()).limit(limit))).all()


async def queue(
    tx: AsyncSession, *, status: LicenseStatus | None, limit: int, after: After | None
) -> Sequence[License]:
    """All stores' licences, oldest first: what admins work through."""
    query = select(License)
    if status is not None:
        query = query.where(License.status == status)
    if after is not None:
        query = query.where(tuple_(License.created_at, License.id) > after)
    return (await tx.scalars(query.order_by(License.created_at, License.id).limit(limit))).all()


async def license_of(tx: AsyncSession, license_id: UUID, *, store_id: UUID | None, lock: bool = False) -> License:
    """One licence, of the store when one is given. Raises NotFound."""
    query = select(License).where(License.id == license_id)
    if store_id is not None:
        query = query.where(License.store_id == store_id)
    found = await tx.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound("there is no such licence")
    return found


async def statuses(tx: AsyncSession, store_id: UUID) -> list[LicenseStatus]:
    """Of all the store's licences."""
    rows = await tx.scalars(select(License.status).where(License.store_id == store_id))
    return [LicenseStatus(status) for status in rows]

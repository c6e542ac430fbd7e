"""Queries on drafts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.drafts.tables import ProductDraft
from models.errors import NotFound


async def draft_of(tx: AsyncSession, draft_id: UUID, *, store_id: UUID) -> ProductDraft:
    """The store's draft; NotFound for anybody else's."""
    found = await tx.scalar(select(ProductDraft).where(ProductDraft.id == draft_id, ProductDraft.store_id == store_id))
    if found is None:
        raise NotFound("there is no such draft")
    return found


async def drafts_of(
    tx: AsyncSession, store_id: UUID, *, limit: int, after: tuple[datetime, UUID] | None
) -> Sequence[ProductDraft]:
    """The store's drafts, newest first, from behind `after` (created_at, id) on."""
    query = select(ProductDraft).where(ProductDraft.store_id == store_id)
    if after is not None:
        query = query.where(tuple_(ProductDraft.created_at, ProductDraft.id) < after)
    return (await tx.scalars(query.order_by(ProductDraft.created_at.desc(), ProductDraft.id.desc()).limit(limit))).all()

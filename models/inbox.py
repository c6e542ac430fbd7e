"""The inbox: a row in the effect's own transaction says that an event's effect has happened."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import Text, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class InboxEntry(Base):
    __tablename__ = "inbox"

    consumer: Mapped[str] = mapped_column(Text, primary_key=True)
    event_id: Mapped[UUID] = mapped_column(primary_key=True)
    received_at: Mapped[datetime]


async def first_time(tx: AsyncSession, consumer: str, event_id: UUID, *, wall: datetime) -> bool:
    """Whether `consumer` meets the event for the first time; the mark commits with the caller's effect."""
    statement = insert(InboxEntry).values(consumer=consumer, event_id=event_id, received_at=wall)
    done = await tx.execute(statement.on_conflict_do_nothing().returning(InboxEntry.event_id))
    return done.first() is not None


async def is_known(tx: AsyncSession, consumer: str, event_id: UUID) -> bool:
    """Whether the event's effect has happened already; leaves no mark."""
    query = select(InboxEntry.event_id).where(InboxEntry.consumer == consumer, InboxEntry.event_id == event_id)
    return await tx.scalar(query) is not None


async def known(tx: AsyncSession, consumer: str, event_ids: Collection[UUID]) -> set[UUID]:
    """Of these events, those whose effect has happened already."""
    query = select(InboxEntry.event_id).where(InboxEntry.consumer == consumer, InboxEntry.event_id.in_(event_ids))
    return set(await tx.scalars(query))


async def mark(tx: AsyncSession, consumer: str, event_ids: Collection[UUID], *, wall: datetime) -> None:
    """The effects of these events have happened."""
    rows = [{"consumer": consumer, "event_id": event_id, "received_at": wall} for event_id in sorted(event_ids)]
    if rows:
        await tx.execute(insert(InboxEntry).on_conflict_do_nothing(), rows)

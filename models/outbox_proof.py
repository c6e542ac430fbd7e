"""Which events are committed, as Postgres knows it: what everything downstream has to have."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from models.dead_letters import RELAY, DeadLetter, DeadLetterStatus
from models.outbox import OutboxArchive, OutboxEvent

# Transactions under way may still commit events that are older than others.
OLDEST_UNDER_WAY = text(
    "SELECT min(xact_start) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Committed(NamedTuple):
    """An event that was committed and published, with the wall time of its row."""

    event_id: UUID
    created_at: datetime


async def settled_until(tx: AsyncSession, aggregatetype: str, *, wall: datetime) -> datetime:
    """No event from before this time is still to be committed or published."""
    under_way = await tx.scalar(OLDEST_UNDER_WAY)
    waiting = await tx.scalar(
        select(func.min(OutboxEvent.created_at)).where(OutboxEvent.aggregatetype == aggregatetype)
    )
    return min(time for time in (wall, under_way, waiting) if time is not None)


async def published(tx: AsyncSession, aggregatetype: str, *, before: datetime) -> list[Committed]:
    """The events from before a time that the archive has (30 days), the oldest first."""
    query = (
        select(OutboxArchive.id, OutboxArchive.created_at)
        .where(OutboxArchive.aggregatetype == aggregatetype, OutboxArchive.created_at < before)
        .order_by(OutboxArchive.created_at)
    )
    return [Committed(*row) for row in await tx.execute(query)]


async def parked(tx: AsyncSession, topic: str) -> int:
    """Committed events that the broker refused, and that wait as dead letters."""
    query = select(func.count()).where(DeadLetter.source == RELAY, DeadLetter.topic == topic)
    return await tx.scalar(query.where(DeadLetter.status == DeadLetterStatus.PARKED)) or 0


async def lettered(tx: AsyncSession, source: str, topic: str) -> set[UUID]:
    """Events that an agent could not take and that are its dead letters, or were."""
    query = select(DeadLetter.event_id).where(DeadLetter.source == source, DeadLetter.topic == topic)
    found = await tx.scalars(query.where(DeadLetter.status != DeadLetterStatus.REPLAYED))
    return {event_id for event_id in found if event_id is not None}

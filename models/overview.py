"""The state of the streams as the tables show it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import positions
from models.ads import overview as ads
from models.dead_letters import DeadLetter, DeadLetterStatus
from models.notifications import reads as notifications
from models.outbox import OutboxEvent, OutboxFailure


async def read(tx: AsyncSession, *, now: datetime, wall: datetime) -> dict[str, Any]:
    """Everything that the operators' first page shows."""
    return {
        "now": now,
        "relay": await _relay(tx, wall=wall),
        "agents": await positions.agents(tx),
        "dead_letters": await _dead_letters(tx),
        "emails": await notifications.deliveries_by_status(tx),
        "gate": await ads.gate(tx),
        "days": await ads.days(tx),
        "reconciliation": await ads.newest_report(tx),
    }


async def _relay(tx: AsyncSession, *, wall: datetime) -> dict[str, int]:
    pending, oldest = (await tx.execute(select(func.count(), func.min(OutboxEvent.created_at)))).one()
    parked = select(func.count(func.distinct(OutboxFailure.aggregatetype + "/" + OutboxFailure.aggregateid)))
    oldest_ms = max(0, int((wall - oldest).total_seconds() * 1000)) if oldest else 0
    return {"pending": pending, "oldest_ms": oldest_ms, "parked_aggregates": await tx.scalar(parked) or 0}


async def _dead_letters(tx: AsyncSession) -> dict[str, int]:
    statement = select(DeadLetter.status, func.count()).group_by(DeadLetter.status)
    counted = {row.status: row[1] for row in await tx.execute(statement)}
    return {status.value: counted.get(status.value, 0) for status in DeadLetterStatus}

"""The state of the gate and of the day closures, for operators."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.ads.tables import AdDay, AdDayClosure, AdGateEpoch, AdShard

DAYS_MAX = 14


async def gate(tx: AsyncSession) -> list[dict[str, Any]]:
    """Each shard's epoch and the time up to which it is ticked."""
    statement = (
        select(AdGateEpoch.shard, AdGateEpoch.state, AdGateEpoch.opened_at, AdGateEpoch.lost_at, AdShard.ticked_until)
        .outerjoin(AdShard, AdShard.shard == AdGateEpoch.shard)
        .order_by(AdGateEpoch.shard)
    )
    return [dict(row._mapping) for row in await tx.execute(statement)]


async def newest_report(tx: AsyncSession) -> dict[str, Any] | None:
    """What the newest reconciled day came to, without its details."""
    statement = select(AdDay).where(AdDay.reconciliation.is_not(None)).order_by(AdDay.day.desc()).limit(1)
    day = await tx.scalar(statement)
    if day is None or day.reconciliation is None:
        return None
    report = day.reconciliation
    return {
        "day": day.day,
        "ok": report["ok"],
        "closed": report["closed"],
        "differences": len(report["differences"]),
        "reconciled_at": day.reconciled_at,
    }


async def days(tx: AsyncSession) -> list[dict[str, Any]]:
    """The newest days that any shard has closed."""
    closed = func.count(AdDayClosure.shard).label("shards_closed")
    statement = (
        select(AdDay.day, closed, AdDay.charged_at, AdDay.reconciled_at)
        .outerjoin(AdDayClosure, AdDayClosure.day == AdDay.day)
        .group_by(AdDay.day)
        .order_by(AdDay.day.desc())
        .limit(DAYS_MAX)
    )
    return [dict(row._mapping) for row in await tx.execute(statement)]

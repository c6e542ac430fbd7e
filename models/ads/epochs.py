"""The gate's epochs in Postgres: written before Redis, changed only by whoever knows what is there."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.ads.tables import AdGateEpoch


async def read(tx: AsyncSession, shard: int) -> AdGateEpoch | None:
    """The shard's epoch, if it ever had one."""
    return await tx.get(AdGateEpoch, shard, populate_existing=True)


async def create(tx: AsyncSession, shard: int, *, epoch: UUID, run_id: str, now: datetime) -> bool:
    """The first epoch of a brand-new system; False when there is one already."""
    values = {"shard": shard, "epoch": epoch, "run_id": run_id, "state": "open", "opened_at": now}
    made = await tx.execute(insert(AdGateEpoch).values(values).on_conflict_do_nothing().returning(AdGateEpoch.shard))
    return made.first() is not None


async def mark_lost(tx: AsyncSession, shard: int, *, epoch: UUID, now: datetime) -> bool:
    """Redis has lost `epoch`; False when somebody else has moved on already."""
    statement = (
        update(AdGateEpoch)
        .where(AdGateEpoch.shard == shard, AdGateEpoch.epoch == epoch, AdGateEpoch.state == "open")
        .values(state="lost", lost_at=now)
    )
    return (await tx.execute(statement.returning(AdGateEpoch.shard))).first() is not None


async def reopen(
    tx: AsyncSession, shard: int, *, lost_epoch: UUID, lost_at: datetime, epoch: UUID, run_id: str, now: datetime
) -> bool:
    """Replace exactly the loss that the caller has waited for; False when there was another since."""
    statement = (
        update(AdGateEpoch)
        .where(AdGateEpoch.shard == shard, AdGateEpoch.epoch == lost_epoch, AdGateEpoch.lost_at == lost_at)
        .values(state="open", epoch=epoch, run_id=run_id, lost_at=None, opened_at=now)
    )
    return (await tx.execute(statement.returning(AdGateEpoch.shard))).first() is not None

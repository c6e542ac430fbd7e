"""The engine's frozen facts and its heartbeat: the number of shards, and the ticks that the watermark is made of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.ads.tables import AdShard
from models.clock import MICROSECOND, Clock
from models.database import new_id
from models.errors import Conflict
from schemas.records import AdEvents
from schemas.registry import EVENTS

AGGREGATE: Final = EVENTS["ad_events"].aggregatetype
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FREEZE_LOCK: Final = "freeze"  #: no shard has this name


class ShardsFrozen(Conflict):
    """AD_SHARDS differs from what the engine was first started with."""

    code, title = "ad_shards_frozen", "AD_SHARDS is frozen"


async def freeze_shards(tx: AsyncSession, shards: int) -> None:
    """Make the engine's shards at its first start. Raises ShardsFrozen when it has another number of them.

    Every process of the engine calls it before it does anything: an event's shard follows from this number.
    """
    if await _count(tx) == 0:
        await outbox.lock_aggregate(tx, AGGREGATE, FREEZE_LOCK)
        if await _count(tx) == 0:
            await tx.execute(insert(AdShard).values([{"shard": shard} for shard in range(shards)]))
    await shards_frozen(tx, shards)


async def shards_frozen(tx: AsyncSession, shards: int) -> bool:
    """Whether the engine was ever started. Raises ShardsFrozen when that was with another number of shards."""
    frozen = await _count(tx)
    if frozen not in (0, shards):
        raise ShardsFrozen(f"AD_SHARDS is frozen at {frozen} since the engine's first start; {shards} is refused")
    return frozen > 0


async def _count(tx: AsyncSession) -> int:
    return (await tx.execute(select(func.count()).select_from(AdShard))).scalar_one()


async def tick(tx: AsyncSession, shard: int, clock: Clock, *, follow: bool, actor: str) -> datetime:
    """Say that no event of the shard with exp + skew at or before now comes any more; returns that time.

    The shard's lock is held exclusively from before the clock is read (`follow`: the shared logical clock) until
    the caller commits; the collector holds it shared while it reads the last tick and inserts. So each of its
    batches is either before the tick in the outbox, or has seen it. Ticks never go back.
    """
    await outbox.lock_aggregate(tx, AGGREGATE, str(shard))
    if follow:
        await clock.refresh(tx)
    later = func.greatest(AdShard.ticked_until, clock.now())
    statement = update(AdShard).where(AdShard.shard == shard).values(ticked_until=later)
    until = (await tx.execute(statement.returning(AdShard.ticked_until))).scalar_one()
    assert until is not None, "greatest() of a time and null is the time"
    tick_us = (until - EPOCH) // MICROSECOND
    record = AdEvents(event_id=new_id(), occurred_at=until, actor=actor, shard=shard, tick_us=tick_us)
    await outbox.append_locked(tx, [record])
    return until

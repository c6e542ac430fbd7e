"""Keeps the gates of owned shards in step with Redis: opens, notices losses, seeds and opens again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from models.ads import epochs
from models.ads.gateway import CounterSink, DayCounters, GateMark
from models.database import SessionFactory, new_id
from streams.gate import GateRecord, GateStep, next_step
from streams.watermarks import Grace

log = structlog.get_logger(__name__)

SEED_ADS: Final = 2_000  #: counters in one Lua call while seeding
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

AllDays = Callable[[], Iterator[DayCounters]]
"""Every counter of a shard, from the table."""


class GateKeeper:
    """One shard's gate, for as long as this worker owns the shard."""

    def __init__(
        self, shard: int, *, sink: CounterSink, sessions: SessionFactory, grace: Grace, now: Callable[[], datetime]
    ) -> None:
        self.shard = shard
        self._sink, self._sessions, self._grace, self._now = sink, sessions, grace, now
        self._record: GateRecord | None = None
        self._read = False

    async def follow(self, mark: GateMark, *, watermark_us: int, days: AllDays) -> None:
        """Act on what the gate said when it was published to. Raises Unavailable or a database error: call again."""
        if not self._read:
            await self._read_record()
        step = next_step(
            self._record,
            epoch=mark.epoch,
            run_id=mark.run_id,
            server_run_id=mark.server_run_id,
            watermark=EPOCH + timedelta(microseconds=watermark_us),
            grace=self._grace,
        )
        if step is GateStep.MARK_LOST:
            await self._mark_lost(mark)
        elif step is not GateStep.NOTHING:
            await self._open(mark, watermark_us, days)

    async def _read_record(self) -> None:
        async with self._sessions() as tx:
            row = await epochs.read(tx, self.shard)
        self._record = None if row is None else GateRecord(row.epoch, row.run_id, row.lost_at)
        self._read = True

    async def _mark_lost(self, mark: GateMark) -> None:
        assert self._record is not None
        log.error("gate_lost", shard=self.shard, epoch=str(self._record.epoch), found=mark.epoch)
        async with self._sessions.begin() as tx:
            await epochs.mark_lost(tx, self.shard, epoch=self._record.epoch, now=self._now())
        self._read = False

    async def _open(self, mark: GateMark, watermark_us: int, days: AllDays) -> None:
        """Seed all counters, note the new epoch in Postgres, then open in Redis if it has lost nothing meanwhile."""
        epoch, seeding = new_id(), str(new_id())
        if not await self._sink.begin_seeding(self.shard, seeding, seen=mark.epoch):
            self._read = False  # another owner of the shard was quicker
            return
        for chunk in batched_days(days()):
            await self._sink.publish(self.shard, watermark_us=None, ticked=False, days=chunk)
        answer = await self._sink.publish(self.shard, watermark_us=watermark_us, ticked=True, days=())
        if answer.server_run_id != mark.server_run_id or not await self._note(epoch, answer.server_run_id):
            self._read = False
            return
        opened = await self._sink.open(self.shard, mark=seeding, epoch=epoch)
        log.info("gate_opened" if opened else "gate_lost_while_seeding", shard=self.shard, epoch=str(epoch))
        self._read = False

    async def _note(self, epoch: UUID, run_id: str) -> bool:
        async with self._sessions.begin() as tx:
            if self._record is None:
                return await epochs.create(tx, self.shard, epoch=epoch, run_id=run_id, now=self._now())
            assert self._record.lost_at is not None
            return await epochs.reopen(
                tx,
                self.shard,
                lost_epoch=self._record.epoch,
                lost_at=self._record.lost_at,
                epoch=epoch,
                run_id=run_id,
                now=self._now(),
            )


def batched_days(days: Iterator[DayCounters]) -> Iterator[list[DayCounters]]:
    """In lists that no Lua call holds Redis long for."""
    chunk: list[DayCounters] = []
    for day in days:
        chunk.append(day)
        if len(chunk) == SEED_ADS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk

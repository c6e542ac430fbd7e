"""The logical clock: wall time in production; in dev and test an offset that every process follows.

Postgres holds one row: business time is ``max(floor_at, wall + offset_us)``. It only moves forward.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import CheckConstraint, SmallInteger, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base, Driver, send
from models.errors import Conflict

MICROSECOND = timedelta(microseconds=1)


class LogicalClock(Base):
    __tablename__ = "logical_clock"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    offset_us: Mapped[int] = mapped_column(default=0)
    floor_at: Mapped[datetime | None]


class Clock:
    """One process's view of the logical clock. `now()` never goes back."""

    def __init__(self, offset: timedelta = timedelta(0), floor_at: datetime | None = None) -> None:
        self._offset = offset
        self._last = floor_at or datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        """Business time, aware, in UTC."""
        now = datetime.now(UTC) + self._offset
        if now < self._last:
            return self._last
        self._last = now
        return now

    def follow(self, offset: timedelta, floor_at: datetime | None) -> None:
        """Take over what Postgres says."""
        self._offset = offset
        if floor_at is not None and floor_at > self._last:
            self._last = floor_at

    async def refresh(self, tx: AsyncSession | Driver) -> None:
        """Read the shared row. Call it every 0.2 s or faster in dev and test; not at all in production."""
        for offset_us, floor_at in await send(tx, "SELECT offset_us, floor_at FROM logical_clock"):
            self.follow(offset_us * MICROSECOND, floor_at)


async def set_clock(tx: AsyncSession, now: datetime | None, *, wall: datetime) -> datetime:
    """Move the logical clock to `now`, or (None) back to the wall clock once that is later.

    Returns the logical time in force. Raises Conflict when `now` lies before it.
    """
    row = (await tx.execute(select(LogicalClock).where(LogicalClock.id == 1).with_for_update())).scalar_one_or_none()
    if row is None:
        row = LogicalClock(id=1, offset_us=0, floor_at=None)
        tx.add(row)
    current = wall + row.offset_us * MICROSECOND
    if row.floor_at is not None:
        current = max(current, row.floor_at)
    if now is not None and now < current:
        raise Conflict(f"the logical clock is at {current.isoformat()} and only moves forward")
    target = current if now is None else now
    row.offset_us = 0 if now is None else (now - wall) // MICROSECOND
    row.floor_at = target
    return target


async def logical_now(tx: AsyncSession, *, follow: bool) -> datetime:
    """Business time by Postgres's clock, the one that all hosts share (`follow`: with the logical clock's offset).

    For what must not happen early, though the clock of the process that does it may be wrong.
    """
    wall: datetime = (await tx.execute(select(func.clock_timestamp()))).scalar_one()
    row = await tx.get(LogicalClock, 1, populate_existing=True) if follow else None
    if row is None:
        return wall
    now = wall + row.offset_us * MICROSECOND
    return now if row.floor_at is None else max(now, row.floor_at)

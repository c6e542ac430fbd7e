"""The archive's partitions, one a day (UTC, by the wall clock of publishing)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

KEPT_DAYS: Final = 30
AHEAD_DAYS: Final = 3
REST: Final = "outbox_archive_rest"  #: the default partition: rows of days without one
DAY_NAME: Final = re.compile(r"outbox_archive_(\d{8})")

_CHILDREN = text(
    "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
    " WHERE i.inhparent = 'outbox_archive'::regclass"
)


def name_of(day: date) -> str:
    return f"outbox_archive_{day:%Y%m%d}"


async def days(tx: AsyncSession) -> list[date]:
    """Days that have a partition."""
    names = (await tx.execute(_CHILDREN)).scalars()
    found = (DAY_NAME.fullmatch(name) for name in names)
    return sorted(date.fromisoformat(match[1]) for match in found if match)


async def create(tx: AsyncSession, day: date) -> None:
    """Make a day's partition. What the default one has of that day moves, so that it can be attached."""
    name = name_of(day)
    start = datetime.combine(day, time(), UTC)
    bounds = {"start": start, "end": start + timedelta(days=1)}
    literals = {key: value.isoformat() for key, value in bounds.items()}
    await tx.execute(text(f"LOCK TABLE {REST} IN ACCESS EXCLUSIVE MODE"))
    await tx.execute(text(f"CREATE TABLE {name} (LIKE outbox_archive INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"))
    moved = f"DELETE FROM {REST} WHERE published_at >= :start AND published_at < :end RETURNING *"
    await tx.execute(text(f"WITH moved AS ({moved}) INSERT INTO {name} SELECT * FROM moved"), bounds)
    await tx.execute(
        text(
            f"ALTER TABLE outbox_archive ATTACH PARTITION {name}"
            f" FOR VALUES FROM ('{literals['start']}') TO ('{literals['end']}')"
        )
    )


async def drop(tx: AsyncSession, day: date) -> None:
    """Drop a day's partition with what it holds."""
    await tx.execute(text(f"DROP TABLE {name_of(day)}"))


def to_create(existing: list[date], today: date) -> list[date]:
    """The days from today on that need a partition."""
    wanted = [today + timedelta(days=ahead) for ahead in range(AHEAD_DAYS + 1)]
    return [day for day in wanted if day not in existing]


def to_drop(existing: list[date], today: date) -> list[date]:
    """The days whose last row is older than KEPT_DAYS."""
    return [day for day in existing if day < today - timedelta(days=KEPT_DAYS)]


async def prune_rest(tx: AsyncSession, *, wall: datetime) -> None:
    """Delete what the default partition holds longer than KEPT_DAYS."""
    before = wall - timedelta(days=KEPT_DAYS)
    await tx.execute(text(f"DELETE FROM {REST} WHERE published_at < :before"), {"before": before})

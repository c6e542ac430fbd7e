"""The logical clock of the system that a fake stands beside: as Postgres has it, else the wall clock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

QUERY = "SELECT offset_us, floor_at FROM logical_clock WHERE id = 1"
TIMEOUT_S = 1.0
PAUSE = timedelta(seconds=1)


class BusinessClock:
    """Asks at every call. `url` is libpq's; None, or a database that is away: what it said last, from there on."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._connection: asyncpg.Connection[Any] | None = None
        self._lock = asyncio.Lock()
        self._offset, self._floor = timedelta(0), datetime.min.replace(tzinfo=UTC)
        self._not_before = self._floor

    async def now(self) -> datetime:
        wall = datetime.now(UTC)
        if self._url is not None and wall >= self._not_before:
            async with self._lock:
                await self._ask(wall)
        return max(self._floor, wall + self._offset)

    async def _ask(self, wall: datetime) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._url, timeout=TIMEOUT_S)
                row = await self._connection.fetchrow(QUERY)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            self._not_before = wall + PAUSE
            return
        if row is not None:
            self._offset = timedelta(microseconds=row["offset_us"])
            self._floor = row["floor_at"] or self._floor

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close(timeout=TIMEOUT_S)

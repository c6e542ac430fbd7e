"""Sealing days: what was booked on them can be proved later, and nothing can be booked on them any more."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from models.ledger.journal import SEALING
from models.ledger.rules import DAY, GENESIS, seal_digest
from models.ledger.tables import LedgerEvent, LedgerSeal

NOTHING: Final = hashlib.sha256().digest()
_CLOSE: Final = text(f"SELECT pg_advisory_xact_lock({SEALING})")
_BOOKED: Final = text(
    "SELECT day, count(*) AS events, sha256(string_agg(hash, ''::bytea ORDER BY order_id, sequence)) AS events_hash"
    " FROM ledger_events WHERE day BETWEEN :first AND :last GROUP BY day"
)


class Days(NamedTuple):
    """From `first` to `last`, both included."""

    first: date
    last: date


async def seal_days(tx: AsyncSession, *, limit: int, now: datetime, skew_s: int) -> int:
    """Seal the days that are over, by `now` less `skew_s`: the oldest first, at most `limit`; how many.

    The first day is that of the first event. Waits for appends that are under way, and new ones wait for it.
    """
    if await _due(tx, now - timedelta(seconds=skew_s)) is None:
        return 0
    await tx.execute(_CLOSE)
    due = await _due(tx, now - timedelta(seconds=skew_s))
    if due is None:
        return 0
    seals = await _seals(tx, Days(due.first, min(due.last, due.first + (limit - 1) * DAY)), now=now)
    await tx.execute(insert(LedgerSeal), seals)
    return len(seals)


async def _due(tx: AsyncSession, now: datetime) -> Days | None:
    newest = await tx.scalar(select(func.max(LedgerSeal.day)))
    first = newest + DAY if newest is not None else await tx.scalar(select(func.min(LedgerEvent.day)))
    last = now.astimezone(UTC).date() - DAY
    return None if first is None or first > last else Days(first, last)


async def _seals(tx: AsyncSession, days: Days, *, now: datetime) -> list[dict[str, object]]:
    booked = {row.day: row for row in await tx.execute(_BOOKED, days._asdict())}
    newest = await tx.scalar(select(LedgerSeal.hash).order_by(LedgerSeal.day.desc()).limit(1))
    prev_hash, seals = newest or GENESIS, []
    for number in range((days.last - days.first).days + 1):
        day = days.first + number * DAY
        events, events_hash = (booked[day].events, booked[day].events_hash) if day in booked else (0, NOTHING)
        hash_ = seal_digest(day, events, events_hash, prev_hash, now)
        seal = {"day": day, "events": events, "events_hash": events_hash, "prev_hash": prev_hash, "hash": hash_}
        seals.append(seal | {"sealed_at": now})
        prev_hash = hash_
    return seals

"""Days of the ledger that are over: sealed."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from models.ledger import sealing

DAYS_A_STEP: Final = 31  #: few, because ticks wait meanwhile; the rest is for the next turn
TURN_S: Final = 10.0
TURN_BY_TEST_CLOCK_S: Final = 0.5  #: where the logical clock may jump

log = structlog.get_logger(__name__)


async def seal_ledger(tx: AsyncSession, *, now: datetime, skew_s: int) -> int:
    """Seal what is due, a bounded number of days; how many. The caller commits."""
    days = await sealing.seal_days(tx, limit=DAYS_A_STEP, now=now, skew_s=skew_s)
    if days:
        log.info("ledger_days_sealed", days=days)
    return days

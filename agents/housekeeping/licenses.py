"""Licences by the calendar: announce their end, expire them, and delete them for good a month later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from models.licensing import writes

ACTOR: Final = "housekeeping"
LICENSES_A_STEP: Final = 20  #: few, because ticks wait meanwhile; the rest is for the next turn
TURN_S: Final = 5.0
TURN_BY_TEST_CLOCK_S: Final = 0.25  #: where the logical clock may jump

log = structlog.get_logger(__name__)

Step = Callable[..., Awaitable[int]]
STEPS: Final[tuple[Step, ...]] = (writes.warn_due, writes.expire_due, writes.delete_due)


async def keep_licenses(tx: AsyncSession, *, now: datetime) -> int:
    """Do what is due, a bounded number of licences of each kind; how many. The caller commits."""
    done = {step.__name__: await step(tx, limit=LICENSES_A_STEP, actor=ACTOR, now=now) for step in STEPS}
    if any(done.values()):
        log.info("licenses_kept", **done)
    return sum(done.values())

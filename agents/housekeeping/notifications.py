"""Notifications and e-mails that are old enough to be forgotten."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from models.notifications import deliveries, writes

ROWS_A_STEP: Final = 500  #: few, because ticks wait meanwhile; the rest is for the next turn
TURN_S: Final = 10.0
TURN_BY_TEST_CLOCK_S: Final = 0.5  #: where the logical clock may jump

log = structlog.get_logger(__name__)


async def forget_notifications(tx: AsyncSession, *, now: datetime, wall: datetime) -> int:
    """Delete what is due, a bounded number; how many. The caller commits."""
    notifications = await writes.forget(tx, limit=ROWS_A_STEP, now=now)
    emails = await deliveries.forget(tx, limit=ROWS_A_STEP, wall=wall)
    if notifications or emails:
        log.info("notifications_forgotten", notifications=notifications, emails=emails)
    return notifications + emails

"""The `notifications` agent: a requested notification becomes a row of its store, a requested e-mail one to be sent.

Sending is the mailer's (mailer.py): it does not depend on partitions, and it goes on after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

from sqlalchemy.ext.asyncio import AsyncSession

from agents.runtime.effects import Handler
from models.notifications import deliveries, writes
from schemas.records import EmailRequested, NotificationRequested


def handlers(now: Callable[[], datetime]) -> Mapping[str, Handler]:
    """What the agent does, by event type."""
    return {"notification_requested": partial(tell, now=now), "email_requested": queue}


async def tell(tx: AsyncSession, event: NotificationRequested, *, now: Callable[[], datetime]) -> None:
    """A notification for the store, and requests for e-mails where its kind has them."""
    await writes.tell(tx, event, now=now())


async def queue(tx: AsyncSession, event: EmailRequested) -> None:
    """A delivery that the mailer takes up."""
    await deliveries.queue(tx, event, wall=datetime.now(UTC))

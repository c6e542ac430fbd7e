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
from models.notifications.rules import NotificationKind, dollars
from models.orders import reads as orders
from models.orders.reads import Order
from schemas.records import EmailRequested, NotificationRequested


def handlers(now: Callable[[], datetime]) -> Mapping[str, Handler]:
    """What the agent does, by event type."""
    return {"notification_requested": partial(tell, now=now), "email_requested": queue}


async def tell(tx: AsyncSession, event: NotificationRequested, *, now: Callable[[], datetime]) -> None:
    """A notification for the store, and requests for e-mails where its kind has them.

    A checkout asks once, for the buyer, naming the group: each vendor of the group hears of its order too.
    """
    await writes.tell(tx, event, now=now())
    if event.kind == NotificationKind.CHECKOUT and event.subject_id is not None:
        for order in await orders.group(tx, event.subject_id):
            await writes.tell(tx, _placed(order, event), now=now())


def _placed(order: Order, checkout: NotificationRequested) -> NotificationRequested:
    """What the vendor hears. Its id is the order's, which is placed once."""
    return NotificationRequested(
        event_id=order.id,
        occurred_at=checkout.occurred_at,
        actor=checkout.actor,
        store_id=order.vendor_store_id,
        kind=NotificationKind.ORDER_PLACED,
        subject_id=order.id,
        values={"number": order.number, "order_id": str(order.id), "total": dollars(order.total_cents)},
    )


async def queue(tx: AsyncSession, event: EmailRequested) -> None:
    """A delivery that the mailer takes up."""
    await deliveries.queue(tx, event, wall=datetime.now(UTC))

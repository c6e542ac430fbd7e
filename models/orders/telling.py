"""What a change of orders tells: its events, and the notifications of both stores, in the caller's transaction.

Whoever changes several orders tells of all of them at once: aggregates are locked in one order, orders before stores,
and after that no row is locked any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.database import new_id
from models.notifications import writes as notifications
from models.notifications.rules import NotificationKind, dollars
from models.orders.snapshots import snapshot
from models.orders.tables import Order
from schemas.records import Record
from schemas.registry import EVENTS


class Notice(NamedTuple):
    """What a store is to hear of an order; `values` are more than its number, id and total."""

    store_id: UUID
    kind: NotificationKind
    order: Order
    values: Mapping[str, str] = {}


def about(order: Order, *, actor: str, now: datetime) -> dict[str, Any]:
    """What every event of an order has: `OrderCanceled(**about(order, actor=actor, now=now), reason=…)`."""
    return {
        "event_id": new_id(),
        "occurred_at": now,
        "actor": actor,
        "checkout_group_id": order.checkout_group_id,
        "order": snapshot(order),
    }


def to_buyer(order: Order, kind: NotificationKind, **values: str) -> Notice:
    return Notice(order.buyer_store_id, kind, order, values)


def to_vendor(order: Order, kind: NotificationKind, **values: str) -> Notice:
    return Notice(order.vendor_store_id, kind, order, values)


async def tell(
    tx: AsyncSession, events: Sequence[Record], notices: Sequence[Notice], *, actor: str, now: datetime
) -> None:
    """Append the events of orders and request the notifications, as the last step of a transaction."""
    told = sorted(events, key=lambda one: EVENTS[one.event_type].key(one))
    asked = [
        notifications.requested(
            store_id=notice.store_id,
            kind=notice.kind,
            subject_id=notice.order.id,
            values={**_values(notice.order), **notice.values},
            actor=actor,
            now=now,
        )
        for notice in sorted(notices, key=lambda one: str(one.store_id))
    ]
    await outbox.append_all(tx, [*told, *asked])


def _values(order: Order) -> dict[str, str]:
    return {"number": order.number, "order_id": str(order.id), "total": dollars(order.total_cents)}

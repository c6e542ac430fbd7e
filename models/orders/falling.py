"""Orders that end before they are delivered: rejected, canceled, expired. All of them end in the same step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models.catalog import writes as stock
from models.orders.rules import HOLDING, IntentStatus, LineStatus, OrderAction, OrderStatus, next_status
from models.orders.tables import Order, OrderLineItem

STAMPS: Final[Mapping[OrderAction, str]] = {
    OrderAction.REJECT: "decided_at",
    OrderAction.CANCEL: "canceled_at",
    OrderAction.EXPIRE: "expired_at",
}


async def fall(tx: AsyncSession, orders: Sequence[Order], action: OrderAction, *, now: datetime) -> None:
    """The orders end by `action` (REJECT, CANCEL, EXPIRE): intents are canceled, what their lines hold is given back.

    The caller holds the rows of all of them, locked by id, with lines and intents loaded, and afterwards appends the
    events, which `snapshot` then shows as they have become (telling.py). Stock is locked by product id, for all orders
    at once: so whoever ends many calls this once, and before any event is appended.
    Raises StateConflict, and nothing is changed, where the state of one of them forbids it.
    """
    after = [next_status(OrderStatus(order.status), action) for order in orders]
    await release(tx, [line for order in orders for line in held(order)])
    for order, status in zip(orders, after, strict=True):
        order.status, order.updated_at = status, now
        setattr(order, STAMPS[action], now)
        intent = order.payment_intent
        intent.status, intent.canceled_at, intent.updated_at = IntentStatus.CANCELED, now, now
    await tx.flush()


def held(order: Order) -> list[OrderLineItem]:
    """The lines for which the order holds stock at present."""
    if order.status not in HOLDING:
        return []
    return [line for line in order.line_items if line.status != LineStatus.REJECTED]


async def release(tx: AsyncSession, lines: Iterable[OrderLineItem]) -> None:
    """Give back what the lines hold; the caller holds the rows of their orders, and sees to it that it happens once."""
    freed: Counter[UUID] = Counter()
    for line in lines:
        freed[line.product_id] += line.quantity
    missing = await stock.release(tx, freed)
    if missing:
        raise RuntimeError(f"less stock was held than orders say, of {sorted(map(str, missing))}")

"""Commands on orders that concern the whole order. Each locks its row, asks the rules, changes, and tells of it.

Which of two that come at once is first, the lock decides; the other sees what the first has made of the order.
Decisions are in deciding.py, what ends an order in falling.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models import audit
from models.notifications.rules import NotificationKind
from models.orders import reads
from models.orders.falling import fall
from models.orders.rules import OrderAction, OrderStatus, check_nudge, is_done, next_status
from models.orders.tables import Order
from models.orders.telling import about, tell, to_vendor
from schemas.records import OrderCanceled, OrderNudged, OrderReadyForDispatch


async def cancel(
    tx: AsyncSession, order_id: UUID, *, reason: str | None, store_id: UUID, actor: str, now: datetime
) -> Order:
    """The buyer takes the order back, until it is in transit. One that is canceled stays as it is.

    Raises NotFound, StateConflict.
    """
    order = await reads.order(tx, order_id, store_id=store_id, lock=True)
    if is_done(OrderStatus(order.status), OrderAction.CANCEL):
        return order
    order.cancel_reason = reason
    await fall(tx, [order], OrderAction.CANCEL, now=now)
    event = OrderCanceled(**about(order, actor=actor, now=now), reason=reason)
    await tell(tx, [event], [to_vendor(order, NotificationKind.ORDER_CANCELED)], actor=actor, now=now)
    return order


async def nudge(tx: AsyncSession, order_id: UUID, *, store_id: UUID, actor: str, now: datetime) -> Order:
    """The buyer asks for a decision. Raises NotFound, StateConflict, RateLimited (within the hour of the last one)."""
    order = await reads.order(tx, order_id, store_id=store_id, lock=True)
    next_status(OrderStatus(order.status), OrderAction.NUDGE)
    check_nudge(order.nudged_at, now)
    await mark_nudged(tx, [order], actor=actor, now=now)
    return order


async def mark_nudged(tx: AsyncSession, orders: Sequence[Order], *, actor: str, now: datetime) -> None:
    """The vendors are asked for decisions on the orders, which are pending and whose rows the caller holds."""
    for order in orders:
        order.nudged_at = order.updated_at = now
    await tx.flush()
    events = [OrderNudged(**about(order, actor=actor, now=now)) for order in orders]
    notices = [to_vendor(order, NotificationKind.ORDER_NUDGED) for order in orders]
    await tell(tx, events, notices, actor=actor, now=now)


async def fulfil(tx: AsyncSession, order_id: UUID, *, store_id: UUID, actor: str, now: datetime) -> Order:
    """The vendor has packed what it accepted: the order can be dispatched. One that can already stays as it is.

    Raises NotFound, StateConflict.
    """
    order = await reads.order(tx, order_id, store_id=store_id, lock=True)
    if is_done(OrderStatus(order.status), OrderAction.FULFIL):
        return order
    order.status = next_status(OrderStatus(order.status), OrderAction.FULFIL)
    order.ready_at = order.updated_at = now
    await tx.flush()
    await tell(tx, [OrderReadyForDispatch(**about(order, actor=actor, now=now))], [], actor=actor, now=now)
    return order


async def confirm_paid(tx: AsyncSession, order_id: UUID, *, store_id: UUID, actor: str, now: datetime) -> Order:
    """The vendor says that it has its money: kept and audited, once. It moves none. Raises NotFound, StateConflict."""
    order = await reads.order(tx, order_id, store_id=store_id, lock=True)
    next_status(OrderStatus(order.status), OrderAction.CONFIRM_PAID)
    if order.vendor_confirmed_paid_at is None:
        order.vendor_confirmed_paid_at = order.updated_at = now
        await tx.flush()
        audit.record(
            tx,
            actor=actor,
            action="order.confirmed_paid",
            object_type="order",
            object_id=order.id,
            store_id=store_id,
            change={"vendor_confirmed_paid_at": [None, now.isoformat()]},
            now=now,
        )
    return order

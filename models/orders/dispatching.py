"""Moving an order on once it is packed: picked up, delivered. The caller holds its row, and knows whose it is."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models.catalog import writes as stock
from models.notifications.rules import NotificationKind
from models.orders.falling import held
from models.orders.rules import OrderAction, OrderStatus, next_status
from models.orders.tables import Order
from models.orders.telling import about, tell, to_buyer
from schemas.records import OrderDelivered, OrderInTransit


async def pick_up(tx: AsyncSession, order: Order, *, agent_id: UUID, actor: str, now: datetime) -> None:
    """The order is in transit, its goods have left the shelf, and the buyer hears of it. StateConflict."""
    after = next_status(OrderStatus(order.status), OrderAction.PICK_UP)
    missing = await stock.take(tx, {line.product_id: line.quantity for line in held(order)})
    if missing:
        raise RuntimeError(f"order {order.id} did not hold the stock of {sorted(map(str, missing))}")
    order.status, order.in_transit_at, order.updated_at = after, now, now
    await tx.flush()
    event = OrderInTransit(**about(order, actor=actor, now=now), agent_id=agent_id)
    await tell(tx, [event], [to_buyer(order, NotificationKind.ORDER_IN_TRANSIT)], actor=actor, now=now)


async def deliver(tx: AsyncSession, order: Order, *, agent_id: UUID, actor: str, now: datetime) -> None:
    """The order has arrived, and the buyer hears of it. StateConflict."""
    order.status = next_status(OrderStatus(order.status), OrderAction.DELIVER)
    order.delivered_at = order.updated_at = now
    await tx.flush()
    event = OrderDelivered(**about(order, actor=actor, now=now), agent_id=agent_id)
    await tell(tx, [event], [to_buyer(order, NotificationKind.ORDER_DELIVERED)], actor=actor, now=now)

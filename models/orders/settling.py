"""The money of an order as its intent has it: settled, paid out. The caller holds its row, and writes the ledger."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import Conflict
from models.orders.rules import IntentStatus, OrderAction, OrderStatus, PaymentMethod, next_status
from models.orders.tables import Order


def is_settled(order: Order, method: PaymentMethod) -> bool:
    """Whether a delivered order was settled already. Raises Conflict unless it is delivered and is paid so."""
    next_status(OrderStatus(order.status), OrderAction.SETTLE)
    if order.payment_method != method:
        raise Conflict(f"the order, which is {order.status}, is not paid by {method} but by {order.payment_method}")
    return order.payment_intent.status == IntentStatus.SETTLED


async def settle(tx: AsyncSession, order: Order, *, now: datetime) -> None:
    """The buyer has paid a delivered order (see `is_settled`)."""
    intent = order.payment_intent
    intent.status, intent.settled_at, intent.updated_at = IntentStatus.SETTLED, now, now
    if intent.method == PaymentMethod.CASH:
        intent.cash_collected_at = now
    order.updated_at = now
    await tx.flush()


async def pay(tx: AsyncSession, order: Order, *, now: datetime) -> None:
    """The vendor has been paid: the order is closed. Conflict unless it is delivered and settled."""
    after = next_status(OrderStatus(order.status), OrderAction.PAY)
    intent = order.payment_intent
    if intent.status != IntentStatus.SETTLED:
        raise Conflict(f"the order, which is {order.status}, is not settled: its payment is {intent.status}")
    order.status, order.closed_at, order.updated_at = after, now, now
    intent.status, intent.paid_at, intent.updated_at = IntentStatus.PAID, now, now
    await tx.flush()

"""What the clock does to orders that wait for their vendor: it nudges, and it lets them expire.

The deadlines in the orders' rows decide, whoever calls and however often: nothing happens before them, or twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from models.notifications.rules import NotificationKind
from models.orders.falling import fall
from models.orders.reads import WHOLE
from models.orders.rules import OrderAction, OrderStatus
from models.orders.tables import Order
from models.orders.telling import about, tell, to_buyer, to_vendor
from models.orders.writes import mark_nudged
from schemas.records import OrderExpired


class Outcome(NamedTuple):
    """What became of orders; those in neither are no longer what the clock was for: decided, nudged, or unknown."""

    done: Mapping[UUID, datetime]  #: with the deadline that had passed
    waiting: Collection[UUID]  #: before their deadline, or held by someone else at this moment: to be tried again


async def expire(tx: AsyncSession, order_ids: Collection[UUID], *, actor: str, now: datetime) -> Outcome:
    """The orders that are pending past their deadline expire; stock is given back, and both stores hear of it."""
    orders = await _lock(tx, order_ids, Order.expires_at <= now)
    if orders:
        await fall(tx, orders, OrderAction.EXPIRE, now=now)
        events = [OrderExpired(**about(order, actor=actor, now=now)) for order in orders]
        notices = [to(order, NotificationKind.ORDER_EXPIRED) for order in orders for to in (to_vendor, to_buyer)]
        await tell(tx, events, notices, actor=actor, now=now)
    done = {order.id: order.expires_at for order in orders}
    return Outcome(done, await _still_pending(tx, set(order_ids) - done.keys()))


async def nudge(tx: AsyncSession, order_ids: Collection[UUID], *, actor: str, now: datetime) -> Outcome:
    """The vendors of orders that are pending past half their time, and were never nudged, are asked for a decision.

    One that is to expire now is not: nobody could decide it any more.
    """
    orders = await _lock(tx, order_ids, Order.nudge_at <= now, *_to_be_nudged(now))
    if orders:
        await mark_nudged(tx, orders, actor=actor, now=now)
    done = {order.id: order.nudge_at for order in orders}
    return Outcome(done, await _still_pending(tx, set(order_ids) - done.keys(), *_to_be_nudged(now)))


async def overdue(tx: AsyncSession, *, before: datetime, limit: int) -> Sequence[UUID]:
    """Pending orders whose deadline was before a time, the oldest first."""
    query = select(Order.id).where(Order.status == OrderStatus.PENDING, Order.expires_at < before)
    return (await tx.scalars(query.order_by(Order.expires_at, Order.id).limit(limit))).all()


async def unnudged(tx: AsyncSession, *, before: datetime, limit: int, now: datetime) -> Sequence[UUID]:
    """Pending orders that should have been nudged before a time and can still be, the oldest first."""
    query = select(Order.id).where(Order.status == OrderStatus.PENDING, Order.nudge_at < before, *_to_be_nudged(now))
    return (await tx.scalars(query.order_by(Order.nudge_at, Order.id).limit(limit))).all()


def _to_be_nudged(now: datetime) -> Sequence[ColumnElement[bool]]:
    return Order.nudged_at.is_(None), Order.expires_at > now


async def _lock(tx: AsyncSession, order_ids: Collection[UUID], *due: ColumnElement[bool]) -> Sequence[Order]:
    """Hold those that are pending and due, with lines and intents; not those that someone else is just deciding on."""
    query = select(Order).where(Order.id.in_(order_ids), Order.status == OrderStatus.PENDING, *due).order_by(Order.id)
    query = query.with_for_update(skip_locked=True).options(*WHOLE).execution_options(populate_existing=True)
    return (await tx.scalars(query)).all()


async def _still_pending(tx: AsyncSession, order_ids: Collection[UUID], *due: ColumnElement[bool]) -> set[UUID]:
    if not order_ids:
        return set()
    query = select(Order.id).where(Order.id.in_(order_ids), Order.status == OrderStatus.PENDING, *due)
    return set(await tx.scalars(query))

"""Queries on orders. What they give is what was written when it happened; nothing is computed anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from models.database import Driver, as_loaded, select_of, send
from models.errors import NotFound
from models.orders.rules import IntentStatus, OrderStatus
from models.orders.tables import Order as Order  # by these names for other areas too
from models.orders.tables import OrderLineItem
from models.orders.tables import PaymentIntent as PaymentIntent
from models.stores.rules import StoreType

WHOLE: Final = (selectinload(Order.line_items), selectinload(Order.payment_intent))


async def order(tx: AsyncSession, order_id: UUID, *, store_id: UUID, lock: bool = False) -> Order:
    """An order that the store placed or got, with lines and intent. NotFound for any other id.

    `lock` holds the row until the transaction ends; lines and intent are read after that. Whoever changes an order,
    its lines or its intent holds its row.
    """
    return await _one(tx, select(Order).where(Order.id == order_id, of_store(store_id)), lock=lock)


async def any_order(tx: AsyncSession, order_id: UUID, *, lock: bool = False) -> Order:
    """As `order`, for callers who act for no store: agents, admins, timers. NotFound for an unknown id."""
    return await _one(tx, select(Order).where(Order.id == order_id), lock=lock)


async def _one(tx: AsyncSession, query: Select[Order], *, lock: bool) -> Order:
    if lock:
        query = query.with_for_update()
    found = await tx.scalar(query.options(*WHOLE).execution_options(populate_existing=True))
    if found is None:
        raise NotFound("there is no such order")
    return found


async def group(tx: AsyncSession | Driver, checkout_group_id: UUID) -> Sequence[Order]:
    """The orders of a checkout with lines and intents, in the order of the cart's vendors; to be read, not changed."""
    orders = await send(tx, _GROUP, checkout_group_id)
    ids = [row["id"] for row in orders]
    lines, intents = await send(tx, _LINES, ids), await send(tx, _INTENTS, ids)
    return as_written(map(dict, orders), map(dict, lines), map(dict, intents))


_GROUP: Final = f"{select_of(Order)} WHERE checkout_group_id = $1 ORDER BY id"
_LINES: Final = f"{select_of(OrderLineItem)} WHERE order_id = ANY ($1) ORDER BY order_id, position"
_INTENTS: Final = f"{select_of(PaymentIntent)} WHERE order_id = ANY ($1)"


def as_written(
    orders: Iterable[Mapping[str, Any]], lines: Iterable[Mapping[str, Any]], intents: Iterable[Mapping[str, Any]]
) -> Sequence[Order]:
    """Rows as orders with lines and intents, as a query would give them; no session knows them."""
    of_order: dict[UUID, list[OrderLineItem]] = {}
    for row in lines:
        of_order.setdefault(row["order_id"], []).append(as_loaded(OrderLineItem, row))
    intent_of = {row["order_id"]: as_loaded(PaymentIntent, row) for row in intents}
    return [
        as_loaded(Order, row, line_items=of_order[row["id"]], payment_intent=intent_of[row["id"]]) for row in orders
    ]


async def retry_of(tx: AsyncSession, order_id: UUID) -> Order | None:
    """The order that repeats this one, with lines and intent."""
    return await tx.scalar(select(Order).where(Order.retry_of == order_id).options(*WHOLE))


async def orders_of(
    tx: AsyncSession,
    *,
    store_id: UUID,
    perspective: StoreType,
    status: OrderStatus | None = None,
    since: datetime | None = None,
    before: datetime | None = None,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> Sequence[Order]:
    """The orders that a store placed (as a buyer) or got (as a vendor), newest first, from behind `after` on.

    `since` is included, `before` is not.
    """
    column = Order.buyer_store_id if perspective is StoreType.BUYER else Order.vendor_store_id
    query = select(Order).where(column == store_id)
    if status is not None:
        query = query.where(Order.status == status)
    if since is not None:
        query = query.where(Order.created_at >= since)
    if before is not None:
        query = query.where(Order.created_at < before)
    if after is not None:
        query = query.where(tuple_(Order.created_at, Order.id) < after)
    newest_first = query.order_by(Order.created_at.desc(), Order.id.desc()).limit(limit)
    return (await tx.scalars(newest_first.options(*WHOLE))).all()


async def payable(tx: AsyncSession, *, limit: int, after: tuple[datetime, UUID] | None = None) -> Sequence[Order]:
    """The delivered orders that are settled and not paid out, by the intent's (settled_at, id)."""
    query = select(Order).join(PaymentIntent, PaymentIntent.order_id == Order.id)
    query = query.where(PaymentIntent.status == IntentStatus.SETTLED, Order.status == OrderStatus.DELIVERED)
    if after is not None:
        query = query.where(tuple_(PaymentIntent.settled_at, PaymentIntent.id) > after)
    oldest_first = query.order_by(PaymentIntent.settled_at, PaymentIntent.id).limit(limit)
    return (await tx.scalars(oldest_first.options(*WHOLE))).all()


async def known(tx: AsyncSession, order_ids: Collection[UUID]) -> set[UUID]:
    """Those of the ids that are orders'."""
    return set(await tx.scalars(select(Order.id).where(Order.id.in_(order_ids)))) if order_ids else set()


def of_store(store_id: UUID) -> ColumnElement[bool]:
    """Of either side."""
    return or_(Order.buyer_store_id == store_id, Order.vendor_store_id == store_id)


async def all_orders(tx: AsyncSession, *, after: UUID | None, limit: int) -> Sequence[Order]:
    """Orders of all stores with lines and intents, by id, from behind `after` on."""
    query = select(Order).order_by(Order.id).limit(limit).options(*WHOLE)
    return (await tx.scalars(query if after is None else query.where(Order.id > after))).all()

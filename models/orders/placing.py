"""Placing orders: all of a checkout, in as many statements as one has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Insert, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from models.database import new_id
from models.orders.rules import (
    IntentStatus,
    LineStatus,
    OrderStatus,
    PaymentMethod,
    RejectionReason,
    Totals,
    order_number,
)
from models.orders.tables import ORDER_NUMBERS, Order, OrderLineItem, PaymentIntent


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLine:
    """A line of the cart; with a `rejection_reason` it is in no total, and its stock is not held."""

    cart_item_id: UUID
    product_id: UUID
    title: str
    category: str
    quantity: int
    unit_price_cents: int
    applied_volume_discount: dict[str, Any] | None
    moq: int
    max_qty: int | None
    line_subtotal_cents: int
    line_total_cents: int
    warnings: list[dict[str, Any]]
    attribution: dict[str, Any] | None
    rejection_reason: RejectionReason | None

    @classmethod
    def of(
        cls,
        line: Any,
        *,
        cart_item_id: UUID,
        attribution: dict[str, Any] | None,
        rejection_reason: RejectionReason | None,
    ) -> NewLine:
        """What a line of a cart, or of an order that is placed again, says, taken over as it is."""
        return cls(
            cart_item_id=cart_item_id,
            product_id=line.product_id,
            title=line.title,
            category=line.category,
            quantity=line.quantity,
            unit_price_cents=line.unit_price_cents,
            applied_volume_discount=line.applied_volume_discount,
            moq=line.moq,
            max_qty=line.max_qty,
            line_subtotal_cents=line.line_subtotal_cents,
            line_total_cents=line.line_total_cents,
            warnings=line.warnings,
            attribution=attribution,
            rejection_reason=rejection_reason,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """What one vendor gets; `totals` are without the rejected lines."""

    vendor_store_id: UUID
    totals: Totals
    promo: dict[str, Any] | None
    warnings: list[dict[str, Any]]
    attribution: dict[str, Any] | None
    lines: Sequence[NewLine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all orders of a checkout have in common."""

    checkout_group_id: UUID
    cart_id: UUID
    buyer_store_id: UUID
    currency: str
    payment_method: PaymentMethod
    shipping_address: dict[str, Any]
    shipping_line: dict[str, Any] | None
    created_at: datetime
    nudge_at: datetime
    expires_at: datetime
    retry_of: UUID | None = None


async def place(tx: AsyncSession, terms: Terms, wanted: Sequence[NewOrder]) -> Sequence[Order]:
    """Place the orders, each pending with an unpaid intent of its total; they are returned as they were written, to be
    read: they are not the session's.

    The caller has reserved the stock of their lines, and appends the event.
    """
    ids = [new_id() for _ in wanted]
    serials = await _serials(tx, len(wanted))
    numbered = list(zip(ids, wanted, strict=True))
    orders = [_order(id_, serial, one, terms) for (id_, one), serial in zip(numbered, serials, strict=True)]
    await tx.execute(_insert(Order), orders)
    lines = [row for id_, one in numbered for row in _lines(id_, one, terms)]
    await tx.execute(_insert(OrderLineItem), lines)
    intents = [_intent(id_, one, terms) for id_, one in numbered]
    await tx.execute(_insert(PaymentIntent), intents)
    return _written(orders, lines, intents)


def _written(
    orders: Iterable[Mapping[str, Any]], lines: Iterable[Mapping[str, Any]], intents: Iterable[Mapping[str, Any]]
) -> Sequence[Order]:
    """The rows as orders with lines and intents, as a query would give them; no part of the session."""
    by_id = {row["id"]: Order(**row) for row in orders}
    of_order: dict[UUID, list[OrderLineItem]] = {order_id: [] for order_id in by_id}
    for row in lines:
        of_order[row["order_id"]].append(OrderLineItem(**row))
    for row in intents:
        set_committed_value(by_id[row["order_id"]], "payment_intent", PaymentIntent(**row))
    for order_id, order in by_id.items():
        set_committed_value(order, "line_items", of_order[order_id])
    return list(by_id.values())


async def _serials(tx: AsyncSession, count: int) -> Sequence[int]:
    return (await tx.scalars(select(ORDER_NUMBERS.next_value()).select_from(func.generate_series(1, count)))).all()


def _insert(table: type[Order | OrderLineItem | PaymentIntent]) -> Insert:
    """For many rows in one statement; into the table itself, without the mapper's look at each row."""
    return insert(cast(Table, table.__table__))


def _columns(of: Terms | NewLine) -> dict[str, Any]:
    """Its fields; what is in them is not copied."""
    return {field.name: getattr(of, field.name) for field in fields(of)}


def _order(order_id: UUID, serial: int, wanted: NewOrder, terms: Terms) -> dict[str, Any]:
    return _columns(terms) | {
        "id": order_id,
        "number": order_number(terms.created_at, serial),
        "vendor_store_id": wanted.vendor_store_id,
        "status": OrderStatus.PENDING,
        "subtotal_cents": wanted.totals.subtotal_cents,
        "discounts_cents": wanted.totals.discounts_cents,
        "shipping_cents": wanted.totals.shipping_cents,
        "total_cents": wanted.totals.total_cents,
        "promo": wanted.promo,
        "warnings": wanted.warnings,
        "attribution": wanted.attribution,
        "updated_at": terms.created_at,
    }


def _lines(order_id: UUID, wanted: NewOrder, terms: Terms) -> Sequence[Mapping[str, Any]]:
    return [_line(line, place, order_id, wanted.vendor_store_id, terms) for place, line in enumerate(wanted.lines)]


def _line(line: NewLine, place: int, order_id: UUID, vendor_store_id: UUID, terms: Terms) -> dict[str, Any]:
    rejected = line.rejection_reason is not None
    return _columns(line) | {
        "id": new_id(),
        "order_id": order_id,
        "buyer_store_id": terms.buyer_store_id,
        "vendor_store_id": vendor_store_id,
        "position": place,
        "status": LineStatus.REJECTED if rejected else LineStatus.PENDING,
        "decided_at": terms.created_at if rejected else None,
    }


def _intent(order_id: UUID, wanted: NewOrder, terms: Terms) -> dict[str, Any]:
    return {
        "id": new_id(),
        "order_id": order_id,
        "buyer_store_id": terms.buyer_store_id,
        "vendor_store_id": wanted.vendor_store_id,
        "method": terms.payment_method,
        "status": IntentStatus.UNPAID,
        "amount_cents": wanted.totals.total_cents,
        "created_at": terms.created_at,
        "updated_at": terms.created_at,
    }

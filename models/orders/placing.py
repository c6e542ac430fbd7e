"""Placing orders: all of a checkout, in as many statements as one has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models.database import Driver, as_json, insert_of, new_id, send
from models.orders.reads import as_written
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


@dataclass(frozen=True, slots=True)
class Placement:
    """Orders that are ready to be written. They are to be read as those of a query; no session knows them."""

    orders: Sequence[Order]
    rows: Sequence[str | None]  #: of orders, lines and intents, for `insert_of`


async def place(tx: AsyncSession | Driver, terms: Terms, wanted: Sequence[NewOrder]) -> Sequence[Order]:
    """Place the orders, each pending with an unpaid intent of its total; they are returned as they were written.

    The caller has reserved the stock of their lines, and appends the event.
    """
    placement = prepare(terms, wanted, await serials(tx, len(wanted)))
    await write(tx, placement)
    return placement.orders


async def serials(tx: AsyncSession | Driver, count: int) -> Sequence[int]:
    """Numbers for that many orders; who does not use them all leaves a gap."""
    return [serial for (serial,) in await send(tx, _SERIALS, count)]


def prepare(terms: Terms, wanted: Sequence[NewOrder], serials: Sequence[int]) -> Placement:
    """All of `place` that needs no database, for who holds locks that others wait for. `serials`: enough of them."""
    numbered = [(new_id(), one) for one in wanted]
    orders = [_order(id_, serial, one, terms) for (id_, one), serial in zip(numbered, serials, strict=False)]
    lines = [row for id_, one in numbered for row in _lines(id_, one, terms)]
    intents = [_intent(id_, one, terms) for id_, one in numbered]
    return Placement(as_written(orders, lines, intents), [as_json(rows) for rows in (orders, lines, intents)])


async def write(tx: AsyncSession | Driver, placement: Placement) -> None:
    """Write what `prepare` gave, in one statement."""
    await send(tx, _PLACE, *placement.rows)


_SERIALS: Final = f"SELECT nextval('{ORDER_NUMBERS.name}') FROM generate_series(1, $1)"
_PLACE: Final = f"""
WITH orders_made AS ({insert_of(Order, "$1")}), lines_made AS ({insert_of(OrderLineItem, "$2")})
{insert_of(PaymentIntent, "$3")}
"""


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

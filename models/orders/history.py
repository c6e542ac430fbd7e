"""What became of an order, told again from its row: the order as it was at each turn. Pure.

Decisions that have the same time are told as one, and a line whose decision was changed as it was decided last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple

from models.orders.rules import (
    IntentStatus,
    LineStatus,
    OrderAction,
    OrderStatus,
    PaymentMethod,
    RejectionReason,
    decision,
    next_status,
)
from models.orders.snapshots import snapshot
from models.orders.tables import Order, OrderLineItem
from schemas.records import OrderLineSnapshot, OrderSnapshot

BY_CHECKOUT: Final = frozenset(RejectionReason)  #: reasons of lines that checkout itself could not take


class Turn(NamedTuple):
    """The event of this type happened, and left the order so. `amount_cents`: of those that moved money."""

    event_type: str
    at: datetime
    order: OrderSnapshot
    amount_cents: int | None = None


def turns(order: Order) -> list[Turn]:
    """What happened to the order and changed what it counts for, from its placing on."""
    told = [Turn("order_created", order.created_at, _as_of(order, None))]
    told += [Turn("order_decided", at, _as_of(order, at)) for at in _decisions(order)]
    now, intent = snapshot(order), order.payment_intent
    for event_type, at in (("order_canceled", order.canceled_at), ("order_expired", order.expired_at)):
        if at is not None:
            told.append(Turn(event_type, at, now))
    if intent.settled_at is not None:
        event_type = "cash_collected" if intent.method == PaymentMethod.CASH else "ach_settled"
        settled = replace(now, status=OrderStatus.DELIVERED, payment_status=IntentStatus.SETTLED)
        told.append(Turn(event_type, intent.settled_at, settled, intent.amount_cents))
    if intent.paid_at is not None:
        told.append(Turn("order_paid", intent.paid_at, now, intent.amount_cents))
    return told


def _decisions(order: Order) -> list[datetime]:
    """When the vendor decided lines."""
    return sorted({line.decided_at for line in order.line_items if line.decided_at and not _never_taken(order, line)})


def _never_taken(order: Order, line: OrderLineItem) -> bool:
    """Whether checkout rejected the line."""
    return line.decided_at == order.created_at and line.rejection_reason in BY_CHECKOUT


def _as_of(order: Order, at: datetime | None) -> OrderSnapshot:
    """The order after what the vendor had decided by then; None: as it was placed."""
    now = snapshot(order)
    lines = [_line_as_of(order, line, told, at) for line, told in zip(order.line_items, now.lines, strict=True)]
    kept = [line for line in lines if line.status != LineStatus.REJECTED]
    subtotal = sum(line.line_subtotal_cents for line in kept)
    net = max(0, sum(line.line_total_cents for line in kept) - _promo_cents(order, now))
    status = OrderStatus.PENDING if at is None else _status({LineStatus(line.status) for line in lines})
    return replace(
        now,
        lines=lines,
        status=status,
        payment_status=IntentStatus.CANCELED if status is OrderStatus.REJECTED else IntentStatus.UNPAID,
        subtotal_cents=subtotal,
        discounts_cents=subtotal - net,
        total_cents=net + now.shipping_cents,
    )


def _line_as_of(order: Order, line: OrderLineItem, told: OrderLineSnapshot, at: datetime | None) -> OrderLineSnapshot:
    known = line.decided_at is not None and ((at is not None and line.decided_at <= at) or _never_taken(order, line))
    return told if known else replace(told, status=LineStatus.PENDING, rejection_reason=None)


def _status(lines: Collection[LineStatus]) -> OrderStatus:
    action = decision(lines)
    return OrderStatus.PENDING if action is OrderAction.DECIDE_LINES else next_status(OrderStatus.PENDING, action)


def _promo_cents(order: Order, now: OrderSnapshot) -> int:
    """What the promo takes off; told by the order's own totals as long as there is something left of them."""
    net = now.subtotal_cents - now.discounts_cents
    if net > 0:
        return sum(line.line_total_cents for line in _kept(now.lines)) - net
    return int(order.promo["discount_cents"]) if order.promo else 0


def _kept(lines: Sequence[OrderLineSnapshot]) -> list[OrderLineSnapshot]:
    return [line for line in lines if line.status != LineStatus.REJECTED]

"""The vendor's decisions, on an order or on lines of it: money follows, and stock of rejected lines is given back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import NotFound
from models.notifications.rules import NotificationKind
from models.orders import reads
from models.orders.falling import fall, release
from models.orders.rules import (
    LineStatus,
    OrderAction,
    OrderStatus,
    Totals,
    Verdict,
    check_line,
    decision,
    is_decided,
    next_status,
    stays_decided,
)
from models.orders.tables import Order, OrderLineItem
from models.orders.telling import Notice, about, tell, to_buyer
from schemas.records import OrderDecided

STATUS_OF: Final[Mapping[Verdict, LineStatus]] = {
    Verdict.ACCEPT: LineStatus.ACCEPTED,
    Verdict.REJECT: LineStatus.REJECTED,
}


class Ruling(NamedTuple):
    """What the vendor says of a line; the reason is kept of a rejection."""

    verdict: Verdict
    reason: str | None = None


async def decide(
    tx: AsyncSession,
    order_id: UUID,
    verdict: Verdict,
    *,
    reason: str | None,
    store_id: UUID,
    actor: str,
    now: datetime,
) -> Order:
    """Decide what is left of the order: ACCEPT takes the undecided lines, REJECT refuses all, accepted ones too.

    An order that is decided so already stays as it is. Raises NotFound, StateConflict.
    """
    order = await reads.order(tx, order_id, store_id=store_id, lock=True)
    status = OrderStatus(order.status)
    if is_decided(status, verdict):
        return order
    next_status(status, OrderAction.ACCEPT if verdict is Verdict.ACCEPT else OrderAction.REJECT)
    open_to = {LineStatus.PENDING} if verdict is Verdict.ACCEPT else {LineStatus.PENDING, LineStatus.ACCEPTED}
    rulings = {line.id: Ruling(verdict, reason) for line in order.line_items if line.status in open_to}
    order.decision_reason = reason
    await _apply(tx, order, rulings, reason=reason, actor=actor, now=now)
    return order


async def decide_lines(
    tx: AsyncSession, order_id: UUID, rulings: Mapping[UUID, Ruling], *, store_id: UUID, actor: str, now: datetime
) -> Order:
    """Decide lines of the order, which is pending while others are undecided. All or nothing.

    Lines that are decided so already stay as they are; nothing else asked, so does the order, until it moves on.
    Raises NotFound (the order, a line), StateConflict.
    """
    order = await reads.order(tx, order_id, store_id=store_id, lock=True)
    lines = {line.id: line for line in order.line_items}
    unknown = rulings.keys() - lines.keys()
    if unknown:
        raise NotFound(f"the order has no line {min(unknown)}")
    status = OrderStatus(order.status)
    fresh = {id_: ruling for id_, ruling in rulings.items() if lines[id_].status != STATUS_OF[ruling.verdict]}
    if not fresh and stays_decided(status):
        return order
    next_status(status, OrderAction.DECIDE_LINES)
    for id_ in fresh:
        check_line(LineStatus(lines[id_].status), status)
    await _apply(tx, order, fresh, reason=None, actor=actor, now=now)
    return order


async def _apply(
    tx: AsyncSession, order: Order, rulings: Mapping[UUID, Ruling], *, reason: str | None, actor: str, now: datetime
) -> None:
    """Decide the lines of a pending order, and the order where none is left undecided; tell of it."""
    decided = [line for line in order.line_items if line.id in rulings]
    rejected = [line for line in decided if rulings[line.id].verdict is Verdict.REJECT]
    await release(tx, rejected)
    for line in decided:
        _rule(line, rulings[line.id], now)
    _take_off(order, rejected, now)
    action = decision({LineStatus(line.status) for line in order.line_items})
    if action is OrderAction.REJECT:
        await fall(tx, [order], action, now=now)
    else:
        order.status = next_status(OrderStatus(order.status), action)
        order.decided_at = None if action is OrderAction.DECIDE_LINES else now
        await tx.flush()
    event = OrderDecided(
        **about(order, actor=actor, now=now), decided_lines=[line.id for line in decided], reason=reason
    )
    await tell(tx, [event], _notices(order, action), actor=actor, now=now)


def _rule(line: OrderLineItem, ruling: Ruling, now: datetime) -> None:
    line.status, line.decided_at = STATUS_OF[ruling.verdict], now
    line.rejection_reason = ruling.reason if ruling.verdict is Verdict.REJECT else None


def _take_off(order: Order, rejected: Sequence[OrderLineItem], now: datetime) -> None:
    """The order is worth less by these lines; so much less is owed for it."""
    left = Totals(order.subtotal_cents, order.discounts_cents, order.shipping_cents).without(rejected)
    order.subtotal_cents, order.discounts_cents = left.subtotal_cents, left.discounts_cents
    order.total_cents, order.updated_at = left.total_cents, now
    order.payment_intent.amount_cents, order.payment_intent.updated_at = left.total_cents, now


def _notices(order: Order, action: OrderAction) -> list[Notice]:
    """The buyer hears when the order is decided, not of each line."""
    if action is OrderAction.DECIDE_LINES:
        return []
    return [to_buyer(order, NotificationKind.ORDER_DECIDED, decision=order.status.replace("_", " "))]

"""An expired order is placed again: the same lines at the same prices, of what can be had today."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models.catalog import reads as catalog
from models.catalog import writes as stock
from models.checkout.rules import Failures, obstacle_of
from models.database import new_id
from models.errors import NoOrderableItems, VendorNotEligible
from models.notifications.rules import NotificationKind
from models.orders import placing
from models.orders import reads as orders
from models.orders.placing import NewLine, NewOrder, Terms
from models.orders.reads import Order
from models.orders.rules import (
    OrderAction,
    OrderStatus,
    PaymentMethod,
    RejectionReason,
    Totals,
    deadlines,
    next_status,
)
from models.orders.telling import about, tell, to_vendor
from schemas.records import OrderRetried


class Retry(NamedTuple):
    """The order that repeats an expired one; `repeated`: it had been placed before."""

    order: Order
    repeated: bool


async def retry(
    tx: AsyncSession,
    order_id: UUID,
    *,
    ttl_s: int,
    nudge_s: int,
    buyer_store_id: UUID,
    actor: str,
    now: datetime,
) -> Retry:
    """Place the buyer's expired order anew, in a checkout group of its own, once: asked again, it is the same order.

    Every line is tried, also those that were rejected before; one that cannot be had is rejected with its reason.
    Raises NotFound, StateConflict, VendorNotEligible, and NoOrderableItems where no line can be had: the caller rolls
    back.
    """
    expired = await orders.order(tx, order_id, store_id=buyer_store_id, lock=True)
    before = await orders.retry_of(tx, order_id)
    if before is not None:
        return Retry(before, repeated=True)
    next_status(OrderStatus(expired.status), OrderAction.RETRY)
    failures = await _hold_stock(tx, expired)
    terms = _terms(expired, now, ttl_s=ttl_s, nudge_s=nudge_s)
    (order,) = await placing.place(tx, terms, [_again(expired, failures)])
    event = OrderRetried(**about(order, actor=actor, now=now))
    await tell(tx, [event], [to_vendor(order, NotificationKind.ORDER_PLACED)], actor=actor, now=now)
    return Retry(order, repeated=False)


async def _hold_stock(tx: AsyncSession, expired: Order) -> Failures:
    """Reserve the lines that can be had; the others, and why."""
    wanted = {line.product_id: line.quantity for line in expired.line_items}
    offers = await catalog.for_quote(tx, list(wanted), buyer_store_id=expired.buyer_store_id)
    if not all(offer.vendor_eligible for offer in offers.values()):
        raise VendorNotEligible("the vendor may not sell at present")
    gone = {id_ for id_ in wanted if id_ not in offers or not offers[id_].offered}
    failures = dict.fromkeys(gone, RejectionReason.PRODUCT_UNAVAILABLE)
    short = await stock.reserve(tx, {id_: quantity for id_, quantity in wanted.items() if id_ not in gone})
    failures |= dict.fromkeys(short, RejectionReason.INSUFFICIENT_STOCK)
    if len(failures) == len(wanted):
        raise NoOrderableItems(errors=[obstacle_of(id_, failures[id_]) for id_ in wanted])
    return failures


def _terms(expired: Order, now: datetime, *, ttl_s: int, nudge_s: int) -> Terms:
    nudge_at, expires_at = deadlines(now, ttl_s=ttl_s, nudge_s=nudge_s)
    return Terms(
        checkout_group_id=new_id(),
        cart_id=expired.cart_id,
        buyer_store_id=expired.buyer_store_id,
        currency=expired.currency,
        payment_method=PaymentMethod(expired.payment_method),
        shipping_address=expired.shipping_address,
        shipping_line=expired.shipping_line,
        created_at=now,
        nudge_at=nudge_at,
        expires_at=expires_at,
        retry_of=expired.id,
    )


def _again(expired: Order, failures: Failures) -> NewOrder:
    lines = [_line(line, failures) for line in expired.line_items]
    return NewOrder(
        vendor_store_id=expired.vendor_store_id,
        totals=_as_quoted(expired).without(line for line in lines if line.rejection_reason is not None),
        promo=expired.promo,
        warnings=expired.warnings,
        attribution=expired.attribution,
        lines=lines,
    )


def _as_quoted(expired: Order) -> Totals:
    """What the cart's group came to, before any line was rejected: its lines, and its promo as it was."""
    subtotal = sum(line.line_subtotal_cents for line in expired.line_items)
    goods = sum(line.line_total_cents for line in expired.line_items)
    promo: Mapping[str, int] = expired.promo or {}
    return Totals(subtotal, subtotal - goods + promo.get("discount_cents", 0), expired.shipping_cents)


def _line(line: Any, failures: Failures) -> NewLine:
    return NewLine.of(
        line,
        cart_item_id=line.cart_item_id,
        attribution=line.attribution,
        rejection_reason=failures.get(line.product_id),
    )

"""The checkout: a quote becomes orders, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.ads.tokens import AdClaims
from models.cart import attribution as tokens
from models.cart import reads as carts
from models.cart import rules as cart_rules
from models.cart import writes as cart_writes
from models.cart.attribution import TokenRules
from models.cart.reads import CartRecord
from models.cart.rules import CartStatus
from models.catalog import reads as catalog
from models.catalog import writes as stock
from models.checkout import attribution, reads, rules
from models.checkout.reads import Checkout
from models.checkout.rules import Failures
from models.database import new_id
from models.notifications import writes as notifications
from models.notifications.rules import NotificationKind, dollars
from models.orders import placing
from models.orders.placing import NewLine, NewOrder, Terms
from models.orders.rules import PaymentMethod, RejectionReason, Totals, deadlines
from models.orders.snapshots import snapshot
from schemas.http.orders import NewCheckout
from schemas.records import CheckoutConverted


@dataclass(frozen=True, slots=True)
class CheckoutTerms:
    """How long vendors have to decide, when they are nudged, and what ad tokens are held against."""

    order_ttl_s: int
    order_nudge_s: int
    tokens: TokenRules


async def check_out(
    tx: AsyncSession, body: NewCheckout, terms: CheckoutTerms, *, buyer_store_id: UUID, actor: str, now: datetime
) -> Checkout:
    """Convert the store's cart: stock is held, and each vendor with something to order gets one order.

    A cart that was converted gives the same checkout again, and nothing is written. Checkouts of a cart come one after
    the other, each holding its row. The number of statements does not depend on the number of lines. Two events go with
    it: `checkout_converted`, and the notification that names the group.
    Raises NotFound, CartNotActive, NoOrderableItems: the caller rolls back, and the cart is as it was.
    """
    cart = await carts.cart(tx, body.cart_id, buyer_store_id=buyer_store_id, lock=True)
    if cart.status == CartStatus.CONVERTED:
        return await reads.of_converted(tx, cart)
    cart_rules.check_convertible(CartStatus(cart.status), valid_until=cart.valid_until, now=now)
    failures = await _hold_stock(tx, cart)
    result = rules.outcome(cart.items, failures)
    kept, _ = tokens.select(cart.attribution_tokens, terms.tokens, buyer_store_id=buyer_store_id, now=now)
    wanted = _orders(cart, result.lines, failures, body, [one.claims for one in kept])
    common = _common(cart, body, terms, now)
    placed = await placing.place(tx, common, wanted)
    await cart_writes.convert(
        tx,
        cart,
        checkout_group_id=common.checkout_group_id,
        payment_method=common.payment_method,
        shipping_address=common.shipping_address,
        shipping_line=common.shipping_line,
        rejected_vendors=[
            {"vendor_store_id": str(one.vendor_store_id), "reason": one.reason.value} for one in result.rejected
        ],
        now=now,
    )
    done = Checkout(cart, placed, repeated=False)
    await _publish(tx, done, actor=actor, now=now)
    return done


async def _hold_stock(tx: AsyncSession, cart: CartRecord) -> Failures:
    """Reserve what can be ordered now; the lines that cannot, and why."""
    wanted = [line.product_id for line in cart.items]
    offers = await catalog.for_quote(tx, wanted, buyer_store_id=cart.buyer_store_id)
    failures = rules.verify(cart.items, offers)
    short = await stock.reserve(tx, rules.demand(cart.items, failures))
    return failures | dict.fromkeys(short, RejectionReason.INSUFFICIENT_STOCK)


def _common(cart: CartRecord, body: NewCheckout, terms: CheckoutTerms, now: datetime) -> Terms:
    nudge_at, expires_at = deadlines(now, ttl_s=terms.order_ttl_s, nudge_s=terms.order_nudge_s)
    return Terms(
        checkout_group_id=new_id(),
        cart_id=cart.id,
        buyer_store_id=cart.buyer_store_id,
        currency=cart.currency,
        payment_method=PaymentMethod(body.payment_method),
        shipping_address=body.shipping_address.model_dump(exclude_none=True),
        shipping_line=body.shipping_line.model_dump() if body.shipping_line else None,
        created_at=now,
        nudge_at=nudge_at,
        expires_at=expires_at,
    )


def _orders(
    cart: CartRecord,
    lines: Mapping[UUID, Sequence[Any]],
    failures: Failures,
    body: NewCheckout,
    claims: Sequence[AdClaims],
) -> list[NewOrder]:
    """One order a vendor: the group's totals, of which each failed line takes its own."""
    shipping = body.shipping_line.price_cents if body.shipping_line else 0
    groups = {group.vendor_store_id: group for group in cart.vendor_groups}
    found = []
    for vendor, its in lines.items():
        group = groups[vendor]
        whole = Totals(group.subtotal_cents, group.discounts_cents, shipping)
        found.append(
            NewOrder(
                vendor_store_id=vendor,
                totals=whole.without(line for line in its if line.product_id in failures),
                promo=group.promo,
                warnings=group.warnings,
                attribution=attribution.of_order(claims, vendor),
                lines=[_line(line, failures, claims) for line in its],
            )
        )
    return found


def _line(line: Any, failures: Failures, claims: Sequence[AdClaims]) -> NewLine:
    return NewLine.of(
        line,
        cart_item_id=line.id,
        attribution=attribution.of_line(claims, line.product_id),
        rejection_reason=failures.get(line.product_id),
    )


async def _publish(tx: AsyncSession, done: Checkout, *, actor: str, now: datetime) -> None:
    """The event's id is the group's: however often it is told, it is the same one."""
    event = CheckoutConverted(
        event_id=done.checkout_group_id,
        occurred_at=now,
        actor=actor,
        checkout_group_id=done.checkout_group_id,
        cart_id=done.cart.id,
        buyer_store_id=done.cart.buyer_store_id,
        currency=done.cart.currency,
        total_cents=done.total_cents,
        orders=[snapshot(order) for order in done.vendor_orders],
    )
    values = {
        "checkout_group_id": str(done.checkout_group_id),
        "orders": str(len(done.vendor_orders)),
        "total": dollars(done.total_cents),
    }
    notice = notifications.requested(
        store_id=done.cart.buyer_store_id,
        kind=NotificationKind.CHECKOUT,
        subject_id=done.checkout_group_id,
        values=values,
        actor=actor,
        now=now,
    )
    await outbox.append_all(tx, [event, notice])

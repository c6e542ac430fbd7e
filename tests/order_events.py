"""Orders and their events, made up for tests of what follows from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from models.database import new_id
from schemas.records import (
    AdAttribution,
    CheckoutConverted,
    OrderCanceled,
    OrderDecided,
    OrderLineSnapshot,
    OrderPaid,
    OrderSnapshot,
    ShipTo,
)

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def attribution(ad_id: UUID | None = None, *, target_type: str = "store") -> AdAttribution:
    return AdAttribution(
        ad_id=ad_id or new_id(), kind="click", jti=new_id(), target_type=target_type, target_id=new_id(),
        issued_at=NOON - timedelta(hours=1), reason="newest_click",
    )  # fmt: skip


def line(*, quantity: int = 2, price_cents: int = 1_000, discount_cents: int = 0, **changes: Any) -> OrderLineSnapshot:
    gross = quantity * price_cents
    made = OrderLineSnapshot(
        line_item_id=new_id(), cart_item_id=new_id(), product_id=new_id(), title="Blue Dream", category="flower",
        quantity=quantity, unit_price_cents=price_cents, line_subtotal_cents=gross,
        line_total_cents=gross - discount_cents, status="pending",
    )  # fmt: skip
    return replace(made, **changes)


def order(*lines: OrderLineSnapshot, promo_cents: int = 0, shipping_cents: int = 700, **changes: Any) -> OrderSnapshot:
    """A pending order of these lines (one, if none is given), with the totals that they have."""
    lines = lines or (line(),)
    subtotal = sum(one.line_subtotal_cents for one in lines)
    discounts = subtotal - sum(one.line_total_cents for one in lines) + promo_cents
    made = OrderSnapshot(
        order_id=new_id(), number=f"PS-{new_id()}", checkout_group_id=new_id(), cart_id=new_id(),
        buyer_store_id=new_id(), vendor_store_id=new_id(), status="pending", currency="USD", subtotal_cents=subtotal,
        discounts_cents=discounts, shipping_cents=shipping_cents, total_cents=subtotal - discounts + shipping_cents,
        payment_method="cash", payment_intent_id=new_id(), payment_status="unpaid",
        ship_to=ShipTo(city="Portland", state="OR", postal_code="97201", country="US"), created_at=NOON,
        nudge_at=NOON + timedelta(hours=12), expires_at=NOON + timedelta(hours=24), lines=list(lines),
    )  # fmt: skip
    return replace(made, **changes)


def checkout(*orders: OrderSnapshot, **changes: Any) -> CheckoutConverted:
    """The orders as those of one checkout."""
    group, cart, buyer = new_id(), new_id(), orders[0].buyer_store_id
    placed = [replace(one, checkout_group_id=group, cart_id=cart, buyer_store_id=buyer) for one in orders]
    made = CheckoutConverted(
        event_id=group, occurred_at=placed[0].created_at, actor="test", checkout_group_id=group, cart_id=cart,
        buyer_store_id=buyer, currency="USD", total_cents=sum(one.total_cents for one in placed), orders=placed,
    )  # fmt: skip
    return replace(made, **changes)


def _of(one: OrderSnapshot, after_s: int) -> dict[str, Any]:
    return {
        "event_id": new_id(), "occurred_at": one.created_at + timedelta(seconds=after_s), "actor": "test",
        "checkout_group_id": one.checkout_group_id, "order": one,
    }  # fmt: skip


def decided(one: OrderSnapshot, after_s: int = 60) -> OrderDecided:
    """Told of an order whose lines are as they are after the decision."""
    return OrderDecided(**_of(one, after_s), decided_lines=[made.line_item_id for made in one.lines])


def canceled(one: OrderSnapshot, after_s: int = 120) -> OrderCanceled:
    return OrderCanceled(**_of(replace(one, status="canceled"), after_s))


def paid_out(one: OrderSnapshot, after_s: int = 600) -> OrderPaid:
    closed = replace(one, status="closed", payment_status="paid")
    return OrderPaid(**_of(closed, after_s), amount_cents=one.total_cents, ledger_event_id=new_id())


def reject(one: OrderSnapshot, *numbers: int) -> OrderSnapshot:
    """The order once these lines are rejected and the others accepted, with the totals that it then has."""
    lines = [
        replace(made, status="rejected" if n in numbers else "accepted", rejection_reason=None)
        for n, made in enumerate(one.lines)
    ]
    kept = [made for made in lines if made.status == "accepted"]
    subtotal = sum(made.line_subtotal_cents for made in kept)
    promo = one.discounts_cents - sum(made.line_subtotal_cents - made.line_total_cents for made in one.lines)
    net = max(0, sum(made.line_total_cents for made in kept) - promo)
    status = "rejected" if not kept else "partially_accepted" if len(kept) < len(lines) else "accepted"
    return replace(
        one, lines=lines, status=status, subtotal_cents=subtotal, discounts_cents=subtotal - net,
        total_cents=net + one.shipping_cents,
    )  # fmt: skip

"""Orders as events tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from models.orders.tables import Order, OrderLineItem
from schemas.records import AdAttribution, OrderLineSnapshot, OrderSnapshot, ShipTo


def snapshot(order: Order) -> OrderSnapshot:
    """The order as it is now; its lines and its intent are loaded."""
    return OrderSnapshot(
        order_id=order.id,
        number=order.number,
        checkout_group_id=order.checkout_group_id,
        cart_id=order.cart_id,
        buyer_store_id=order.buyer_store_id,
        vendor_store_id=order.vendor_store_id,
        status=order.status,
        currency=order.currency,
        subtotal_cents=order.subtotal_cents,
        discounts_cents=order.discounts_cents,
        shipping_cents=order.shipping_cents,
        total_cents=order.total_cents,
        payment_method=order.payment_method,
        payment_intent_id=order.payment_intent.id,
        payment_status=order.payment_intent.status,
        ship_to=_ship_to(order.shipping_address),
        created_at=order.created_at,
        nudge_at=order.nudge_at,
        expires_at=order.expires_at,
        lines=[_line(line) for line in order.line_items],
        promo_code=order.promo["code"] if order.promo else None,
        attribution=_attribution(order.attribution),
        nudged_at=order.nudged_at,
        retry_of=order.retry_of,
    )


def _line(line: OrderLineItem) -> OrderLineSnapshot:
    return OrderLineSnapshot(
        line_item_id=line.id,
        cart_item_id=line.cart_item_id,
        product_id=line.product_id,
        title=line.title,
        category=line.category,
        quantity=line.quantity,
        unit_price_cents=line.unit_price_cents,
        line_subtotal_cents=line.line_subtotal_cents,
        line_total_cents=line.line_total_cents,
        status=line.status,
        rejection_reason=line.rejection_reason,
        attribution=_attribution(line.attribution),
    )


def _ship_to(address: Mapping[str, Any]) -> ShipTo:
    return ShipTo(
        city=address["city"],
        state=address["state"],
        postal_code=address["postal_code"],
        country=address["country"],
        lat=address.get("lat"),
        lng=address.get("lng"),
    )


def _attribution(kept: Mapping[str, Any] | None) -> AdAttribution | None:
    if kept is None:
        return None
    return AdAttribution(
        ad_id=UUID(kept["ad_id"]),
        kind=kept["kind"],
        jti=UUID(kept["jti"]),
        target_type=kept["target_type"],
        target_id=UUID(kept["target_id"]),
        issued_at=datetime.fromisoformat(kept["issued_at"]),
        reason=kept["reason"],
    )

"""Checkouts and orders over HTTP."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from schemas.http.cart import PaymentMethod, PromoOut, VolumeDiscountOut, WarningOut
from schemas.http.common import DAY, Body, Id, Name, Shape, parse_day, parse_time
from schemas.http.stores import Address, AddressOut

SHIPPING_CENTS_MAX = 100_000_000
LINES_MAX = 100
REASON_CHARS_MAX = 500

Perspective = Literal["buyer", "vendor"]
OrderStatus = Literal[
    "pending",
    "accepted",
    "partially_accepted",
    "rejected",
    "canceled",
    "expired",
    "ready_for_dispatch",
    "in_transit",
    "delivered",
    "closed",
]
LineStatus = Literal["pending", "accepted", "rejected"]
IntentStatus = Literal["unpaid", "settled", "paid", "canceled"]


def parse_bound(text: object) -> date | datetime:
    """A UTC day or an RFC 3339 time; ValueError for anything else."""
    if isinstance(text, str) and DAY.fullmatch(text):
        try:
            return date.fromisoformat(str(parse_day(text)))
        except ValueError:
            raise ValueError("there is no such day") from None
    return parse_time(text)


Bound = Annotated[date | datetime, BeforeValidator(parse_bound, json_schema_input_type=str)]


class ShippingLine(Body):
    """What shipping costs; it is charged on each vendor's order."""

    code: Name
    title: Name
    price_cents: Annotated[int, Field(ge=0, le=SHIPPING_CENTS_MAX)]


class NewCheckout(Body):
    cart_id: Id
    shipping_address: Address
    payment_method: PaymentMethod
    shipping_line: ShippingLine | None = None


def _lines_once(decisions: list[LineDecision]) -> list[LineDecision]:
    lines = [one.line_item_id for one in decisions]
    if len(set(lines)) < len(lines):
        raise ValueError("a line may be decided once")
    return decisions


Reason = Annotated[str, StringConstraints(strip_whitespace=True, max_length=REASON_CHARS_MAX)]
Decision = Literal["accept", "reject"]


class CancelOrder(Body):
    reason: Reason | None = None


class DecideOrder(Body):
    """What the vendor says to all lines of an order that are still undecided; `reject`: to all of them."""

    decision: Decision
    reason: Reason | None = None


class LineDecision(Body):
    line_item_id: Id
    decision: Decision
    reason: Reason | None = None


class DecideLines(Body):
    """Each line at most once."""

    decisions: Annotated[list[LineDecision], Field(min_length=1, max_length=LINES_MAX), AfterValidator(_lines_once)]


class ShippingLineOut(Shape):
    code: str
    title: str
    price_cents: int


class AttributionOut(Shape):
    """The ad that led to an order or a line, as the checkout chose it; `reason` says why this one."""

    ad_id: UUID
    kind: Literal["impression", "click"]
    jti: UUID
    target_type: Literal["store", "product"]
    target_id: UUID
    issued_at: datetime
    reason: Literal["only", "click_before_impression", "newest", "smallest_jti"]


class LineItemOut(Shape):
    """A line as it was ordered; one that is rejected is in no total."""

    id: UUID
    cart_item_id: UUID
    product_id: UUID
    title: str
    category: str
    quantity: int
    unit_price_cents: int = Field(description="the list price")
    applied_volume_discount: VolumeDiscountOut | None
    moq: int
    max_qty: int | None
    line_subtotal_cents: int
    line_total_cents: int
    status: LineStatus
    rejection_reason: str | None
    warnings: list[WarningOut]
    attribution: AttributionOut | None


class PaymentIntentOut(Shape):
    id: UUID
    method: PaymentMethod
    status: IntentStatus
    amount_cents: int
    cash_collected_at: datetime | None
    settled_at: datetime | None
    paid_at: datetime | None


class OrderOut(Shape):
    """What one buyer store ordered of one vendor store in one checkout."""

    id: UUID
    number: str
    checkout_group_id: UUID
    cart_id: UUID
    buyer_store_id: UUID
    vendor_store_id: UUID
    status: OrderStatus
    currency: str
    subtotal_cents: int = Field(description="of the lines that are not rejected")
    discounts_cents: int = Field(description="volume and promo")
    shipping_cents: int
    total_cents: int
    payment_method: PaymentMethod
    shipping_address: AddressOut
    shipping_line: ShippingLineOut | None
    promo: PromoOut | None
    warnings: list[WarningOut]
    attribution: AttributionOut | None
    line_items: list[LineItemOut]
    payment_intent: PaymentIntentOut
    expires_at: datetime
    nudged_at: datetime | None
    retry_of: UUID | None
    decided_at: datetime | None
    decision_reason: str | None
    canceled_at: datetime | None
    cancel_reason: str | None
    expired_at: datetime | None
    ready_at: datetime | None
    in_transit_at: datetime | None
    delivered_at: datetime | None
    vendor_confirmed_paid_at: datetime | None
    closed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class RejectedVendorOut(Shape):
    """A vendor of the cart of whom nothing was ordered."""

    vendor_store_id: UUID
    reason: Literal["vendor_not_eligible", "insufficient_stock"]


class CheckoutOut(Shape):
    """A converted cart: an order of each vendor that had something to order."""

    checkout_group_id: UUID
    cart_id: UUID
    payment_method: PaymentMethod
    shipping_address: AddressOut
    shipping_line: ShippingLineOut | None
    vendor_orders: list[OrderOut]
    rejected_vendors: list[RejectedVendorOut]
    total_cents: int

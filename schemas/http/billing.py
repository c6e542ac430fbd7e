"""Shapes of subscriptions and of the billing history."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import StringConstraints

from schemas.http.common import Body, Shape

StripeId = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[A-Za-z0-9_]{1,255}$")]
Status = Literal["incomplete", "incomplete_expired", "trialing", "active", "past_due", "unpaid", "paused", "canceled"]


class NewSubscription(Body):
    """What it is paid with, as Stripe's own elements give it to the client."""

    payment_method_id: StripeId


class SubscriptionOut(Shape):
    """`active`: whether it lets the vendor sell, as far as the subscription goes."""

    id: UUID
    store_id: UUID
    status: Status
    active: bool
    payment_method_id: str | None
    current_period_end: datetime | None
    canceled_at: datetime | None
    stripe_subscription_id: str
    stripe_customer_id: str
    created_at: datetime


class BillingChargeOut(Shape):
    """An invoice, or a day's use that comes on one. `status` of an invoice is Stripe's."""

    id: UUID
    kind: Literal["invoice", "usage"]
    type: Literal["subscription", "ad_spend"]
    status: Literal["draft", "open", "paid", "uncollectible", "void", "recorded", "cleared", "billed"]
    amount_cents: int
    amount_paid_cents: int
    currency: str
    for_date: date | None
    number: str | None
    paid_at: datetime | None
    stripe_id: str | None
    created_at: datetime


class WebhookTaken(Shape):
    """What became of an event."""

    outcome: Literal["applied", "stale", "duplicate", "ignored", "no_store", "malformed"]

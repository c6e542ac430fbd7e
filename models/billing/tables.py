"""Customers, payment methods, subscriptions, invoices (`charges`), usage charges, Stripe's events, nightly checks."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base

LIVE = "status NOT IN ('canceled', 'incomplete_expired') AND replaced_at IS NULL"


class BillingCustomer(Base):
    """What Stripe knows a store as. It is committed before anything hangs on it at Stripe."""

    __tablename__ = "billing_customers"

    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"), primary_key=True)
    stripe_customer_id: Mapped[str] = mapped_column(Text, unique=True)
    created_at: Mapped[datetime]


class PaymentMethod(Base):
    """What a store pays with, as far as it may be shown."""

    __tablename__ = "payment_methods"
    __table_args__ = (Index(None, "store_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    stripe_payment_method_id: Mapped[str] = mapped_column(Text, unique=True)
    kind: Mapped[str] = mapped_column(Text)
    brand: Mapped[str | None] = mapped_column(Text)
    last4: Mapped[str | None] = mapped_column(Text)
    exp_month: Mapped[int | None] = mapped_column(SmallInteger)
    exp_year: Mapped[int | None] = mapped_column(SmallInteger)
    created_at: Mapped[datetime]


class Subscription(Base):
    """A store's subscription as Stripe last said of it."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        CheckConstraint(
            "status IN ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'unpaid', 'paused',"
            " 'canceled')",
            name="status",
        ),
        Index("uq_subscriptions_live", "store_id", unique=True, postgresql_where=text(LIVE)),
        Index(None, "store_id", "created_at"),
        Index(None, "stripe_customer_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    stripe_subscription_id: Mapped[str] = mapped_column(Text, unique=True)
    stripe_customer_id: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, comment="Stripe's")
    state_at: Mapped[datetime] = mapped_column(comment="as of when, by Stripe: older news changes nothing")
    request: Mapped[str | None] = mapped_column(Text, comment="the request that made it, as Stripe's metadata has it")
    stripe_payment_method_id: Mapped[str | None] = mapped_column(Text)
    current_period_end: Mapped[datetime | None]
    canceled_at: Mapped[datetime | None]
    replaced_at: Mapped[datetime | None] = mapped_column(comment="the store has another one that counts")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Charge(Base):
    """An invoice of Stripe's: the billing history."""

    __tablename__ = "charges"
    __table_args__ = (
        CheckConstraint("status IN ('draft', 'open', 'paid', 'uncollectible', 'void')", name="status"),
        Index(None, "store_id", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    stripe_invoice_id: Mapped[str] = mapped_column(Text, unique=True)
    stripe_subscription_id: Mapped[str | None] = mapped_column(Text)
    number: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, comment="Stripe's")
    state_at: Mapped[datetime] = mapped_column(comment="as of when, by Stripe: older news changes nothing")
    amount_due_cents: Mapped[int]
    amount_paid_cents: Mapped[int]
    currency: Mapped[str] = mapped_column(Text)
    period_start: Mapped[datetime | None]
    period_end: Mapped[datetime | None]
    paid_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class UsageCharge(Base):
    """What a store owes for one day of one kind of use. Its id is the idempotency key at Stripe."""

    __tablename__ = "usage_charges"
    __table_args__ = (
        UniqueConstraint("store_id", "type", "for_date"),
        CheckConstraint("type = 'ad_spend'", name="type"),
        CheckConstraint("status IN ('recorded', 'cleared', 'billed')", name="status"),
        CheckConstraint("spend_micros > 0 AND amount_cents >= 0", name="amount"),
        CheckConstraint("(status = 'billed') = (stripe_id IS NOT NULL)", name="billed"),
        Index(None, "for_date"),
        Index(None, "store_id", "created_at", "id"),
        Index("ix_usage_charges_cleared", "for_date", "id", postgresql_where=text("status = 'cleared'")),
        Index("uq_usage_charges_stripe_id", "stripe_id", unique=True, postgresql_where=text("stripe_id IS NOT NULL")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    type: Mapped[str] = mapped_column(Text)
    for_date: Mapped[date]
    spend_micros: Mapped[int]
    amount_cents: Mapped[int]
    currency: Mapped[str] = mapped_column(Text, default="USD")
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]
    stripe_id: Mapped[str | None] = mapped_column(Text, comment="of the invoice item that it became")
    billed_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"), comment="to hand it to Stripe")
    first_attempt_at: Mapped[datetime | None] = mapped_column(comment="wall time")
    next_attempt_at: Mapped[datetime | None] = mapped_column(comment="wall time: not before, a claim or a pause runs")
    last_error: Mapped[str | None] = mapped_column(Text)


class StripeEvent(Base):
    """An event that came, once."""

    __tablename__ = "stripe_events"
    __table_args__ = (Index(None, "received_at"),)

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    type: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(comment="by Stripe")
    received_at: Mapped[datetime]
    store_id: Mapped[UUID | None]
    outcome: Mapped[str] = mapped_column(Text, comment="what followed from it")


class BillingCheck(Base):
    """The nightly comparison with Stripe."""

    __tablename__ = "billing_checks"

    day: Mapped[date] = mapped_column(primary_key=True)
    checked_at: Mapped[datetime]
    ok: Mapped[bool]
    report: Mapped[dict[str, Any]]

"""Queries on subscriptions, invoices and usage charges."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Date, DateTime, Row, Text, cast, literal, null, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from models.billing.rules import ENDED, UsageType
from models.billing.tables import BillingCustomer, Charge, Subscription, UsageCharge
from models.errors import NotFound

__all__ = ["Subscription", "UsageCharge"]


async def ad_spend(tx: AsyncSession, day: date) -> dict[UUID, tuple[int, int]]:
    """Each store's charge for a day of advertising: (spend_micros, amount_cents)."""
    rows = await tx.execute(
        select(UsageCharge.store_id, UsageCharge.spend_micros, UsageCharge.amount_cents).where(
            UsageCharge.type == UsageType.AD_SPEND, UsageCharge.for_date == day
        )
    )
    return {store_id: (micros, cents) for store_id, micros, cents in rows}


async def ad_charges(tx: AsyncSession, day: date) -> dict[UUID, UsageCharge]:
    """The charges of a day of advertising, by store."""
    rows = await tx.scalars(
        select(UsageCharge).where(UsageCharge.type == UsageType.AD_SPEND, UsageCharge.for_date == day)
    )
    return {row.store_id: row for row in rows}


async def charge(tx: AsyncSession, charge_id: UUID) -> UsageCharge | None:
    """A usage charge, if there is one of this id."""
    return await tx.get(UsageCharge, charge_id)


async def customer_of(tx: AsyncSession, store_id: UUID) -> str | None:
    """What Stripe knows the store as, if it does."""
    return await tx.scalar(select(BillingCustomer.stripe_customer_id).where(BillingCustomer.store_id == store_id))


async def subscription(tx: AsyncSession, store_id: UUID) -> Subscription:
    """The store's subscription: the one that counts, else the last there was. NotFound."""
    query = select(Subscription).where(Subscription.store_id == store_id)
    counts = Subscription.status.not_in(ENDED) & Subscription.replaced_at.is_(None)
    found = await tx.scalar(query.order_by(counts.desc(), Subscription.created_at.desc()).limit(1))
    if found is None:
        raise NotFound
    return found


async def live(tx: AsyncSession, store_id: UUID) -> Subscription | None:
    """The store's subscription that counts and has not ended; there is one at most."""
    query = select(Subscription).where(Subscription.store_id == store_id, Subscription.replaced_at.is_(None))
    return await tx.scalar(query.where(Subscription.status.not_in(ENDED)))


async def history(
    tx: AsyncSession, store_id: UUID, *, limit: int, after: tuple[datetime, UUID] | None
) -> Sequence[Row[Any]]:
    """The store's invoices and usage charges, newest first."""
    invoices = select(
        Charge.id,
        literal("invoice").label("kind"),
        literal("subscription").label("type"),
        Charge.status,
        Charge.amount_due_cents.label("amount_cents"),
        Charge.amount_paid_cents,
        Charge.currency,
        cast(null(), Date).label("for_date"),
        Charge.number,
        Charge.paid_at,
        Charge.stripe_invoice_id.label("stripe_id"),
        Charge.created_at,
    ).where(Charge.store_id == store_id)
    usage = select(
        UsageCharge.id,
        literal("usage").label("kind"),
        UsageCharge.type,
        UsageCharge.status,
        UsageCharge.amount_cents,
        literal(0).label("amount_paid_cents"),
        UsageCharge.currency,
        UsageCharge.for_date,
        cast(null(), Text).label("number"),
        cast(null(), DateTime(timezone=True)).label("paid_at"),
        UsageCharge.stripe_id,
        UsageCharge.created_at,
    ).where(UsageCharge.store_id == store_id)
    both = union_all(_page(invoices, Charge, after, limit), _page(usage, UsageCharge, after, limit)).subquery()
    rows = await tx.execute(select(both).order_by(both.c.created_at.desc(), both.c.id.desc()).limit(limit))
    return rows.all()


def _page(query: Any, table: type[Charge | UsageCharge], after: tuple[datetime, UUID] | None, limit: int) -> Any:
    """What of one table can be on the page."""
    if after is not None:
        query = query.where(tuple_(table.created_at, table.id) < after)
    page = query.order_by(table.created_at.desc(), table.id.desc()).limit(limit).subquery()
    return select(page)

"""Stripe's events: each has its effect once, in one transaction, whatever the order they come in."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.billing import stripe_objects as objects
from models.billing import subscribing
from models.billing.rules import SubscriptionStatus, is_newer
from models.billing.stripe_objects import Event, InvoiceState, NotAnObject, SubscriptionState
from models.billing.subscribing import Outcome
from models.billing.tables import BillingCustomer, Charge, StripeEvent, Subscription
from models.database import new_id
from models.stores import reads as stores
from models.stores.rules import StoreType

SUBSCRIPTIONS: Final = "customer.subscription."
DELETED: Final = "customer.subscription.deleted"
INVOICES: Final = "invoice."

log = structlog.get_logger(__name__)


class Taken(StrEnum):
    """What became of an event; beside these, an Outcome."""

    DUPLICATE = "duplicate"  #: it was taken before
    IGNORED = "ignored"  #: of a type that nothing follows from
    NO_STORE = "no_store"  #: about nobody we know
    MALFORMED = "malformed"  #: what it is about is not what it should be


class Effect(NamedTuple):
    """What became of an event, and for which store."""

    outcome: str
    store_id: UUID | None


async def take(tx: AsyncSession, event: Event, *, actor: str, now: datetime) -> str:
    """The event's effect, in the caller's transaction; what became of it. A twin under way is waited for."""
    first = insert(StripeEvent).values(
        id=event.id, type=event.type, created_at=event.created_at, received_at=now, outcome=Taken.IGNORED
    )
    if (await tx.execute(first.on_conflict_do_nothing().returning(StripeEvent.id))).first() is None:
        return Taken.DUPLICATE
    effect = await _effect(tx, event, actor=actor, now=now)
    await tx.execute(update(StripeEvent).where(StripeEvent.id == event.id).values(**effect._asdict()))
    return effect.outcome


async def _effect(tx: AsyncSession, event: Event, *, actor: str, now: datetime) -> Effect:
    try:
        if event.type.startswith(SUBSCRIPTIONS):
            return await _subscription(tx, event, actor=actor, now=now)
        if event.type.startswith(INVOICES) and event.object.get("id"):  # an upcoming one has none
            return await _invoice(tx, event)
    except NotAnObject as exc:
        log.warning("stripe_event_malformed", event_id=event.id, type=event.type, error=str(exc))
        return Effect(Taken.MALFORMED, None)
    return Effect(Taken.IGNORED, None)


async def _subscription(tx: AsyncSession, event: Event, *, actor: str, now: datetime) -> Effect:
    state = objects.subscription_of(event.object, at=event.created_at)
    if event.type == DELETED:
        state = state._replace(status=SubscriptionStatus.CANCELED, canceled_at=state.canceled_at or event.created_at)
    store_id = await _store_of(tx, state.stripe_id, state)
    if store_id is None:
        return Effect(Taken.NO_STORE, None)
    return Effect(await subscribing.apply(tx, store_id, state, at=event.created_at, actor=actor, now=now), store_id)


async def _invoice(tx: AsyncSession, event: Event) -> Effect:
    state = objects.invoice_of(event.object, at=event.created_at)
    store_id = await _store_of(tx, state.subscription_id, state)
    if store_id is None:
        return Effect(Taken.NO_STORE, None)
    await stores.store(tx, store_id, lock=True)  # so that two events about one invoice come one after the other
    found = await tx.scalar(select(Charge).where(Charge.stripe_invoice_id == state.stripe_id))
    if found is not None and not is_newer(state.status, event.created_at, found.status, found.state_at):
        return Effect(Outcome.STALE, store_id)
    row = found or Charge(id=new_id(), store_id=store_id, stripe_invoice_id=state.stripe_id)
    _fill(row, state, at=event.created_at)
    tx.add(row)
    await tx.flush()
    return Effect(Outcome.APPLIED, row.store_id)


def _fill(row: Charge, state: InvoiceState, *, at: datetime) -> None:
    row.stripe_subscription_id = state.subscription_id
    row.number, row.status, row.state_at = state.number, state.status, at
    row.amount_due_cents, row.amount_paid_cents = state.amount_due_cents, state.amount_paid_cents
    row.currency, row.paid_at = state.currency, state.paid_at
    row.period_start, row.period_end, row.created_at = state.period_start, state.period_end, state.created_at


async def _store_of(
    tx: AsyncSession, subscription_id: str | None, state: SubscriptionState | InvoiceState
) -> UUID | None:
    """The vendor store that it is about: by subscription, then by customer, then by our own mark."""
    known = Subscription.store_id
    queries = (
        select(known).where(Subscription.stripe_subscription_id == subscription_id),
        select(BillingCustomer.store_id).where(BillingCustomer.stripe_customer_id == state.customer_id),
        select(known).where(Subscription.stripe_customer_id == state.customer_id).limit(1),
    )
    for query in queries if state.customer_id else queries[:1]:
        if (found := await tx.scalar(query)) is not None:
            return found
    if state.store_id is None:
        return None
    store = (await stores.by_ids(tx, [state.store_id])).get(state.store_id)
    return store.id if store is not None and store.type == StoreType.VENDOR else None

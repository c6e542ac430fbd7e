"""Commands on subscriptions: what Stripe says of one becomes the store's row, its standing, and what others hear."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import audit
from models.billing import reads
from models.billing.rules import PAYING, SubscriptionStatus, is_newer
from models.billing.stripe_objects import MethodState, SubscriptionState
from models.billing.tables import BillingCustomer, PaymentMethod, Subscription
from models.database import new_id
from models.errors import AlreadyExists, NotFound
from models.notifications import writes as notifications
from models.notifications.rules import NotificationKind
from models.stores import reads as stores_reads
from models.stores import writes as stores

LOCK: Final = 0x62696C6C  #: pg_advisory_xact_lock's first half; the second is the store's
LOCK_WAIT_MS: Final = 10_000


class Outcome(StrEnum):
    """What followed from news of Stripe."""

    APPLIED = "applied"
    STALE = "stale"  #: something newer is known


async def lock_store(tx: AsyncSession, store_id: UUID) -> None:
    """One at a time asks Stripe for a store, until the transaction ends. Nothing but such asking waits for it."""
    await tx.execute(text(f"SET LOCAL lock_timeout = {LOCK_WAIT_MS}"))
    await tx.execute(select(func.pg_advisory_xact_lock(LOCK, func.hashtext(str(store_id)))))


async def keep_customer(tx: AsyncSession, store_id: UUID, customer_id: str, *, now: datetime) -> None:
    """What Stripe knows the store as; the first stays."""
    row = insert(BillingCustomer).values(store_id=store_id, stripe_customer_id=customer_id, created_at=now)
    await tx.execute(row.on_conflict_do_nothing())


async def made_before(tx: AsyncSession, store_id: UUID, request: str) -> Subscription | None:
    """The subscription that this very request has made already; None: there is none that counts.

    Raises AlreadyExists where there is one that another request made.
    """
    found = await reads.live(tx, store_id)
    if found is not None and found.request != request:
        raise AlreadyExists("the store has a subscription")
    return found


async def opened(
    tx: AsyncSession, store_id: UUID, state: SubscriptionState, method: MethodState | None, *, actor: str, now: datetime
) -> Subscription:
    """Stripe has made a subscription for the store: it counts from now on."""
    if method is not None:
        await _keep_method(tx, store_id, method, now=now)
    await apply(tx, store_id, state, at=state.created_at, actor=actor, now=now)
    return await reads.subscription(tx, store_id)


async def ended(
    tx: AsyncSession, store_id: UUID, state: SubscriptionState, *, actor: str, now: datetime
) -> Subscription:
    """Stripe has ended the store's subscription."""
    await apply(tx, store_id, state, at=state.canceled_at or now, actor=actor, now=now)
    return await reads.subscription(tx, store_id)


async def apply(
    tx: AsyncSession, store_id: UUID, state: SubscriptionState, *, at: datetime, actor: str, now: datetime
) -> Outcome:
    """Take over a state that Stripe had at `at`, unless a newer one is known; the store's standing follows.

    NotFound for an unknown store.
    """
    await stores_reads.store(tx, store_id, lock=True)
    query = select(Subscription).where(Subscription.stripe_subscription_id == state.stripe_id)
    found = await tx.scalar(query.execution_options(populate_existing=True))
    if found is not None and found.store_id != store_id:
        raise NotFound
    if found is not None and not is_newer(state.status, at, found.status, found.state_at):
        return Outcome.STALE
    before = None if found is None else found.status
    row = found or Subscription(id=new_id(), store_id=store_id, created_at=state.created_at)
    _take_over(row, state, at=at, now=now)
    with tx.no_autoflush:
        await _choose(tx, row, now=now)
    tx.add(row)
    await tx.flush()
    await stores.set_subscription(tx, store_id, await _pays(tx, store_id), actor=actor, now=now)
    if before != row.status:
        await _tell(tx, row, before, actor=actor, now=now)
    return Outcome.APPLIED


def _take_over(row: Subscription, state: SubscriptionState, *, at: datetime, now: datetime) -> None:
    row.stripe_subscription_id = state.stripe_id
    row.stripe_customer_id = row.stripe_customer_id or state.customer_id
    row.status, row.state_at, row.updated_at = state.status, at, now
    row.request = state.request or row.request
    row.stripe_payment_method_id = state.payment_method_id or row.stripe_payment_method_id
    row.current_period_end = state.current_period_end or row.current_period_end
    row.canceled_at = state.canceled_at


async def _choose(tx: AsyncSession, row: Subscription, *, now: datetime) -> None:
    """Which of a store's subscriptions counts, should it ever have two: one that pays; of two, the younger."""
    other = await reads.live(tx, row.store_id)
    if other is None or other.id == row.id:
        row.replaced_at = None
        return
    if (row.status in PAYING, row.created_at) > (other.status in PAYING, other.created_at):
        row.replaced_at = None
        await tx.execute(update(Subscription).where(Subscription.id == other.id).values(replaced_at=now))
    else:
        row.replaced_at = now


async def _pays(tx: AsyncSession, store_id: UUID) -> bool:
    found = await reads.live(tx, store_id)
    return found is not None and found.status in PAYING


async def _keep_method(tx: AsyncSession, store_id: UUID, method: MethodState, *, now: datetime) -> None:
    fields = method._asdict()
    fields["stripe_payment_method_id"] = fields.pop("stripe_id")
    row = insert(PaymentMethod).values(id=new_id(), store_id=store_id, created_at=now, **fields)
    await tx.execute(row.on_conflict_do_nothing())


async def _tell(tx: AsyncSession, row: Subscription, before: str | None, *, actor: str, now: datetime) -> None:
    audit.record(
        tx,
        actor=actor,
        action="subscription.changed",
        object_type="subscription",
        object_id=row.id,
        store_id=row.store_id,
        now=now,
        change={"status": [before, row.status]},
    )
    if row.replaced_at is not None or row.status == SubscriptionStatus.INCOMPLETE:
        return
    await notifications.request(
        tx,
        store_id=row.store_id,
        kind=NotificationKind.SUBSCRIPTION_CHANGED,
        subject_id=row.id,
        values={"state": row.status.replace("_", " ")},
        actor=actor,
        now=now,
    )

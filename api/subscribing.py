"""A vendor subscribes, or ends it: Stripe is asked, and what it says is written.

A store's requests come one after the other (an advisory lock; no row is locked while Stripe is asked). A crash between
Stripe's answer and our commit leaves a subscription that Stripe knows by our marks: the same request, sent again, gets
it by its idempotency key, any other finds it on the customer, which was committed first. There are never two.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import NoReturn
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from api.billing_services import BillingServices
from api.dependencies import Member
from api.services import Services
from models.billing import reads, subscribing
from models.billing.gateway import Stripe, StripeRefused
from models.billing.reads import Subscription
from models.billing.rules import ENDED
from models.errors import FieldError, ValidationFailed

FIELD = "payment_method_id"

log = structlog.get_logger(__name__)


def request_mark(store_id: UUID, key: str) -> str:
    """What marks a request at Stripe: equal for the same Idempotency-Key of the same store."""
    return hashlib.sha256(f"{store_id}:{key}".encode()).hexdigest()[:32]


async def subscribe(
    process: Services,
    billing: BillingServices,
    tx: AsyncSession,
    member: Member,
    payment_method_id: str,
    *,
    key: str,
    now: datetime,
) -> Subscription:
    """The store's subscription, made now or by the same request before.

    AlreadyExists, ValidationFailed (the payment method), Unavailable.
    """
    store_id, request = member.store_id, request_mark(member.store_id, key)
    await subscribing.lock_store(tx, store_id)
    before = await subscribing.made_before(tx, store_id, request)
    if before is not None:
        return before
    stripe = billing.stripe
    customer_id = await _customer(process, stripe, store_id, now=now)
    try:
        state, method = await stripe.live_subscription(customer_id), None
        if state is None:
            method = await stripe.attach(customer_id, payment_method_id, key=f"attach:{request}:{payment_method_id}")
            state = await stripe.subscribe(
                customer_id,
                method.stripe_id,
                store_id=store_id,
                request=request,
                key=f"subscribe:{request}:{method.stripe_id}",
            )
    except StripeRefused as exc:
        _refuse(exc)
    log.info("subscribed", store_id=str(store_id), stripe_subscription_id=state.stripe_id, status=state.status)
    return await subscribing.opened(tx, store_id, state, method, actor=member.actor, now=now)


async def cancel(billing: BillingServices, tx: AsyncSession, member: Member, *, now: datetime) -> Subscription:
    """The store's subscription, ended now or before. NotFound, Unavailable."""
    await subscribing.lock_store(tx, member.store_id)
    found = await reads.subscription(tx, member.store_id)
    if found.status in ENDED:
        return found
    try:
        state = await billing.stripe.cancel(found.stripe_subscription_id)
    except StripeRefused as exc:
        _refuse(exc)
    return await subscribing.ended(tx, member.store_id, state, actor=member.actor, now=now)


async def _customer(process: Services, stripe: Stripe, store_id: UUID, *, now: datetime) -> str:
    """What Stripe knows the store as: committed before anything hangs on it."""
    async with process.transaction() as own:
        known = await reads.customer_of(own, store_id)
    if known is not None:
        return known
    made = await stripe.make_customer(store_id, key=f"customer:{store_id}")
    async with process.transaction() as own:
        await subscribing.keep_customer(own, store_id, made, now=now)
        return await reads.customer_of(own, store_id) or made


def _refuse(exc: StripeRefused) -> NoReturn:
    log.info("stripe_refused", code=exc.code)
    raise ValidationFailed("Stripe refuses it", errors=[FieldError(FIELD, exc.code, exc.message)]) from exc

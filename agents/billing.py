"""The `billing` agent: usage charges that reconciliation has cleared become usage at Stripe, each exactly once.

The charge's event tells of a charge; that it may be billed is known only later, from its row. So the agent holds the
event against the row, and the biller takes up what is cleared: it does not depend on partitions, and goes on after a
crash. Between Stripe's answer and our commit anything may die: the charge's id is the idempotency key of the next try,
and once Stripe may have forgotten keys (a day), what the charge became is looked up by its mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from agents.outages import passing
from agents.runtime.effects import Handler
from models.billing import reads, subscribing, usage
from models.billing.gateway import Stripe, StripeRefused
from models.billing.stripe_objects import UsageState
from models.billing.usage import Due
from models.database import SessionFactory
from schemas.records import AdDailyChargeRecorded

ACTOR: Final = "billing"
AT_ONCE: Final = 4  #: no more than the worker has connections

USAGE = Counter("packstream_usage_charges_total", "attempts to hand a usage charge to Stripe", ["outcome"])
STRANGE = Counter("packstream_usage_charges_strange_total", "charges told of that the database has not: alarm")
TWICE = Counter("packstream_usage_charges_twice_total", "charges that Stripe has twice: alarm")

log = structlog.get_logger(__name__)


def handlers() -> Mapping[str, Handler]:
    """What the agent does, by event type."""
    return {"ad_daily_charge_recorded": confirm}


async def confirm(tx: AsyncSession, event: AdDailyChargeRecorded) -> None:
    """Hold a charge that the topic tells of against the row that will be billed; the row decides."""
    row = await reads.charge(tx, event.charge_id)
    told = (event.store_id, event.for_date, event.spend_micros, event.amount_cents)
    if row is None or (row.store_id, row.for_date, row.spend_micros, row.amount_cents) != told:
        STRANGE.inc()
        log.error("usage_charge_strange", charge_id=str(event.charge_id), event_id=str(event.event_id))


class Biller:
    """One process's share in billing. Any number may run. `attempt_s` bounds one charge's way to Stripe."""

    def __init__(
        self, *, sessions: SessionFactory, stripe: Stripe, attempt_s: float, now: Callable[[], datetime]
    ) -> None:
        self._sessions, self._stripe, self._now = sessions, stripe, now
        self._attempt_s = attempt_s

    async def round(self) -> int:
        """Hand over what is due, up to AT_ONCE charges; how many."""
        async with self._sessions.begin() as tx:
            claim_for = timedelta(seconds=2 * self._attempt_s)
            due = await usage.claim(tx, limit=AT_ONCE, claim_for=claim_for, wall=datetime.now(UTC))
        await asyncio.gather(*(self._bill(one) for one in due))
        return len(due)

    async def _bill(self, due: Due) -> None:
        try:
            async with asyncio.timeout(self._attempt_s):
                found = await self._hand_over(due)
        except Exception as exc:
            await self._put_off(due, exc)
            return
        async with self._sessions.begin() as tx:
            once = await usage.record(tx, due, found, actor=ACTOR, now=self._now())
        if not once:
            TWICE.inc()
            log.error("usage_charge_billed_twice", charge_id=str(due.id), stripe_id=found.stripe_id)
        USAGE.labels("billed").inc()
        log.info("usage_charge_billed", charge_id=str(due.id), store_id=str(due.store_id), stripe_id=found.stripe_id)

    async def _hand_over(self, due: Due) -> UsageState:
        """What the charge is at Stripe, now or since an earlier try."""
        customer_id = due.customer_id or await self._customer(due)
        if not due.by_key:
            found = await self._stripe.find_usage(customer_id, due.id)
            if found is not None:
                return found
        return await self._stripe.add_usage(
            customer_id, due.id, amount_cents=due.amount_cents, currency=due.currency, description=due.description
        )

    async def _customer(self, due: Due) -> str:
        """What Stripe knows the store as: committed before anything hangs on it."""
        made = await self._stripe.make_customer(due.store_id, key=f"customer:{due.store_id}")
        async with self._sessions.begin() as tx:
            await subscribing.keep_customer(tx, due.store_id, made, now=self._now())
            return await reads.customer_of(tx, due.store_id) or made

    async def _put_off(self, due: Due, exc: Exception) -> None:
        outcome = "waits" if passing(exc) else "refused"
        USAGE.labels(outcome).inc()
        say = log.warning if outcome == "waits" else log.error
        say("usage_charge_put_off", charge_id=str(due.id), outcome=outcome, error=repr(exc))
        async with self._sessions.begin() as tx:
            error = str(exc) if isinstance(exc, StripeRefused) else repr(exc)
            await usage.put_off(tx, due, error, wall=datetime.now(UTC))

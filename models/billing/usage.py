"""Usage charges on their way to Stripe: claimed, handed over outside any transaction, recorded. Each becomes one item.

The charge's id is the idempotency key. Claims and pauses are on the wall clock.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from models import audit
from models.billing.rules import RETRY_BY_KEY, UsageStatus, retry_after
from models.billing.stripe_objects import UsageState
from models.billing.tables import BillingCustomer, UsageCharge

ERROR_CHARS_MAX: Final = 500


class Due(NamedTuple):
    """A charge to hand to Stripe now. `by_key`: the key still stands for what an earlier attempt may have done."""

    id: UUID
    store_id: UUID
    customer_id: str | None
    amount_cents: int
    currency: str
    for_date: date
    by_key: bool

    @property
    def description(self) -> str:
        """As it stands on the invoice."""
        return f"Advertising on {self.for_date.isoformat()}"


async def claim(tx: AsyncSession, *, limit: int, claim_for: timedelta, wall: datetime) -> list[Due]:
    """Cleared charges, the oldest first, which nobody else takes up before `claim_for` is over."""
    ready = or_(UsageCharge.next_attempt_at.is_(None), UsageCharge.next_attempt_at <= wall)
    query = select(UsageCharge).where(UsageCharge.status == UsageStatus.CLEARED, ready)
    query = query.order_by(UsageCharge.for_date, UsageCharge.id).limit(limit).with_for_update(skip_locked=True)
    charges = (await tx.scalars(query)).all()
    stores = [charge.store_id for charge in charges]
    customers = await tx.execute(
        select(BillingCustomer.store_id, BillingCustomer.stripe_customer_id).where(BillingCustomer.store_id.in_(stores))
    )
    known: dict[UUID, str] = {row.store_id: row.stripe_customer_id for row in customers}
    return [_claimed(charge, known.get(charge.store_id), wall + claim_for, wall) for charge in charges]


def _claimed(charge: UsageCharge, customer_id: str | None, until: datetime, wall: datetime) -> Due:
    by_key = charge.first_attempt_at is None or wall - charge.first_attempt_at < RETRY_BY_KEY
    charge.attempts += 1
    charge.first_attempt_at = charge.first_attempt_at or wall
    charge.next_attempt_at = until
    return Due(charge.id, charge.store_id, customer_id, charge.amount_cents, charge.currency, charge.for_date, by_key)


async def record(tx: AsyncSession, due: Due, usage: UsageState, *, actor: str, now: datetime) -> bool:
    """Stripe has it. False when it is recorded already as another item: the charge was billed twice."""
    charge = await tx.get_one(UsageCharge, due.id, with_for_update={"key_share": True})
    if charge.status == UsageStatus.BILLED:
        return charge.stripe_id == usage.stripe_id
    charge.status, charge.stripe_id, charge.billed_at = UsageStatus.BILLED, usage.stripe_id, now
    charge.next_attempt_at, charge.last_error = None, None
    audit.record(
        tx,
        actor=actor,
        action="usage_charge.billed",
        object_type="usage_charge",
        object_id=charge.id,
        store_id=charge.store_id,
        now=now,
        change={"stripe_id": [None, usage.stripe_id], "amount_cents": [None, charge.amount_cents]},
    )
    return True


async def put_off(tx: AsyncSession, due: Due, error: str, *, wall: datetime) -> None:
    """It did not go well: again after a pause."""
    charge = await tx.get_one(UsageCharge, due.id, with_for_update={"key_share": True})
    if charge.status == UsageStatus.CLEARED:
        charge.next_attempt_at = wall + retry_after(charge.attempts)
        charge.last_error = error[:ERROR_CHARS_MAX].replace("\0", "")

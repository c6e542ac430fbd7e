"""What we have and what Stripe has, held against each other: usage, subscriptions, and what stores may do by them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.billing.rules import ENDED, PAYING, UsageStatus
from models.billing.stripe_objects import SubscriptionState, UsageState
from models.billing.tables import BillingCheck, Subscription, UsageCharge
from models.stores import reads as stores


class Difference(NamedTuple):
    """What Stripe says (`expected`) and what we have (`found`). `level`: usage, subscription or store."""

    level: str
    key: str
    expected: Any
    found: Any


class Billed(NamedTuple):
    """A usage charge. `under_way`: somebody is handing it over just now."""

    stripe_id: str | None
    amount_cents: int
    currency: str
    under_way: bool


class Held(NamedTuple):
    """A subscription as we have it."""

    store_id: UUID
    status: str
    counts: bool


class Ours(NamedTuple):
    """Our side. `active`: what the store's row says."""

    usage: dict[UUID, Billed]
    subscriptions: dict[str, Held]
    active: dict[UUID, bool]


async def ours(tx: AsyncSession, *, since: datetime, charge_ids: Iterable[UUID], wall: datetime) -> Ours:
    """Charges billed since then, or named; all subscriptions; the stores that have one."""
    wanted = or_(
        (UsageCharge.status == UsageStatus.BILLED) & (UsageCharge.billed_at >= since),
        UsageCharge.id.in_(list(charge_ids)),
    )
    usage = {
        row.id: Billed(row.stripe_id, row.amount_cents, row.currency, _under_way(row, wall))
        for row in await tx.scalars(select(UsageCharge).where(wanted))
    }
    held = {
        row.stripe_subscription_id: Held(row.store_id, row.status, row.replaced_at is None)
        for row in await tx.scalars(select(Subscription))
    }
    found = await stores.by_ids(tx, {one.store_id for one in held.values()})
    return Ours(usage, held, {store_id: store.subscription_active for store_id, store in found.items()})


def _under_way(row: UsageCharge, wall: datetime) -> bool:
    return row.status == UsageStatus.CLEARED and row.next_attempt_at is not None and row.next_attempt_at > wall


def compare(known: Ours, usage: Sequence[UsageState], subscriptions: Sequence[SubscriptionState]) -> list[Difference]:
    """Everything in which the two sides differ. Pure."""
    return [*_usage(known.usage, usage), *_subscriptions(known, subscriptions), *_stores(known, subscriptions)]


def _usage(known: Mapping[UUID, Billed], usage: Sequence[UsageState]) -> list[Difference]:
    items: dict[UUID, list[UsageState]] = defaultdict(list)
    for one in usage:
        if one.charge_id is not None:
            items[one.charge_id].append(one)
    found = []
    for charge_id in sorted(known.keys() | items.keys()):
        charge = known.get(charge_id)
        theirs = sorted((one.stripe_id, one.amount_cents, one.currency) for one in items[charge_id])
        mine = [] if charge is None or charge.stripe_id is None else [(charge.stripe_id, *charge[1:3])]
        if theirs != mine and not (charge is not None and charge.under_way and len(theirs) < 2):
            found.append(
                Difference("usage", str(charge_id), [list(one) for one in theirs], [list(one) for one in mine])
            )
    return found


def _subscriptions(known: Ours, subscriptions: Sequence[SubscriptionState]) -> list[Difference]:
    theirs = {one.stripe_id: one for one in subscriptions}
    found = []
    for stripe_id in sorted(known.subscriptions.keys() | theirs.keys()):
        held, state = known.subscriptions.get(stripe_id), theirs.get(stripe_id)
        if held is None and (state is None or state.store_id is None or state.status in ENDED):
            continue  # somebody else's, or over before we heard of it
        mine, expected = None if held is None else held.status, None if state is None else state.status.value
        if mine != expected and not (state is None and mine in ENDED):
            found.append(Difference("subscription", stripe_id, expected, mine))
    return found


def _stores(known: Ours, subscriptions: Sequence[SubscriptionState]) -> list[Difference]:
    """Nobody pays twice, and who pays may sell."""
    live: dict[UUID, int] = defaultdict(int)
    for one in subscriptions:
        held = known.subscriptions.get(one.stripe_id)
        if held is not None and one.status not in ENDED:
            live[held.store_id] += 1
    found = [
        Difference("store", str(store_id), "one live subscription", f"{count} live subscriptions")
        for store_id, count in sorted(live.items())
        if count > 1
    ]
    for store_id, active in sorted(known.active.items()):
        pays = any(
            held.counts and held.status in PAYING for held in known.subscriptions.values() if held.store_id == store_id
        )
        if active != pays:
            found.append(Difference("store", str(store_id), f"active: {pays}", f"active: {active}"))
    return found


async def last_checked(tx: AsyncSession) -> date | None:
    """The last day that was checked."""
    return await tx.scalar(select(func.max(BillingCheck.day)))


async def keep(tx: AsyncSession, day: date, *, ok: bool, report: dict[str, Any], now: datetime) -> None:
    """A day's check; the last of the day stays."""
    fields = {"checked_at": now, "ok": ok, "report": report}
    row = insert(BillingCheck).values(day=day, **fields)
    await tx.execute(row.on_conflict_do_update(index_elements=["day"], set_=fields))

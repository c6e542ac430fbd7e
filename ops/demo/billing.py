"""What the vendors of the demo owe, as Stripe has it: each charge once, and not a cent more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from agents.billing_check import Checked, check
from models.clock import Clock
from models.database import make_engine, make_sessions
from ops.demo.books import Difference
from ops.settings import Settings
from ops.stripe_account import stripe_account


@dataclass(frozen=True, slots=True)
class Billing:
    """The check against Stripe, and what it has of the demo's charges."""

    checked: Checked
    cents: int

    @property
    def items(self) -> int:
        return self.checked.items

    def as_json(self) -> dict[str, int]:
        return {"subscriptions": self.checked.subscriptions, "usage_items": self.items, "usage_cents": self.cents}


async def compare_with_stripe(settings: Settings) -> Billing:
    """Everything that Stripe has, held against Postgres."""
    stripe = stripe_account(settings)
    assert stripe is not None, "the demo's stack has a Stripe"
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-demo")
    sessions, clock = make_sessions(engine), Clock()
    try:
        async with sessions() as tx:
            await clock.refresh(tx)
        checked = await check(sessions, stripe, now=clock.now())
        cents = sum([one.amount_cents async for one in stripe.all_usage(checked.since)])
    finally:
        await stripe.close()
        await engine.dispose()
    return Billing(checked, cents)


def check_billing(
    billing: Billing, vendors: set[str], charges: Mapping[tuple[date, str], tuple[int, int]], reconciled: Sequence[date]
) -> list[Difference]:
    """Every vendor subscribes; the charges of reconciled days are at Stripe, and nothing else is. Pure."""
    due = [cents for (day, _), (_, cents) in charges.items() if day in reconciled]
    sums = {
        "subscriptions": (len(vendors), billing.checked.subscriptions),
        "usage items": (len(due), billing.items),
        "usage cents": (sum(due), billing.cents),
    }
    return [
        *(Difference("stripe", name, wanted, found) for name, (wanted, found) in sums.items() if wanted != found),
        *(Difference(f"stripe: {d.level}", d.key, d.expected, d.found) for d in billing.checked.differences),
    ]

"""The check against Stripe: both sides are read and compared; what differs twice in a row differs.

It runs every night beside the housekeeping leader's chores, on connections of its own (Stripe may be slow, ticks may
not), and whenever an operator asks (`packstream billing check`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from prometheus_client import Counter, Gauge

from agents.outages import DATABASE_GONE
from models.billing import checking
from models.billing.checking import Difference
from models.billing.gateway import Stripe
from models.clock import Clock
from models.database import SessionFactory, make_engine, make_sessions
from models.errors import Unavailable
from ops.settings import Settings
from ops.stripe_account import stripe_account

DAYS: Final = 35  #: of usage; longer than a month's invoice takes
MARGIN: Final = timedelta(days=1)  #: by which Stripe's clock and ours may differ
AGAIN_S: Final = 5.0  #: what is under way between the two sides has arrived by then
NOT_BEFORE_HOUR: Final = 2  #: UTC
POLL_S: Final = 60.0
POLL_BY_TEST_CLOCK_S: Final = 1.0  #: where the logical clock may jump
PAUSE_AFTER_ERROR_S: Final = 30.0
KEPT_MAX: Final = 200  #: differences in a kept report; the rest is counted

DIFFERENCES = Gauge(
    "packstream_billing_differences", "in which we and Stripe differed at the last check: alarm above 0"
)
CHECKS = Counter("packstream_billing_checks_total", "checks against Stripe", ["outcome"])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Checked:
    """One check. Counts are of what was compared."""

    since: datetime
    charges: int
    items: int
    subscriptions: int
    differences: list[Difference]

    @property
    def ok(self) -> bool:
        return not self.differences

    def as_json(self, differences_max: int | None = None) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "since": self.since.isoformat(),
            "charges": self.charges,
            "items": self.items,
            "subscriptions": self.subscriptions,
            "differences": [one._asdict() for one in self.differences[:differences_max]],
        }


async def check(sessions: SessionFactory, stripe: Stripe, *, now: datetime, again_s: float = AGAIN_S) -> Checked:
    """Compare, and compare again what differs: only what stays is a difference. Unavailable while Stripe is away."""
    found = await _compare(sessions, stripe, now=now)
    if found.ok:
        return found
    await asyncio.sleep(again_s)
    second = await _compare(sessions, stripe, now=now)
    stayed = [one for one in second.differences if one in found.differences]
    return Checked(second.since, second.charges, second.items, second.subscriptions, stayed)


async def _compare(sessions: SessionFactory, stripe: Stripe, *, now: datetime) -> Checked:
    """Our billed charges are read first, so that Stripe's list has the item of each; then ours to Stripe's items."""
    since = now - timedelta(days=DAYS)
    async with sessions() as tx:
        before = await checking.ours(tx, since=since + MARGIN, charge_ids=(), wall=datetime.now(UTC))
    usage = [one async for one in stripe.all_usage(since)]
    subscriptions = [one async for one in stripe.all_subscriptions()]
    marked = {one.charge_id for one in usage if one.charge_id is not None} | before.usage.keys()
    async with sessions() as tx:
        known = await checking.ours(tx, since=now + MARGIN, charge_ids=marked, wall=datetime.now(UTC))
    differences = checking.compare(known, usage, subscriptions)
    return Checked(since, len(known.usage), len(usage), len(subscriptions), differences)


@asynccontextmanager
async def checking_billing(settings: Settings) -> AsyncIterator[None]:
    """The nightly check runs until the block ends; not at all where no Stripe is configured."""
    stripe = stripe_account(settings)
    if stripe is None:
        yield
        return
    task = asyncio.create_task(_run(settings, stripe), name="billing-check")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stripe.close()


async def _run(settings: Settings, stripe: Stripe) -> None:
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-billing-check")
    nights = Nights(make_sessions(engine), stripe, follow=settings.test_clock)
    poll_s = POLL_BY_TEST_CLOCK_S if settings.test_clock else POLL_S
    try:
        while True:
            try:
                await nights.check_due()
                await asyncio.sleep(poll_s)
            except (Unavailable, *DATABASE_GONE) as exc:
                CHECKS.labels("waits").inc()
                log.warning("billing_check_waits", error=repr(exc))
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
            except Exception:
                CHECKS.labels("failed").inc()
                log.exception("billing_check_failed")
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
    finally:
        await engine.dispose()


class Nights:
    """Checks once for each day, after NOT_BEFORE_HOUR; whoever leads, for a check is kept. `follow`: the test clock."""

    def __init__(self, sessions: SessionFactory, stripe: Stripe, *, follow: bool) -> None:
        self._sessions, self._stripe, self._follow = sessions, stripe, follow
        self._clock = Clock()

    async def check_due(self, *, again_s: float = AGAIN_S) -> Checked | None:
        """The day's check, if it is its time."""
        async with self._sessions() as tx:
            if self._follow:
                await self._clock.refresh(tx)
            last = await checking.last_checked(tx)
        now = self._clock.now()
        if now.hour < NOT_BEFORE_HOUR or (last is not None and last >= now.date()):
            return None
        found = await check(self._sessions, self._stripe, now=now, again_s=again_s)
        async with self._sessions.begin() as tx:
            await checking.keep(tx, now.date(), ok=found.ok, report=found.as_json(KEPT_MAX), now=now)
        tell(found)
        return found


def tell(found: Checked) -> None:
    """Metrics and log of a check."""
    DIFFERENCES.set(len(found.differences))
    CHECKS.labels("ok" if found.ok else "differs").inc()
    for one in found.differences[:KEPT_MAX]:
        log.error("billing_differs", **one._asdict())
    log.info("billing_checked", charges=found.charges, items=found.items, differences=len(found.differences))

"""What is due by the timers of orders: the vendor is nudged at half the time, at its end the order expires.

The time is Postgres's, so a worker whose own clock is wrong does nothing early or late; and the commands look at the
deadline in the order's row again (models/orders/expiring.py), so whatever fires, by whomever, twice or late, does what
is right at that moment or nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge, Histogram

from agents.outages import passing
from agents.runtime.bulk import BulkAgent
from agents.runtime.crash import restart
from models.clock import logical_now
from models.database import SessionFactory
from models.orders import expiring
from models.orders.expiring import Outcome
from streams.timers import Kind, Timer, Timers
from streams.topics import ORDER_TTL

log = structlog.get_logger(__name__)

TICK_S: Final = 0.2
OUTAGE_WAIT_S: Final = 1.0
BATCH_TIMERS: Final = 100  #: of one transaction
FORGETTING_ROUNDS: Final = 10  #: of a partition in one tick, where timers of settled orders are in the way
AGAIN_AFTER_S: Final = 1
FAILED_AFTER_S: Final = 60

PENDING = Gauge("packstream_order_timers_pending", "timers of orders that wait", ["kind"])
FIRED = Counter("packstream_order_timers_fired_total", "timers that were due, by what they led to", ["kind", "outcome"])
LATENESS = Histogram(
    "packstream_order_timer_lateness_seconds",
    "from an order's deadline until what it led to was committed",
    ["kind"],
    buckets=(0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 5, 10, 30, 60, 300, 3600),
)
TICK = Histogram(
    "packstream_order_timers_tick_seconds",
    "a tick over all partitions, its commands included",
    ["fired"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 5),
)

Command = Callable[..., Awaitable[Outcome]]
COMMANDS: Final[Mapping[Kind, Command]] = {Kind.EXPIRE: expiring.expire, Kind.NUDGE: expiring.nudge}
Owned = tuple[Timers, Timer]
"""A timer and the partition's timers that it was taken from."""


class Ticker:
    """Fires the timers of the partitions that a bulk agent owns. `follow`: by the test clock."""

    def __init__(self, app: Any, bulk: BulkAgent, *, sessions: SessionFactory, follow: bool) -> None:
        self._app, self._bulk, self._sessions, self._follow = app, bulk, sessions, follow
        self._turn = 0

    async def run(self) -> None:
        """Until the app stops. What Postgres does not take now is tried again; anything unexpected ends the process."""
        while not self._app.should_stop:
            pause_s = TICK_S
            try:
                if await self.tick():
                    pause_s = 0.0
            except Exception as exc:
                if not passing(exc):
                    restart(self._app, f"order timers failed: {exc!r}")
                    return
                log.warning("order_timers_wait", error=repr(exc))
                pause_s = OUTAGE_WAIT_S
            await asyncio.sleep(pause_s)

    async def tick(self) -> bool:
        """Fire what is due; whether there may be more."""
        partitions = sorted(self._bulk.owned())
        if not partitions:
            self._show(Tally())
            return False
        began = time.monotonic()
        async with self._sessions() as tx:
            now = await logical_now(tx, follow=self._follow)
        due = await self._due(partitions, now)
        for kind in COMMANDS:
            await self._fire(kind, [owned for owned in due if owned[1].kind is kind], now, began)
        TICK.labels("yes" if due else "no").observe(time.monotonic() - began)
        return len(due) >= BATCH_TIMERS

    async def _due(self, partitions: Sequence[int], now: datetime) -> list[Owned]:
        """Take at most BATCH_TIMERS from all partitions together, which take turns at being first."""
        found: list[Owned] = []
        pending: Tally[Kind] = Tally()
        self._turn = (self._turn + 1) % len(partitions)
        for partition in (*partitions[self._turn :], *partitions[: self._turn]):
            async with self._bulk.state(partition) as timers:
                if timers is not None:
                    found += self._take(timers, now, BATCH_TIMERS - len(found))
                    pending.update(timers.pending)
        self._show(pending)
        return found

    @staticmethod
    def _show(pending: Tally[Kind]) -> None:
        for kind in COMMANDS:
            PENDING.labels(kind.name.lower()).set(pending[kind])

    @staticmethod
    def _take(timers: Timers, now: datetime, limit: int) -> list[Owned]:
        """Timers with something to do; those of settled orders are over with being due."""
        found: list[Owned] = []
        for _ in range(FORGETTING_ROUNDS):
            taken = timers.due(now.timestamp(), limit - len(found)) if len(found) < limit else []
            timers.spent(timer for timer in taken if timer.kind is Kind.FORGET)
            found += [(timers, timer) for timer in taken if timer.kind is not Kind.FORGET]
            if not taken:
                break
        return found

    async def _fire(self, kind: Kind, due: Sequence[Owned], now: datetime, began: float) -> None:
        """Do what the timers are for. Where one of them fails, the others are done one by one, and it comes later."""
        if not due:
            return
        try:
            await self._command(kind, due, now, began)
        except Exception as exc:
            if passing(exc):
                log.warning("order_timers_wait", timers=len(due), error=repr(exc))
                _put_back(due, now.timestamp() + AGAIN_AFTER_S)
            elif len(due) > 1:
                for owned in due:
                    await self._fire(kind, [owned], now, began)
            else:
                FIRED.labels(kind.name.lower(), "failed").inc()
                log.exception("order_timer_failed", kind=kind.name.lower(), order_id=str(_order_id(due[0])))
                _put_back(due, now.timestamp() + FAILED_AFTER_S)

    async def _command(self, kind: Kind, due: Sequence[Owned], now: datetime, began: float) -> None:
        async with self._sessions.begin() as tx:
            outcome = await COMMANDS[kind](tx, [_order_id(owned) for owned in due], actor=ORDER_TTL, now=now)
        took_s = time.monotonic() - began
        waiting = [owned for owned in due if _order_id(owned) in outcome.waiting]
        spent = [owned for owned in due if _order_id(owned) not in {*outcome.waiting, *outcome.done}]
        _put_back(waiting, now.timestamp() + AGAIN_AFTER_S)
        for timers, timer in spent:
            timers.spent([timer])
        name = kind.name.lower()
        for count, what in ((len(outcome.done), "done"), (len(waiting), "waiting"), (len(spent), "spent")):
            FIRED.labels(name, what).inc(count)
        for deadline in outcome.done.values():
            LATENESS.labels(name).observe((now - deadline).total_seconds() + took_s)
        if outcome.done:
            log.info("order_timers_fired", kind=name, orders=len(outcome.done))


def _order_id(owned: Owned) -> UUID:
    return UUID(bytes=owned[1].order_id)


def _put_back(due: Sequence[Owned], from_s: float) -> None:
    for timers, timer in due:
        timers.put_back([timer], from_s=from_s)

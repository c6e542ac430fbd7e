"""The net below the timers of orders: what they should have done long ago is done here, and raises an alarm.

An order counts as missed when two looks in a row find it overdue: a test clock that has just jumped is no alarm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from agents.housekeeping.metrics import ORDERS_FAILED, ORDERS_MISSED
from agents.outages import passing
from models.clock import logical_now
from models.orders import expiring
from models.orders.expiring import Outcome

ACTOR: Final = "housekeeping"
ORDERS_LOOKED_AT: Final = 500
ORDERS_A_STEP: Final = 50  #: few, because ticks wait meanwhile; the rest is for the next turn
TURN_S: Final = 30.0
TURN_BY_TEST_CLOCK_S: Final = 5.0  #: where the logical clock may jump
LOCK_MS: Final = 250
OTHERS_IN_THE_WAY: Final = ("55P03", "40P01")  #: a lock that they hold, a deadlock with them

log = structlog.get_logger(__name__)

Transaction = Callable[[], AbstractAsyncContextManager[AsyncSession]]
Command = Callable[..., Awaitable[Outcome]]


class OrderSweep:
    """The looks of one leadership. `follow`: by the test clock."""

    def __init__(self, transaction: Transaction, *, grace_s: int, follow: bool) -> None:
        self._transaction, self._follow = transaction, follow
        self._grace = timedelta(seconds=grace_s)
        self._seen: dict[str, set[UUID]] = {"expire": set(), "nudge": set()}

    async def sweep(self) -> None:
        """Expire and nudge what was overdue at the look before, too."""
        async with self._transaction() as tx:
            now = await logical_now(tx, follow=self._follow)
            before = now - self._grace
            overdue = await expiring.overdue(tx, before=before, limit=ORDERS_LOOKED_AT)
            unnudged = await expiring.unnudged(tx, before=before, limit=ORDERS_LOOKED_AT, now=now)
        await self._do("expire", expiring.expire, overdue, now)
        await self._do("nudge", expiring.nudge, unnudged, now)

    async def _do(self, kind: str, command: Command, found: Sequence[UUID], now: datetime) -> None:
        missed = [order_id for order_id in found if order_id in self._seen[kind]]
        self._seen[kind] = set(found)
        for order_id in missed[:ORDERS_A_STEP]:
            try:
                async with self._transaction() as tx:
                    await tx.execute(text(f"SET LOCAL lock_timeout = {LOCK_MS}"))
                    outcome = await command(tx, [order_id], actor=ACTOR, now=now)
            except Exception as exc:
                if _in_the_way(exc):
                    continue
                if passing(exc):
                    raise
                ORDERS_FAILED.labels(kind).inc()
                log.exception("order_sweep_failed", kind=kind, order_id=str(order_id))
                continue
            if order_id in outcome.done:
                ORDERS_MISSED.labels(kind).inc()
                log.error("order_timer_missed", kind=kind, order_id=str(order_id))


def _in_the_way(exc: Exception) -> bool:
    """Whether the next turn will do."""
    return isinstance(exc, DBAPIError) and getattr(exc.orig, "sqlstate", None) in OTHERS_IN_THE_WAY

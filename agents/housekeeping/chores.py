"""What the leader does, and when: each shard's tick in its turn, and the rarer chores."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from agents.housekeeping import ledger, licenses, orders
from agents.housekeeping.metrics import TICKS, TICKS_MISSED
from agents.housekeeping.notifications import TURN_BY_TEST_CLOCK_S, TURN_S, forget_notifications
from agents.housekeeping.reaper import Reaper
from models import idempotency
from models import outbox_partitions as partitions
from models.ads.engine import tick
from models.clock import Clock
from ops.settings import Settings

ACTOR: Final = "housekeeping"
IDLE_MAX_S: Final = 1.0  #: the leader says something to Postgres at least this often
PARTITIONS_S: Final = 60.0
REAP_S: Final = 0.5
REAP_KEYS_S: Final = 30.0
TICK_LOCK_MS: Final = 250  #: longer, and the collector's requests would queue up behind the tick's
PARTITION_LOCK_MS: Final = 2000
LOCK_NOT_AVAILABLE: Final = "55P03"

log = structlog.get_logger(__name__)

Transaction = Callable[[], AbstractAsyncContextManager[AsyncSession]]


@dataclass(slots=True)
class Chore:
    """Something to do every `every_s`; `due_s` is on the monotonic clock."""

    name: str
    every_s: float
    do: Callable[[], Awaitable[None]]
    due_s: float

    def next_turn(self, now_s: float) -> None:
        """The next turn by the plan; turns that were missed are not made up for."""
        self.due_s += self.every_s * max(1, -(-(now_s - self.due_s) // self.every_s))


class Chores:
    """The chores of one leadership."""

    def __init__(self, settings: Settings, transaction: Transaction) -> None:
        self._settings = settings
        self._transaction = transaction
        self._clock = Clock()
        now_s = time.monotonic()
        self._chores = [Chore("partitions", PARTITIONS_S, self._keep_partitions, now_s)]
        forget_s = TURN_BY_TEST_CLOCK_S if settings.test_clock else TURN_S
        self._chores.append(Chore("notifications", forget_s, self._forget_notifications, now_s))
        licenses_s = licenses.TURN_BY_TEST_CLOCK_S if settings.test_clock else licenses.TURN_S
        self._chores.append(Chore("licenses", licenses_s, self._keep_licenses, now_s))
        seal_s = ledger.TURN_BY_TEST_CLOCK_S if settings.test_clock else ledger.TURN_S
        self._chores.append(Chore("ledger", seal_s, self._seal_ledger, now_s))
        sweep = orders.OrderSweep(transaction, grace_s=settings.order_sweep_grace_s, follow=settings.test_clock)
        sweep_s = orders.TURN_BY_TEST_CLOCK_S if settings.test_clock else orders.TURN_S
        self._chores.append(Chore("orders", sweep_s, sweep.sweep, now_s))
        self._chores.append(Chore("idempotency keys", REAP_KEYS_S, self._reap_keys, now_s))
        if settings.relay_kind == "debezium":
            reaper = Reaper(transaction, archive_ad_batches=settings.archive_ad_batches)
            self._chores.append(Chore("reap", REAP_S, reaper.reap, now_s))
        turn_s = settings.ad_tick_s / settings.ad_shards
        for shard in range(settings.ad_shards):
            self._chores.append(Chore(f"tick {shard}", settings.ad_tick_s, self._ticker(shard), now_s + shard * turn_s))

    def pause_s(self) -> float:
        """Time until the next chore is due."""
        return min(IDLE_MAX_S, max(0.0, min(chore.due_s for chore in self._chores) - time.monotonic()))

    async def do_due(self) -> None:
        """Do what is due, the longest due first; where nothing is, show Postgres that the leader is alive."""
        due = sorted((c for c in self._chores if c.due_s <= time.monotonic()), key=lambda chore: chore.due_s)
        for chore in due:
            await chore.do()
            chore.next_turn(time.monotonic())
        if not due:
            async with self._transaction() as tx:
                await tx.execute(text("SELECT 1"))

    def _ticker(self, shard: int) -> Callable[[], Awaitable[None]]:
        async def write() -> None:
            await self._tick(shard)

        return write

    async def _tick(self, shard: int) -> None:
        """Tick a shard; when its lock is not to be had, leave that to its next turn."""
        try:
            async with self._transaction() as tx:
                await tx.execute(text(f"SET LOCAL lock_timeout = {TICK_LOCK_MS}"))
                await tick(tx, shard, self._clock, follow=self._settings.test_clock, actor=ACTOR)
        except DBAPIError as exc:
            if getattr(exc.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            TICKS_MISSED.inc()
            log.warning("tick_missed", shard=shard)
        else:
            TICKS.inc()

    async def _forget_notifications(self) -> None:
        async with self._transaction() as tx:
            await forget_notifications(tx, now=self._clock.now(), wall=datetime.now(UTC))

    async def _keep_licenses(self) -> None:
        async with self._unless_locked("licenses") as tx:
            await licenses.keep_licenses(tx, now=self._clock.now())

    async def _seal_ledger(self) -> None:
        async with self._unless_locked("ledger") as tx:
            await ledger.seal_ledger(tx, now=self._clock.now(), skew_s=self._settings.clock_skew_s)

    @asynccontextmanager
    async def _unless_locked(self, chore: str) -> AsyncIterator[AsyncSession]:
        """A transaction that leaves what others hold locked to the next turn: ticks must not wait for it."""
        try:
            async with self._transaction() as tx:
                await tx.execute(text(f"SET LOCAL lock_timeout = {TICK_LOCK_MS}"))
                yield tx
        except DBAPIError as exc:
            if getattr(exc.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            log.info("chore_locked", chore=chore)

    async def _reap_keys(self) -> None:
        async with self._transaction() as tx:
            await idempotency.reap(tx, wall=datetime.now(UTC))

    async def _keep_partitions(self) -> None:
        """Make the archive's next partitions and drop the old ones, each in a transaction of its own."""
        wall = datetime.now(UTC)
        async with self._transaction() as tx:
            existing = await partitions.days(tx)
            await partitions.prune_rest(tx, wall=wall)
        for change, days in (
            (partitions.create, partitions.to_create(existing, wall.date())),
            (partitions.drop, partitions.to_drop(existing, wall.date())),
        ):
            for day in days:
                async with self._transaction() as tx:
                    await tx.execute(text(f"SET LOCAL lock_timeout = {PARTITION_LOCK_MS}"))
                    await change(tx, day)
                log.info("archive_partition", change=change.__name__, day=day.isoformat())

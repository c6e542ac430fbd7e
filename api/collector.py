"""The process's collector of ad events: many requests, one transaction.

A flush starts 10 ms after the last one did, or as soon as 256 events wait (settings): a lone event does not wait at
all, and under load the batches grow. A flush writes one outbox record a shard, commits, and only then tells the
requests. Whatever is not told RECORDED may be sent again: a repeat of an event that was durable after all is found in
the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from enum import Enum
from time import perf_counter
from typing import Any, Final, NamedTuple

import asyncpg
import structlog
from redis.exceptions import RedisError

from api import ad_metrics
from models.ads import writes
from models.ads.gateway import SeenMarks
from models.errors import Unavailable
from schemas.ad_columns import AdEvent

FLUSHES_MAX: Final = 2  #: under way at once, each with a connection of its own
BATCH_EVENTS_MAX: Final = 4096  #: of one flush, when a backlog has grown
FLUSH_LIMIT_S: Final = 4.0  #: below the life of a pending mark
DRAIN_LIMIT_S: Final = 10.0
MARK_ATTEMPTS: Final = 3
MARK_RETRY_S: Final = 0.5

log = structlog.get_logger(__name__)


class Outcome(Enum):
    """What became of an event."""

    RECORDED = "recorded"  #: durable, by this request
    SEEN = "seen"  #: durable before
    REFUSED = "refused"  #: too late: a tick has passed it
    FAILED = "failed"  #: not known to be durable; try again


Slot = asyncio.Future[Outcome]


class Waiting(NamedTuple):
    """An event in the queue, and where its outcome goes."""

    shard: int
    event: AdEvent
    slot: Slot


class Collector:
    """`flush_s`: between the starts of two flushes, and so the longest wait for one.

    `events_max`: waiting or being written; beyond it events are refused.
    """

    def __init__(
        self,
        pool: asyncpg.Pool[asyncpg.Record],
        marks: SeenMarks,
        *,
        flush_s: float,
        flush_events: int,
        events_max: int,
        skew_s: int,
        actor: str,
        now: Callable[[], datetime],
    ) -> None:
        self._pool = pool
        self._marks = marks
        self._flush_s = flush_s
        self._flush_events = flush_events
        self._events_max = events_max
        self._skew_s = skew_s
        self._actor = actor
        self._now = now
        self._queue: list[Waiting] = []
        self._held = 0
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._overdue = False
        self._closing = False
        self._flushes: set[asyncio.Task[None]] = set()
        self._marking: set[asyncio.Task[object]] = set()

    def check_room(self) -> None:
        """Unavailable when no more events are taken."""
        if self._closing or self._held >= self._events_max:
            raise Unavailable("too many ad events are waiting to be written")

    def add(self, waiting: Waiting) -> None:
        """Take an event; its slot gets the outcome. Raises Unavailable."""
        self.check_room()
        self._held += 1
        self._queue.append(waiting)
        if len(self._queue) >= self._flush_events:
            self._flush_now()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, self._next_at - loop.time()), self._flush_now)

    async def drain(self) -> None:
        """Take no more, write what waits; after DRAIN_LIMIT_S the rest has failed."""
        self._closing = True
        try:
            async with asyncio.timeout(DRAIN_LIMIT_S):
                while self._queue or self._flushes or self._marking:
                    self._flush_now()
                    await asyncio.wait(self._flushes | self._marking, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            log.error("ad_events_not_drained", events=self._held)
            self._settle(self._queue, {waiting.event.jti: Outcome.FAILED for waiting in self._queue})
            self._queue = []

    def _flush_now(self) -> None:
        """Start to write what waits; when enough is under way, the next flush to end starts it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and len(self._flushes) < FLUSHES_MAX:
            batch, self._queue = self._queue[:BATCH_EVENTS_MAX], self._queue[BATCH_EVENTS_MAX:]
            task = asyncio.create_task(self._flush(batch), name="ad-flush")
            self._next_at = asyncio.get_running_loop().time() + self._flush_s
            self._flushes.add(task)
            task.add_done_callback(self._flush_ended)
        self._overdue = bool(self._queue)

    def _flush_ended(self, task: asyncio.Task[None]) -> None:
        self._flushes.discard(task)
        if self._overdue:
            self._flush_now()

    async def _flush(self, batch: Sequence[Waiting]) -> None:
        started = perf_counter()
        outcomes = dict.fromkeys((waiting.event.jti for waiting in batch), Outcome.FAILED)
        try:
            async with asyncio.timeout(FLUSH_LIMIT_S):
                refused = await self._record(batch)
            outcomes = dict.fromkeys(outcomes, Outcome.RECORDED)
            outcomes.update((event.jti, Outcome.REFUSED) for event in refused)
        except Exception:  # whatever the database did: the requests are told, the process lives on
            ad_metrics.flush_failures.inc()
            log.exception("ad_flush_failed", events=len(batch))
        finally:
            self._mark(outcomes)
            self._settle(batch, outcomes)
        ad_metrics.flush_events.observe(len(batch))
        ad_metrics.flush_seconds.observe(perf_counter() - started)

    async def _record(self, batch: Sequence[Waiting]) -> list[AdEvent]:
        by_shard: dict[int, list[AdEvent]] = {}
        for waiting in batch:
            by_shard.setdefault(waiting.shard, []).append(waiting.event)
        async with self._pool.acquire() as driver:
            return await writes.record_flush(driver, by_shard, skew_s=self._skew_s, actor=self._actor, now=self._now())

    def _settle(self, batch: Sequence[Waiting], outcomes: dict[bytes, Outcome]) -> None:
        self._held -= len(batch)
        for waiting in batch:
            if not waiting.slot.done():
                waiting.slot.set_result(outcomes[waiting.event.jti])

    def _mark(self, outcomes: dict[bytes, Outcome]) -> None:
        """Give the marks of durable events their full life, and take those of the others away."""
        recorded = [jti for jti, outcome in outcomes.items() if outcome is Outcome.RECORDED]
        others = [jti for jti, outcome in outcomes.items() if outcome is not Outcome.RECORDED]
        if recorded:
            self._in_background(self._confirm(recorded))
        if others:
            self._in_background(self._attempt(self._marks.release, others))

    def _in_background(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work, name="ad-marks")
        self._marking.add(task)
        task.add_done_callback(self._marking.discard)

    async def _confirm(self, jtis: Sequence[bytes]) -> None:
        for _ in range(MARK_ATTEMPTS):
            if await self._attempt(self._marks.confirm, jtis):
                return
            await asyncio.sleep(MARK_RETRY_S)
        ad_metrics.unmarked_events.inc(len(jtis))

    async def _attempt(self, command: Callable[[Sequence[bytes]], Awaitable[None]], jtis: Sequence[bytes]) -> bool:
        """Whether Redis took it. A mark that stays as it was ends by itself."""
        try:
            await command(jtis)
        except (Unavailable, RedisError) as exc:
            log.warning("ad_marks_not_written", events=len(jtis), error=repr(exc))
            return False
        return True

"""The `analytics` agent: events of orders and of advertising become rows of the warehouse, each once.

A batch of a partition's records is claimed in Postgres, its rows are appended to committed streams at known offsets,
and then the positions, the events' inbox marks and the dead letters are written in one transaction. Whoever takes a
partition over after a crash in between ends the old streams first, and then asks the table what it has. A record that
no row can be made of, or whose row is refused, becomes a dead letter; facts do not depend on each other, so nothing
waits behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from prometheus_client import Gauge
from sqlalchemy.ext.asyncio import AsyncSession

from agents.outages import passing
from agents.runtime.channel import drain, first_real_offset
from agents.runtime.crash import restart
from agents.runtime.effects import BEHIND_S, FOREIGN, HANDLED, PARKED, RECORDS, REPEATED, letter_of, replayed_letter
from agents.warehouse_writer import WarehouseWriter
from models import dead_letter_commands, dead_letters, inbox
from models.ads import reads as ads
from models.analytics import positions
from models.analytics.gateway import Warehouse
from models.analytics.positions import Place, SucceededError
from models.database import SessionFactory
from models.dead_letters import Letter
from schemas.codec import UndecodableError, decode
from schemas.records import Record
from streams.facts import DaySpend, Fact, RefusedError, facts_of, needs_spend
from streams.topics import ANALYTICS

BATCH_RECORDS: Final = 1_000  #: drained from the channel at once, over all partitions
TRIES_AT_ONCE: Final = 5  #: of something that may pass; from then on it is waited for
PAUSE_S: Final = 0.1  #: doubled from try to try
PAUSE_MAX_S: Final = 3.0
RECENT: Final = 100  #: records that the failing share is taken of
FAILING_SHARE: Final = 0.5  #: above it something is wrong with all of it: the process stops

WAITING = Gauge("packstream_warehouse_waiting", "1 while the analytics agent waits for a part that is away: alarm")

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class Taken:
    """One record of a batch, and what becomes of it."""

    message: Any
    record: Record | None
    replay_of: UUID | None
    facts: list[Fact] = field(default_factory=list)
    letter: Letter | None = None


class AnalyticsAgent:
    """Binds the warehouse to topics. `connection`: aiokafka's arguments, to tell holes in the log from lost records."""

    name = ANALYTICS

    def __init__(self, app: Any, *, sessions: SessionFactory, warehouse: Warehouse, connection: dict[str, Any]) -> None:
        self._app, self._sessions, self._connection = app, sessions, connection
        self._writer = WarehouseWriter(warehouse, sessions, self._patiently)
        self._warehouse = warehouse
        self._places: dict[tuple[str, int], tuple[int, Place]] = {}  # with the generation that it was taken over in
        self._expected: dict[tuple[str, int], int] = {}
        self._applied: dict[tuple[str, int], int] = {}
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._busy_since: float | None = None

    async def run(self, stream: Any) -> None:
        """The agent's body, on each topic. It never lets an exception out, and acknowledges only what is dealt with."""
        async for batch in drain(self._app, stream, records_max=BATCH_RECORDS):
            try:
                async with self._apart_from_backfills():
                    await asyncio.gather(*(self._handle(events) for events in batch.values()))
            except SucceededError as exc:
                log.warning("batch_left", detail=str(exc))  # never acknowledged
            except Exception as exc:
                restart(self._app, f"{self.name} failed: {exc!r}")
                return

    def busy_s(self) -> float:
        """How long the present try has taken; 0 between tries."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def applied(self) -> Mapping[tuple[str, int], int]:
        """The last offset whose rows are written, by topic and partition."""
        return self._applied

    @asynccontextmanager
    async def _apart_from_backfills(self) -> AsyncIterator[None]:
        """No page of a backfill is written meanwhile, unless the connection is lost: the views are the second wall."""
        tx = self._sessions()
        try:
            await self._patiently(partial(self._keep_apart, tx), self._app.consumer_generation_id)
            yield
        finally:
            try:
                await tx.close()
            except Exception as exc:
                if not passing(exc):
                    raise

    async def _keep_apart(self, tx: AsyncSession) -> None:
        try:
            await positions.keep_apart(tx, backfill=False)
        except BaseException:
            await tx.rollback()
            raise

    async def _handle(self, events: Sequence[Any]) -> None:
        """The records of one partition, in order."""
        messages = [event.message for event in events]
        first, last = messages[0], messages[-1]
        try:
            place = await self._place(first)
            await self._check_places(place, messages)
            await self._take(place, messages)
        except SucceededError as exc:
            log.warning("partition_succeeded", detail=str(exc))
            self._places.pop((first.topic, first.partition), None)
            return  # never acknowledged: whoever has the partition gets them
        if last.generation_id == self._app.consumer_generation_id:
            for event in events:
                event.ack()
            self._applied[last.topic, last.partition] = place.next_offset - 1
        BEHIND_S.labels(self.name).set(max(0.0, datetime.now(UTC).timestamp() - last.timestamp))

    # -- taking a partition over ------------------------------------------------------------------------------------

    async def _place(self, message: Any) -> Place:
        """The partition's place, taken over when this generation has not done so yet."""
        key, generation = (message.topic, message.partition), message.generation_id
        known = self._places.get(key)
        if known is not None and known[0] == generation:
            return known[1]
        place = await self._patiently(partial(self._take_over, message), generation)
        self._places[key] = generation, place
        self._expected[key] = place.next_offset
        return place

    async def _take_over(self, message: Any) -> Place:
        wall = datetime.now(UTC)
        async with self._sessions.begin() as tx:
            place, unended = await positions.take_over(
                tx, message.topic, message.partition, first_offset=message.offset, wall=wall
            )
        if unended:
            for stream in unended:
                await self._warehouse.end_stream(stream)
            async with self._sessions.begin() as tx:
                await positions.forget_streams(tx, place, wall=wall)
            log.info("doubtful_rows", topic=place.topic, partition=place.partition, until=place.doubtful_until)
        return place

    async def _check_places(self, place: Place, messages: Sequence[Any]) -> None:
        """RuntimeError when records were not delivered: a hole must be one of the log."""
        key = place.topic, place.partition
        for message in messages:
            expected = self._expected[key]
            if message.offset > expected:
                real = await first_real_offset(self._connection, *key, expected)
                if real < message.offset:
                    raise RuntimeError(f"{key[0]}-{key[1]}: {real}..{message.offset - 1} were not delivered")
            self._expected[key] = max(expected, message.offset + 1)

    # -- one batch --------------------------------------------------------------------------------------------------

    async def _take(self, place: Place, messages: Sequence[Any]) -> None:
        generation, until = messages[0].generation_id, messages[-1].offset + 1
        batch = [self._decoded(message) for message in messages]
        known = await self._patiently(partial(self._claim, place, batch, until), generation)
        fresh = [taken for taken in batch if taken.record is not None and id(taken) not in known]
        spend = await self._patiently(partial(self._spend, fresh), generation)
        for taken in fresh:
            _map(taken, spend)
        doubtful = any(
            taken.replay_of is not None or taken.message.offset < max(place.doubtful_until, place.next_offset)
            for taken in fresh
        ) or await self._patiently(partial(self._announced, fresh), generation)
        refused = await self._writer.write(
            place, [fact for taken in fresh for fact in taken.facts], doubtful=doubtful, generation=generation
        )
        for taken in fresh:
            _refuse(taken, refused)
        new = await self._patiently(partial(self._complete, place, batch, known, until), generation)
        self._count(batch, known, new)

    def _decoded(self, message: Any) -> Taken:
        replay_of = replayed_letter(message)
        try:
            return Taken(message, decode(message.value), replay_of)
        except UndecodableError as exc:
            return Taken(message, None, replay_of, letter=letter_of(self.name, message, exc.reason, str(exc)))

    async def _claim(self, place: Place, batch: Sequence[Taken], until: int) -> set[int]:
        """Claim the batch; those of `batch`, by identity, that need nothing: repeats, and replays for other agents."""
        async with self._sessions.begin() as tx:
            await positions.claim(tx, place, until, wall=datetime.now(UTC))
            ids = {taken.record.event_id for taken in batch if taken.record is not None}
            seen = await inbox.known(tx, self.name, ids)
            idle: set[int] = set()
            for taken in batch:
                if taken.replay_of is not None:
                    if await dead_letters.source_of(tx, taken.replay_of) != self.name:
                        idle.add(id(taken))
                elif taken.record is not None:
                    if taken.record.event_id in seen:
                        idle.add(id(taken))
                    seen.add(taken.record.event_id)
            return idle

    async def _spend(self, fresh: Iterable[Taken]) -> DaySpend:
        """What the charges among the records are split by."""
        wanted = {day for taken in fresh if taken.record and (day := needs_spend(taken.record))}
        if not wanted:
            return {}
        async with self._sessions.begin() as tx:
            return await ads.day_totals(tx, wanted)

    async def _announced(self, fresh: Iterable[Taken]) -> bool:
        """Whether a backfill may have written some of the rows."""
        ids = [fact.row_id for taken in fresh for fact in taken.facts]
        if not ids:
            return False
        async with self._sessions.begin() as tx:
            return await positions.announced(tx, ids)

    async def _complete(self, place: Place, batch: Sequence[Taken], known: set[int], until: int) -> int:
        """Everything that says that the batch is dealt with, in one transaction; how many letters are new."""
        wall = datetime.now(UTC)
        next_offset = max(until, place.next_offset)
        async with self._sessions.begin() as tx:
            await positions.complete(tx, place, next_offset, wall=wall)
            done = [taken for taken in batch if id(taken) not in known]
            await inbox.mark(tx, self.name, {t.record.event_id for t in done if t.record is not None}, wall=wall)
            letters = [taken.letter for taken in done if taken.letter is not None]
            new = await dead_letters.park(tx, letters, wall=wall) if letters else 0
            await self._settle(tx, done, wall)
        place.next_offset = next_offset
        return new

    async def _settle(self, tx: AsyncSession, done: Iterable[Taken], wall: datetime) -> None:
        for taken in done:
            if taken.replay_of is not None and taken.letter is None:
                await dead_letter_commands.settle(tx, taken.replay_of, wall=wall)

    def _count(self, batch: Sequence[Taken], known: set[int], new: int) -> None:
        for taken in batch:
            outcome = PARKED if taken.letter else HANDLED
            if id(taken) in known:
                outcome = REPEATED if taken.replay_of is None else FOREIGN
            RECORDS.labels(self.name, outcome).inc()
            self._recent.append(outcome == PARKED and new > 0)
            if taken.letter is not None and id(taken) not in known:
                log.error(
                    "record_parked",
                    agent=self.name,
                    topic=taken.letter.topic,
                    offset=taken.letter.offset,
                    reason=taken.letter.reason,
                )
        failed = sum(self._recent)
        if failed > RECENT * FAILING_SHARE:
            restart(self._app, f"{self.name}: {failed} of the last {len(self._recent)} records failed")

    async def _patiently(self, act: Callable[[], Awaitable[T]], generation: int) -> T:
        """What `act` gives: tried again a few times at once, then for as long as a part that it needs is away.

        Raises SucceededError when the partitions are given out anew meanwhile.
        """
        tries = 0
        while True:
            self._busy_since = time.monotonic()
            try:
                found = await act()
            except Exception as exc:
                if not passing(exc):
                    raise
                tries += 1
                log.warning("facts_wait", tries=tries, error=repr(exc))
            else:
                WAITING.set(0)
                return found
            finally:
                self._busy_since = None
            WAITING.set(int(tries >= TRIES_AT_ONCE))
            await asyncio.sleep(min(PAUSE_S * 2 ** min(tries, 10), PAUSE_MAX_S))
            if generation != self._app.consumer_generation_id or self._app.should_stop:
                raise SucceededError("the partitions were given out anew")


def _map(taken: Taken, spend: DaySpend) -> None:
    """Make the record's rows; where it has none to give, its letter."""
    assert taken.record is not None
    try:
        taken.facts = facts_of(taken.record, spend)
    except RefusedError as exc:
        taken.letter = letter_of(ANALYTICS, taken.message, exc.reason, str(exc), taken.record)


def _refuse(taken: Taken, refused: Mapping[str, str]) -> None:
    """Where a row of the record was refused: its letter names each; the other rows are written."""
    reasons = [f"{fact.row_id}: {refused[fact.row_id]}" for fact in taken.facts if fact.row_id in refused]
    if reasons:
        taken.letter = letter_of(ANALYTICS, taken.message, "row_refused", "; ".join(reasons), taken.record)

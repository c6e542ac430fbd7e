"""One pump: claim lanes, read their oldest rows, publish, and only then take them out. DESIGN.md 3."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog
from asyncpg.transaction import Transaction

from agents.outages import DATABASE_GONE, wait_for
from agents.relay import metrics
from agents.relay.failures import refusal, settle
from agents.relay.publish import ROW_BYTES_MAX, Outcome, Publisher
from models import outbox_commands as commands
from models.outbox import LANES
from models.outbox_commands import Connection, Due, Row

LANES_MAX: Final = LANES // 2  #: of one claim; two pumps of a lone relay have all, several relays share them
READ_BYTES_MAX: Final = 16 << 20
DUE_ROWS_MAX: Final = 48  #: tried again in one cycle, singly: few, so that those rows that flow hardly wait
QUIET_TYPES: Final = frozenset(("ad_events",))  #: so frequent that a log line each would drown the rest
HELPER_WAIT_S: Final = 5.0  #: then it looks whether its connection is still there
ANSWER_S: Final = 5.0  #: the broker counts as away when it has not answered a cycle's batches by then

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pump may do at a time, from the settings."""

    batch_rows: int
    attempts_max: int
    sleep_min_s: float
    sleep_max_s: float
    unarchived: tuple[str, ...]


@dataclass(slots=True)
class Work:
    """What one claim found: rows to publish, failures that are due, and rows that cannot go on."""

    due: list[Due]
    rows: list[Row]
    blocked: list[Row]

    @property
    def size(self) -> int:
        return len(self.due) + len(self.rows) + len(self.blocked)


class Bustle:
    """Whether there is work for more than one pump. Idle, one looks for all: two would only look twice."""

    def __init__(self) -> None:
        self._busy = asyncio.Event()

    def judge(self, done: int, limits: Limits) -> None:
        """Take note of what a cycle dealt with."""
        if done >= limits.batch_rows // 8:
            self._busy.set()
        elif done == 0:
            self._busy.clear()

    async def wait(self, stop: asyncio.Event, seconds: float) -> bool:
        """Wait for work; False when there is none for so long, or at a stop."""
        if self._busy.is_set():
            return not stop.is_set()
        waiting = [asyncio.create_task(event.wait()) for event in (self._busy, stop)]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return self._busy.is_set() and not stop.is_set()


class BrokerAway(Exception):
    """The broker did not answer in time; what is under way goes on in `unanswered`."""


class Pump:
    """Moves rows until told to stop. One connection to Postgres, one producer, one transaction at a time.

    A `helper` only joins in while `bustle` says that there is enough to do.
    """

    def __init__(self, publisher: Publisher, limits: Limits, bustle: Bustle, *, helper: bool) -> None:
        self._publisher = publisher
        self._limits = limits
        self._bustle = bustle
        self._helper = helper
        self._unanswered: asyncio.Task[Outcome] | None = None
        self._acked: list[int] = []

    async def run(self, db: Connection, stop: asyncio.Event) -> None:
        """Cycles until `stop`. Raises what asyncpg and the producer raise: the caller connects anew."""
        sleep_s, done = self._limits.sleep_min_s, 0
        while not stop.is_set():
            if not await self._catch_up(db, stop):
                return
            if self._helper and not await self._bustle.wait(stop, HELPER_WAIT_S):
                await db.execute("SELECT 1")
                continue
            if done or await commands.has_work(db):
                done = await self._cycle(db)
            self._bustle.judge(done, self._limits)
            if done >= self._limits.batch_rows // 2:
                continue
            sleep_s = self._limits.sleep_min_s if done else min(sleep_s * 1.5, self._limits.sleep_max_s)
            await wait_for(stop, sleep_s * random.uniform(0.5, 1.0))

    async def _catch_up(self, db: Connection, stop: asyncio.Event) -> bool:
        """See through what the broker owed an answer when the last cycle ended; False: told to stop before."""
        if self._unanswered is not None:
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({self._unanswered, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not self._unanswered.done():
                return False
            outcome, self._unanswered = self._unanswered.result(), None
            self._acked += self._published(outcome.acked)
            log.info("relay_broker_back", rows=len(outcome.acked))
        if self._acked:
            await commands.move_out(db, self._acked, unarchived=self._limits.unarchived)
            self._acked = []
        return True

    async def _cycle(self, db: Connection) -> int:
        """One claim, from lock to commit; the number of rows that it dealt with."""
        started = time.monotonic()
        transaction = db.transaction()
        await transaction.start()
        try:
            lanes = await commands.claim(db, LANES_MAX)
            work = await self._read(db, lanes) if lanes else Work([], [], [])
            outcome = await self._publish(work)
            await self._settle(db, work, outcome)
        except BaseException as exc:
            await _abandon(transaction, exc)
            if isinstance(exc, BrokerAway):
                metrics.BROKER_AWAY.inc()
                log.warning("relay_broker_away", lanes=len(lanes), rows=work.size)
                return work.size
            raise
        await transaction.commit()
        self._acked = []
        if work.size:
            self._report(lanes, work, outcome, started)
        return work.size

    async def _read(self, db: Connection, lanes: Sequence[int]) -> Work:
        due = await commands.read_due(db, lanes, rows_max=DUE_ROWS_MAX, row_bytes_max=ROW_BYTES_MAX)
        rows = await commands.read(
            db, lanes, rows_max=self._limits.batch_rows, bytes_max=READ_BYTES_MAX, row_bytes_max=ROW_BYTES_MAX
        )
        blocked = [row for row in rows if row.blocked]
        return Work(due, [row for row in rows if not row.blocked] if blocked else rows, blocked)

    async def _publish(self, work: Work) -> Outcome:
        """Publish rows, the due failures among them; BrokerAway when that takes longer than ANSWER_S."""
        again = [due.row for due in work.due if due.row is not None]
        task = asyncio.create_task(self._publish_in_turn(again, work.rows))
        try:
            await asyncio.wait({task}, timeout=ANSWER_S)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not task.done():
            self._unanswered = task
            raise BrokerAway
        outcome = task.result()
        self._acked = self._published(outcome.acked)
        return outcome

    async def _publish_in_turn(self, again: Sequence[Row], rows: Sequence[Row]) -> Outcome:
        """First what was refused before, row by row, so that it spoils no batch."""
        outcome = await self._publisher.publish(again, singly=True) if again else Outcome()
        return outcome + await self._publisher.publish(rows)

    def _published(self, rows: Sequence[Row]) -> list[int]:
        metrics.observe_published(rows)
        return [row.seq for row in rows]

    async def _settle(self, db: Connection, work: Work, outcome: Outcome) -> None:
        """Take out what was acknowledged, note what was refused, set aside what waits, release what may go on."""
        if outcome.acked:
            await commands.move_out(db, self._acked, unarchived=self._limits.unarchived)
        refused = {row.seq for row, _ in outcome.refused}
        await self._note_refused(db, work, outcome)
        if waiting := [*refused, *(row.seq for row in outcome.held), *(row.seq for row in work.blocked)]:
            await commands.set_waiting(db, waiting)
        if settled := [due.seq for due in work.due if due.seq not in refused]:
            await commands.release(db, settled)

    async def _note_refused(self, db: Connection, work: Work, outcome: Outcome) -> None:
        attempts = {due.seq: due.attempts for due in work.due}
        wall = datetime.now(UTC)
        notes = [refusal(row.seq, attempts.get(row.seq, 0) + 1, why, wall=wall) for row, why in outcome.refused]
        parked = {note.seq for note in await settle(db, notes, attempts_max=self._limits.attempts_max)}
        for (row, why), note in zip(outcome.refused, notes, strict=True):
            metrics.REFUSED.labels(why.reason).inc()
            log.warning(
                "relay_row_parked" if row.seq in parked else "relay_row_refused",
                seq=row.seq,
                event_id=row.id.decode(),
                event_type=row.type,
                topic=row.aggregatetype,
                key=row.key.decode(),
                attempts=note.attempts,
                reason=why.reason,
                error=why.error,
            )
        metrics.PARKED.inc(len(parked))

    def _report(self, lanes: Sequence[int], work: Work, outcome: Outcome, started: float) -> None:
        metrics.CYCLES.inc()
        metrics.BATCH_ROWS.observe(len(outcome.acked))
        routine = all(row.type in QUIET_TYPES for row in outcome.acked) and not outcome.refused
        (log.debug if routine else log.info)(
            "relay_published",
            rows=len(outcome.acked),
            refused=len(outcome.refused),
            waiting=len(outcome.held) + len(work.blocked),
            lanes=len(lanes),
            ms=round((time.monotonic() - started) * 1000, 1),
        )


async def _abandon(transaction: Transaction, exc: BaseException) -> None:
    """Give up a transaction; where the connection is gone, so is the transaction."""
    try:
        await transaction.rollback()
    except DATABASE_GONE as gone:
        log.info("relay_rollback_failed", error=repr(gone), because=repr(exc))

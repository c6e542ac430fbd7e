"""The room for low-rate agents: one record, one Postgres transaction, one effect.

A record's inbox row commits with its effect, so that a repeat changes nothing. A handler that fails is tried again a
few times; then the record becomes a dead letter and its key is parked: later records of the key wait behind it as
letters of reason `behind`, in order, until somebody replays or discards the first. An outage is waited out. A record
is acknowledged when its effect, or its letter, is committed, and only by the generation that was given it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncSession

from agents.outages import passing
from agents.runtime.channel import drain, first_real_offset
from agents.runtime.crash import restart
from models import dead_letter_commands, dead_letters, inbox
from models.database import SessionFactory
from models.dead_letters import BEHIND, REPLAY_HEADER, Letter
from schemas.codec import UndecodableError, decode
from schemas.records import Record

log = structlog.get_logger(__name__)

T = TypeVar("T")

OUTAGE_WAIT_S: Final = 0.5
ATTEMPTS_MAX: Final = 5
BACKOFF_S: Final = 0.1  #: doubled from try to try
RECENT: Final = 100  #: records that the failing share is taken of
FAILING_SHARE: Final = 0.5  #: above it something is wrong with all of it: the process stops

HANDLED, REPEATED, PARKED, FOREIGN = "handled", "repeated", "parked", "foreign"  #: outcomes; BEHIND is one too

RECORDS = Counter("packstream_agent_records_total", "records that an agent dealt with", ["agent", "outcome"])
BEHIND_S = Gauge("packstream_agent_behind_seconds", "age of the record last handled", ["agent"])

Handler = Callable[[AsyncSession, Any], Awaitable[None]]
"""Brings about the effect of a typed record in the transaction that it is given."""

After = Callable[[Any], Awaitable[None]]
"""What may follow once the transaction has committed: a nudge. A crash in between loses it, a repeat leaves it out."""


class EffectAgent:
    """Binds handlers, by event type, to a topic. Events of other types are passed over.

    `connection`: aiokafka's arguments, to tell a hole in the log from a record that was not delivered.
    """

    def __init__(
        self,
        app: Any,
        name: str,
        *,
        sessions: SessionFactory,
        handlers: Mapping[str, Handler],
        after: Mapping[str, After] | None = None,
        connection: dict[str, Any] | None = None,
    ) -> None:
        self._app, self.name, self._sessions = app, name, sessions
        self._handlers, self._after = handlers, after or {}
        self._connection = connection
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._applied: dict[tuple[str, int], int] = {}
        self._next: dict[int, tuple[int, int]] = {}  # partition → generation, offset that has to come
        self._busy_since: float | None = None

    async def run(self, stream: Any) -> None:
        """The agent's body. It never lets an exception out, and acknowledges nothing that it has not dealt with."""
        async for batch in drain(self._app, stream, records_max=1):
            for event in (event for events in batch.values() for event in events):
                message = event.message
                try:
                    await self._check_place(message)
                    await self.take(message)
                except Exception as exc:
                    restart(self._app, f"{self.name} failed: {exc!r}")
                    return  # it stops anyway: the record comes again, and nothing may overtake it
                if message.generation_id == self._app.consumer_generation_id:
                    event.ack()
                    self._applied[message.topic, message.partition] = message.offset

    def applied(self) -> Mapping[tuple[str, int], int]:
        """The last offset dealt with, by topic and partition, since this process began."""
        return self._applied

    def busy_s(self) -> float:
        """How long one try of the present record has taken so far; 0 between tries."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    async def take(self, message: Any) -> None:
        """Deal with one record: its effect, or a dead letter."""
        record = self._decoded(message)
        replay_of = replayed_letter(message)
        if replay_of is not None and await self._patiently(partial(self._is_foreign, replay_of)):
            self._note(FOREIGN)  # another agent's letter: here the record was dealt with when it first came
        elif isinstance(record, Letter):
            await self._park(record)
        elif record.event_type in self._handlers or replay_of is not None:
            await self._effect(message, record)
        BEHIND_S.labels(self.name).set(max(0.0, datetime.now(UTC).timestamp() - message.timestamp))

    async def _check_place(self, message: Any) -> None:
        """RuntimeError when records before this one were not delivered. Repeats are no matter."""
        partition, generation, offset = message.partition, message.generation_id, message.offset
        known, expected = self._next.get(partition, (generation, offset))
        if known != generation:
            expected = offset
        if offset > expected and self._connection is not None:
            real = await first_real_offset(self._connection, message.topic, partition, expected)
            if real < offset:
                raise RuntimeError(f"{message.topic}-{partition}: {real}..{offset - 1} were not delivered")
        self._next[partition] = generation, max(expected, offset + 1)

    def _decoded(self, message: Any) -> Record | Letter:
        try:
            return decode(message.value)
        except UndecodableError as exc:
            return letter_of(self.name, message, exc.reason, str(exc))

    async def _effect(self, message: Any, record: Record) -> None:
        error: Exception | None = None
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                outcome = await self._patiently(partial(self._try, message, record))
            except Exception as exc:
                error = exc
                event_id = str(record.event_id)
                log.warning("effect_failed", agent=self.name, event_id=event_id, attempt=attempt, exc_info=True)
                if attempt < ATTEMPTS_MAX:
                    await asyncio.sleep(BACKOFF_S * 2**attempt)
            else:
                self._note(outcome)
                if outcome == HANDLED and record.event_type in self._after:
                    await self._after[record.event_type](record)
                return
        await self._park(letter_of(self.name, message, "handler_failed", repr(error), record, ATTEMPTS_MAX))

    async def _try(self, message: Any, record: Record) -> str:
        """One transaction: the key's turn, the inbox, the effect, and what waited behind a replayed letter."""
        replay_of, wall = replayed_letter(message), datetime.now(UTC)
        async with self._sessions.begin() as tx:
            key = key_of(message)
            if await dead_letters.blocks(tx, self.name, message.topic, key, replay_of=replay_of):
                if await inbox.is_known(tx, self.name, record.event_id):
                    return REPEATED
                letter = letter_of(self.name, message, BEHIND, "waits behind a dead letter of its key", record)
                await dead_letters.park(tx, [letter], wall=wall)
                return BEHIND
            fresh = await inbox.first_time(tx, self.name, record.event_id, wall=wall)
            handler = self._handlers.get(record.event_type)
            if fresh and handler is not None:
                await handler(tx, record)
            if replay_of is not None:
                await dead_letter_commands.settle(tx, replay_of, wall=wall)
            return HANDLED if fresh else REPEATED

    async def _is_foreign(self, letter_id: UUID) -> bool:
        """Whether a replay is of a letter that another source wrote."""
        async with self._sessions.begin() as tx:
            source = await dead_letters.source_of(tx, letter_id)
        return source is not None and source != self.name

    async def _park(self, letter: Letter) -> None:
        async def park() -> int:
            async with self._sessions.begin() as tx:
                return await dead_letters.park(tx, [letter], wall=datetime.now(UTC))

        new = await self._patiently(park)
        log.error("record_parked", agent=self.name, topic=letter.topic, offset=letter.offset, reason=letter.reason)
        self._note(PARKED if new else REPEATED)

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """What `act` gives, however long the parts that it needs are away."""
        while True:
            self._busy_since = time.monotonic()
            try:
                return await act()
            except Exception as exc:
                if not passing(exc):
                    raise
                log.warning("effect_waits", agent=self.name, error=repr(exc))
            finally:
                self._busy_since = None
            await asyncio.sleep(OUTAGE_WAIT_S)

    def _note(self, outcome: str) -> None:
        RECORDS.labels(self.name, outcome).inc()
        self._recent.append(outcome == PARKED)
        failed = sum(self._recent)
        if failed > RECENT * FAILING_SHARE:
            restart(self._app, f"{self.name}: {failed} of the last {len(self._recent)} records failed")


def key_of(message: Any) -> str:
    """The record's key as text that Postgres takes."""
    return (message.key or b"").decode(errors="replace").replace("\0", "\ufffd")


def replayed_letter(message: Any) -> UUID | None:
    """The dead letter that the record is a replay of."""
    return uuid_or_none(dict(message.headers or ()).get(REPLAY_HEADER))


def letter_of(
    source: str, message: Any, reason: str, error: str, record: Record | None = None, attempts: int = 1
) -> Letter:
    """A dead letter with the record as it came."""
    headers = dict(message.headers or ())
    kind = headers.get("type")
    traceparent = headers.get("traceparent")
    return Letter(
        source=source,
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=key_of(message),
        reason=reason,
        error=error.replace("\0", "\ufffd"),
        payload=message.value or b"",
        event_id=record.event_id if record else uuid_or_none(headers.get("id")),
        event_type=record.event_type if record else (None if kind is None else kind.decode(errors="replace")),
        attempts=attempts,
        traceparent=None if traceparent is None else traceparent.decode(errors="replace"),
        replay_of=replayed_letter(message),
    )


def uuid_or_none(text: bytes | None) -> UUID | None:
    """An id in a header, if it is one."""
    try:
        return None if text is None else UUID(text.decode())
    except ValueError:
        return None

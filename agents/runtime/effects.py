"""The room for low-rate agents, which use Faust plainly: one record, one Postgres transaction, one effect.

A record's inbox row commits with its effect, so that a repeat changes nothing. A handler that fails is tried again a
few times; then the record becomes a dead letter and its key is parked: later records of the key wait behind it as
letters of reason `behind`, in order, until somebody replays or discards the first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from agents.runtime.crash import restart
from models import dead_letter_commands, dead_letters, inbox
from models.database import SessionFactory
from models.dead_letters import BEHIND, REPLAY_HEADER, Letter
from models.errors import Unavailable
from schemas.codec import UndecodableError, decode
from schemas.records import Record

log = structlog.get_logger(__name__)

OUTAGE: Final = (Unavailable, PoolTimeoutError, OSError)  #: waited out, however long it takes
OUTAGE_WAIT_S: Final = 0.5
ATTEMPTS_MAX: Final = 5
BACKOFF_S: Final = 0.1  #: doubled from try to try
RECENT: Final = 100  #: records that the failing share is taken of
FAILING_SHARE: Final = 0.5  #: above it something is wrong with all of it: the process stops

HANDLED = Counter("packstream_agent_records_total", "records that an agent dealt with", ["agent", "outcome"])
BEHIND_S = Gauge("packstream_agent_behind_seconds", "age of the record last handled", ["agent"])

Handler = Callable[[AsyncSession, Any], Awaitable[None]]
"""Brings about the effect of a typed record in the transaction that it is given."""

After = Callable[[Any], Awaitable[None]]
"""What follows outside Postgres, once the transaction has committed; it has its own rules for trying again."""


class EffectAgent:
    """Binds handlers, by event type, to a topic. Events of other types are passed over."""

    def __init__(
        self,
        app: Any,
        name: str,
        *,
        sessions: SessionFactory,
        handlers: Mapping[str, Handler],
        after: Mapping[str, After] | None = None,
    ) -> None:
        self._app, self.name, self._sessions = app, name, sessions
        self._handlers, self._after = handlers, after or {}
        self._recent: deque[bool] = deque(maxlen=RECENT)

    async def run(self, stream: Any) -> None:
        """The agent's body. It never lets an exception out: Faust would acknowledge what was lost."""
        async for event in stream.events():
            try:
                await self.take(event.message)
            except Exception as exc:
                restart(self._app, f"{self.name} failed: {exc!r}")

    async def take(self, message: Any) -> None:
        """Deal with one record: its effect, or a dead letter."""
        record = self._decoded(message)
        if isinstance(record, Letter):
            await self._park(record)
        elif record.event_type in self._handlers:
            await self._effect(message, record)
        BEHIND_S.labels(self.name).set(max(0.0, datetime.now(UTC).timestamp() - message.timestamp))

    def _decoded(self, message: Any) -> Record | Letter:
        try:
            return decode(message.value)
        except UndecodableError as exc:
            return letter_of(self.name, message, exc.reason, str(exc))

    async def _effect(self, message: Any, record: Record) -> None:
        attempts = 0
        while True:
            try:
                done = await self._try(message, record)
            except OUTAGE as exc:
                await self._wait_out(exc)
            except Exception as exc:
                if isinstance(exc, DBAPIError) and exc.connection_invalidated:
                    await self._wait_out(exc)
                    continue
                attempts += 1
                log.warning(
                    "effect_failed", agent=self.name, event_id=str(record.event_id), attempts=attempts, exc_info=True
                )
                if attempts >= ATTEMPTS_MAX:
                    await self._park(letter_of(self.name, message, "handler_failed", repr(exc), record, attempts))
                    return
                await asyncio.sleep(BACKOFF_S * 2**attempts)
            else:
                self._note(failed=False, outcome=done)
                if done == "handled" and record.event_type in self._after:
                    await self._after[record.event_type](record)
                return

    async def _try(self, message: Any, record: Record) -> str:
        """One transaction: the key's turn, the inbox, the effect, and what waited behind a replayed letter."""
        replay_of = replayed_letter(message)
        async with self._sessions.begin() as tx:
            key = key_of(message)
            if await dead_letters.blocks(tx, self.name, message.topic, key, replay_of=replay_of):
                letter = letter_of(self.name, message, BEHIND, "waits behind a dead letter of its key", record)
                await dead_letters.park(tx, [letter], wall=datetime.now(UTC))
                return BEHIND
            fresh = await inbox.first_time(tx, self.name, record.event_id, wall=datetime.now(UTC))
            if fresh:
                await self._handlers[record.event_type](tx, record)
            if replay_of is not None:
                await dead_letter_commands.settle(tx, replay_of, wall=datetime.now(UTC))
            return "handled" if fresh else "repeated"

    async def _park(self, letter: Letter) -> None:
        while True:
            try:
                async with self._sessions.begin() as tx:
                    await dead_letters.park(tx, [letter], wall=datetime.now(UTC))
                break
            except (*OUTAGE, DBAPIError) as exc:
                await self._wait_out(exc)
        log.error("record_parked", agent=self.name, topic=letter.topic, offset=letter.offset, reason=letter.reason)
        self._note(failed=True, outcome="parked")

    def _note(self, *, failed: bool, outcome: str) -> None:
        HANDLED.labels(self.name, outcome).inc()
        self._recent.append(failed)
        if len(self._recent) == RECENT and sum(self._recent) > RECENT * FAILING_SHARE:
            restart(self._app, f"{self.name}: {sum(self._recent)} of the last {RECENT} records failed")

    async def _wait_out(self, exc: BaseException) -> None:
        log.warning("effect_waits", agent=self.name, error=repr(exc))
        await asyncio.sleep(OUTAGE_WAIT_S)


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

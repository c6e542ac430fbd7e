"""Looking at dead letters, and deciding on them: replay or discard. Used by the API and by `packstream dlq`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import audit, inbox, outbox
from models.dead_letters import BEHIND, RELAY, REPLAY_HEADER, DeadLetter, DeadLetterStatus, unsettled
from models.errors import NotFound, StateConflict
from models.outbox import WAITING_LANE, OutboxEvent, OutboxFailure
from schemas.codec import UndecodableError, decode_dict
from schemas.registry import EVENTS, TOPIC_PREFIX, TOPICS

REPLAY_MAX: Final = 1000  #: letters of one replay by filter
OCCURRED_AT: Final = "occurred-at"  #: in a relay's letter's headers: the column of that name


class ReplayOutcome(StrEnum):
    """What a replay did to one letter."""

    REPLAYED = "replayed"  #: it is on its way
    ALREADY_REPLAYED = "already_replayed"  #: nothing: it was before
    DISCARDED = "discarded"  #: nothing: it was discarded
    UNDER_WAY = "under_way"  #: nothing: the same event is in the outbox just now; try again
    NO_TOPIC = "no_topic"  #: nothing: its topic is none of ours


class Replayed(NamedTuple):
    """A letter, and what the replay did."""

    id: UUID
    outcome: ReplayOutcome


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters; None: any."""

    status: DeadLetterStatus | None = None
    source: str | None = None
    topic: str | None = None
    key: str | None = None

    def apply(self, query: Select[DeadLetter]) -> Select[DeadLetter]:
        """The query, narrowed."""
        for column, wanted in (
            (DeadLetter.status, self.status),
            (DeadLetter.source, self.source),
            (DeadLetter.topic, self.topic),
            (DeadLetter.key, self.key),
        ):
            if wanted is not None:
                query = query.where(column == wanted)
        return query


async def list_letters(
    tx: AsyncSession,
    *,
    status: DeadLetterStatus | None = None,
    source: str | None = None,
    topic: str | None = None,
    key: str | None = None,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
) -> Sequence[DeadLetter]:
    """Letters, newest first, from behind `after` (created_at, id) on."""
    query = Filter(status, source, topic, key).apply(select(DeadLetter))
    if after is not None:
        query = query.where(tuple_(DeadLetter.created_at, DeadLetter.id) < after)
    rows = await tx.scalars(query.order_by(DeadLetter.created_at.desc(), DeadLetter.id.desc()).limit(limit))
    return rows.all()


async def show(tx: AsyncSession, letter_id: UUID) -> DeadLetter:
    """A letter. Raises NotFound."""
    letter = await tx.get(DeadLetter, letter_id)
    if letter is None:
        raise NotFound(f"there is no dead letter {letter_id}")
    return letter


def decoded(letter: DeadLetter) -> dict[str, Any] | None:
    """The fields of the letter's payload; None when it is not one of our records."""
    try:
        return decode_dict(letter.payload)[1]
    except UndecodableError:
        return None


async def replay(tx: AsyncSession, which: Sequence[UUID] | Filter, *, actor: str, now: datetime) -> list[Replayed]:
    """Send letters on their way again, in order for each key, with their original event ids; audited.

    `which`: ids, or a filter that takes the oldest REPLAY_MAX parked letters it fits. A relay's letter returns to
    its place in the outbox, before all that waits behind it. An agent's goes through the outbox as a new row.
    Letters decided on before are left as they are. Raises NotFound for an unknown id.
    """
    letters = await _lock(tx, which)
    done = []
    for letter in sorted(letters, key=_turn):
        outcome = await _replay_one(tx, letter)
        if outcome is ReplayOutcome.REPLAYED:
            _decide(tx, letter, DeadLetterStatus.REPLAYED, actor=actor, now=now)
        done.append(Replayed(letter.id, outcome))
    return done


def _turn(letter: DeadLetter) -> tuple[str, str, str, int, UUID]:
    """The order within a key: of a relay's letters that of the outbox; an agent's move on when parked again."""
    return letter.source, letter.topic, letter.key, letter.offset if letter.source == RELAY else 0, letter.id


async def discard(tx: AsyncSession, letter_id: UUID, *, reason: str, actor: str, now: datetime) -> DeadLetter:
    """Give a parked letter up for good, audited; what waits behind it goes on, in order.

    For the agent the event counts as met, so that it has no effect whenever it should come again.
    Raises NotFound, and StateConflict when it is not parked.
    """
    (letter,) = await _lock(tx, [letter_id])
    if letter.status != DeadLetterStatus.PARKED:
        raise StateConflict(current=letter.status, action="discard")
    _decide(tx, letter, DeadLetterStatus.DISCARDED, actor=actor, now=now, reason=reason)
    if letter.source == RELAY:
        await _wake(tx, letter)
    else:
        if letter.event_id is not None:
            await inbox.first_time(tx, letter.source, letter.event_id, wall=now)
        await tx.flush()
        await _release_next(tx, letter, now=now)
    return letter


async def settle(tx: AsyncSession, letter_id: UUID, *, wall: datetime) -> None:
    """An agent has dealt with the replay of a letter: what waits behind it goes on its way."""
    letter = await tx.get(DeadLetter, letter_id, with_for_update=True, populate_existing=True)
    if letter is not None and letter.status == DeadLetterStatus.REPLAYED and letter.settled_at is None:
        letter.settled_at = wall
        await tx.flush()
        await _release_next(tx, letter, now=wall)


async def _release_next(tx: AsyncSession, letter: DeadLetter, *, now: datetime) -> None:
    """Publish the key's oldest letter again, if all that it did was wait."""
    oldest = unsettled(letter.source, letter.topic, letter.key).order_by(DeadLetter.id).limit(1)
    behind = await tx.scalar(select(DeadLetter).where(DeadLetter.id.in_(oldest)).with_for_update())
    if behind is None or behind.status != DeadLetterStatus.PARKED or behind.reason != BEHIND:
        return
    if await _publish_again(tx, behind) is ReplayOutcome.REPLAYED:
        behind.status, behind.decided_at, behind.decided_by = DeadLetterStatus.REPLAYED.value, now, letter.source


async def _lock(tx: AsyncSession, which: Sequence[UUID] | Filter) -> Sequence[DeadLetter]:
    query = select(DeadLetter).with_for_update().execution_options(populate_existing=True)
    if isinstance(which, Filter):
        parked = Filter(DeadLetterStatus.PARKED, which.source, which.topic, which.key)
        return (await tx.scalars(parked.apply(query).order_by(DeadLetter.id).limit(REPLAY_MAX))).all()
    letters = (await tx.scalars(query.where(DeadLetter.id.in_(which)).order_by(DeadLetter.id))).all()
    if unknown := set(which) - {letter.id for letter in letters}:
        raise NotFound(f"there is no dead letter {', '.join(map(str, sorted(unknown)))}")
    return letters


async def _replay_one(tx: AsyncSession, letter: DeadLetter) -> ReplayOutcome:
    if letter.status == DeadLetterStatus.REPLAYED:
        return ReplayOutcome.ALREADY_REPLAYED
    if letter.status == DeadLetterStatus.DISCARDED:
        return ReplayOutcome.DISCARDED
    if letter.source == RELAY:
        await _return_to_outbox(tx, letter)
        return ReplayOutcome.REPLAYED
    return await _publish_again(tx, letter)


async def _return_to_outbox(tx: AsyncSession, letter: DeadLetter) -> None:
    """The row as it was, seq included, first of those that wait; and the relay is told to try it."""
    headers = {name: value for name, value in letter.headers.items() if name != OCCURRED_AT}
    row = {
        "seq": letter.offset,
        "id": letter.event_id,
        "aggregatetype": letter.topic.removeprefix(TOPIC_PREFIX),
        "aggregateid": letter.key,
        "type": letter.event_type,
        "payload": letter.payload,
        "lane": WAITING_LANE,
        "headers": headers,
        "occurred_at": datetime.fromisoformat(letter.headers[OCCURRED_AT]),
    }
    await tx.execute(insert(OutboxEvent).values(row))
    await _wake(tx, letter)


async def _wake(tx: AsyncSession, letter: DeadLetter) -> None:
    """Tell the relay that the letter's aggregate may move."""
    row = {
        "seq": letter.offset,
        "aggregatetype": letter.topic.removeprefix(TOPIC_PREFIX),
        "aggregateid": letter.key,
        "lane": outbox.lane_of(letter.key),
        "attempts": letter.attempts,
        "last_error": letter.error,
        "next_attempt_at": func.clock_timestamp(),
    }
    statement = insert(OutboxFailure).values(row)
    await tx.execute(
        statement.on_conflict_do_update(
            index_elements=[OutboxFailure.seq], set_={"next_attempt_at": func.clock_timestamp()}
        )
    )


async def _publish_again(tx: AsyncSession, letter: DeadLetter) -> ReplayOutcome:
    """A new row of the outbox with the record's own id and key, so in order behind what the key has there."""
    aggregatetype = letter.topic.removeprefix(TOPIC_PREFIX)
    if aggregatetype not in TOPICS:
        return ReplayOutcome.NO_TOPIC
    await outbox.lock_aggregate(tx, aggregatetype, letter.key)
    row = {
        "id": letter.event_id or letter.id,
        "aggregatetype": aggregatetype,
        "aggregateid": letter.key,
        "type": _event_type(letter, aggregatetype),
        "payload": letter.payload,
        "lane": outbox.lane_of(letter.key),
        "headers": {**letter.headers, REPLAY_HEADER: str(letter.id)},
        "occurred_at": letter.created_at,
    }
    statement = insert(OutboxEvent).values(row).on_conflict_do_nothing(index_elements=[OutboxEvent.id])
    if (await tx.execute(statement.returning(OutboxEvent.seq))).first() is None:
        return ReplayOutcome.UNDER_WAY
    return ReplayOutcome.REPLAYED


def _event_type(letter: DeadLetter, aggregatetype: str) -> str:
    """The record's type; of one that could not be decoded, a type of its topic (a consumer trusts the payload)."""
    if letter.event_type in EVENTS:
        return str(letter.event_type)
    return next((name for name, event in EVENTS.items() if event.aggregatetype == aggregatetype), "unknown")


def _decide(
    tx: AsyncSession,
    letter: DeadLetter,
    status: DeadLetterStatus,
    *,
    actor: str,
    now: datetime,
    reason: str | None = None,
) -> None:
    change: dict[str, Any] = {"status": [letter.status, status.value]}
    if reason is not None:
        change["reason"] = [None, reason]
    letter.status, letter.decided_at, letter.decided_by, letter.decision_reason = status.value, now, actor, reason
    audit.record(
        tx,
        actor=actor,
        action=f"dead_letter.{'replay' if status is DeadLetterStatus.REPLAYED else 'discard'}",
        object_type="dead_letter",
        object_id=letter.id,
        now=now,
        change=change,
    )

"""Dead letters: records that could not be published or processed, kept with their reason until someone decides.

Deciding (replay, discard) is in dead_letter_commands.py.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Index,
    LargeBinary,
    Select,
    SmallInteger,
    Text,
    UniqueConstraint,
    and_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base, new_id

ERROR_CHARS_MAX = 2000
RELAY = "relay"  #: the source of letters that the broker refused
NEVER_PUBLISHED = -1  #: the partition of a relay's letter
BEHIND = "behind"  #: the reason of letters that only wait for an earlier one of their key
REPLAY_HEADER = "dead-letter-id"  #: of a replayed record: the letter that it comes from


class DeadLetterStatus(StrEnum):
    PARKED = "parked"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetter(Base):
    __tablename__ = "dead_letters"
    __table_args__ = (
        UniqueConstraint("source", "topic", "partition", "offset"),
        CheckConstraint("status IN ('parked', 'replayed', 'discarded')", name="status"),
        Index("ix_dead_letters_parked", "source", "topic", "key", postgresql_where=text("status = 'parked'")),
        Index(None, "status", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(Text, comment="relay, or the agent's name")
    topic: Mapped[str] = mapped_column(Text)
    partition: Mapped[int] = mapped_column(SmallInteger, comment="-1: never published")
    offset: Mapped[int] = mapped_column(comment="the record's; of a relay's letter the outbox seq")
    key: Mapped[str] = mapped_column(Text)
    event_id: Mapped[UUID | None]
    event_type: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text, comment="a code: undecodable, unknown_schema, unknown_ad, refused …")
    error: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(SmallInteger)
    status: Mapped[str] = mapped_column(Text)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    headers: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None] = mapped_column(comment="wall time at which an agent dealt with its replay")
    decided_by: Mapped[str | None] = mapped_column(Text)
    decision_reason: Mapped[str | None] = mapped_column(Text)


class Letter(NamedTuple):
    """A record that goes to the dead letters. `replay_of`: the letter that its REPLAY_HEADER names, if it has one."""

    source: str
    topic: str
    partition: int
    offset: int
    key: str
    reason: str
    error: str
    payload: bytes
    event_id: UUID | None = None
    event_type: str | None = None
    attempts: int = 1
    traceparent: str | None = None
    replay_of: UUID | None = None


async def park(tx: AsyncSession, letters: list[Letter], *, wall: datetime) -> int:
    """Keep `letters`, and say how many of them are new; one of the same source, topic, partition and offset is not.

    A record that was replayed in vain parks the letter it came from again, at its new position.
    """
    fresh = [letter for letter in letters if not (letter.replay_of and await _park_again(tx, letter))]
    again = len(letters) - len(fresh)
    if not fresh:
        return again
    rows = [
        {
            **letter._asdict(),
            "id": new_id(),
            "error": letter.error[:ERROR_CHARS_MAX],
            "status": DeadLetterStatus.PARKED,
            "headers": {"traceparent": letter.traceparent} if letter.traceparent else {},
            "created_at": wall,
        }
        for letter in fresh
    ]
    for row in rows:
        del row["traceparent"], row["replay_of"]
    statement = insert(DeadLetter).on_conflict_do_nothing().returning(DeadLetter.id)
    return again + len((await tx.scalars(statement, rows)).all())


async def _park_again(tx: AsyncSession, letter: Letter) -> bool:
    """Whether the letter that `letter` is a replay of waits for its outcome; if so, this is the outcome."""
    statement = (
        update(DeadLetter)
        .where(DeadLetter.id == letter.replay_of, DeadLetter.source == letter.source)
        .where(DeadLetter.status == DeadLetterStatus.REPLAYED)
        .values(
            status=DeadLetterStatus.PARKED,
            partition=letter.partition,
            offset=letter.offset,
            reason=letter.reason,
            error=letter.error[:ERROR_CHARS_MAX],
            attempts=DeadLetter.attempts + letter.attempts,
            decided_at=None,
            decided_by=None,
            settled_at=None,
        )
    )
    return (await tx.execute(statement.returning(DeadLetter.id))).first() is not None


def unsettled(source: str, topic: str, key: str) -> Select[UUID]:
    """Letters that hold up an agent's key: parked ones, and replayed ones whose record has not come back yet."""
    status = DeadLetter.status
    on_its_way = and_(status == DeadLetterStatus.REPLAYED, DeadLetter.settled_at.is_(None))
    return select(DeadLetter.id).where(
        DeadLetter.source == source,
        DeadLetter.topic == topic,
        DeadLetter.key == key,
        or_(status == DeadLetterStatus.PARKED, on_its_way),
    )


async def blocks(tx: AsyncSession, source: str, topic: str, key: str, *, replay_of: UUID | None) -> bool:
    """Whether a record of this key has to wait. A replayed one waits only for letters older than its own.

    The letter that it waits for stays as it is until the transaction ends: who decides on it meanwhile sees, when
    their turn comes, the letter that waits behind it.
    """
    query = unsettled(source, topic, key)
    if replay_of is not None:
        query = query.where(DeadLetter.id < replay_of)
    return (await tx.execute(query.limit(1).with_for_update(read=True))).first() is not None


async def source_of(tx: AsyncSession, letter_id: UUID) -> str | None:
    """Who wrote a letter; None when there is none such."""
    return await tx.scalar(select(DeadLetter.source).where(DeadLetter.id == letter_id))

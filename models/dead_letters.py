"""Dead letters: records that could not be published or processed, kept with their reason until someone decides."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, LargeBinary, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base, new_id

ERROR_CHARS_MAX = 2000
RELAY = "relay"  #: the source of letters that the broker refused


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
    decided_by: Mapped[str | None] = mapped_column(Text)
    decision_reason: Mapped[str | None] = mapped_column(Text)


class Letter(NamedTuple):
    """A record that goes to the dead letters."""

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


async def park(tx: AsyncSession, letters: list[Letter], *, wall: datetime) -> None:
    """Keep `letters`; one that is kept already (the same source, topic, partition and offset) stays as it is."""
    if not letters:
        return
    rows = [
        {
            **letter._asdict(),
            "id": new_id(),
            "error": letter.error[:ERROR_CHARS_MAX],
            "status": DeadLetterStatus.PARKED,
            "headers": {},
            "created_at": wall,
        }
        for letter in letters
    ]
    await tx.execute(insert(DeadLetter).on_conflict_do_nothing(), rows)

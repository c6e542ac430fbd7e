"""The transactional outbox: the only way anything is published.

`append` writes a row in the caller's transaction; a relay (ours or Debezium) turns rows into Kafka records.
Rows are inserted and deleted, never updated. What the relay does to them is in outbox_commands.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import CheckConstraint, Identity, Index, LargeBinary, SmallInteger, Text, UniqueConstraint, func, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base, Driver, send
from models.errors import PayloadTooLarge
from schemas.codec import encode
from schemas.records import Record
from schemas.registry import EVENTS

LANES = 32
WAITING_LANE = -1  #: rows of an aggregate that waits behind a refused row: out of the relay's read window
PAYLOAD_BYTES_MAX = 900_000  #: below the broker's message.max.bytes, headers included


class OutboxEvent(Base):
    """A record on its way to Kafka. Debezium's EventRouter reads this table as it stands."""

    __tablename__ = "outbox_events"
    __table_args__ = (
        CheckConstraint("lane BETWEEN -1 AND 31", name="lane"),
        Index(None, "lane", "seq"),
        Index("ix_outbox_events_waiting", "aggregatetype", "aggregateid", "seq", postgresql_where=text("lane = -1")),
    )

    seq: Mapped[int] = mapped_column(Identity(), primary_key=True)
    id: Mapped[UUID] = mapped_column(unique=True)
    aggregatetype: Mapped[str] = mapped_column(Text, comment="the topic, without its prefix")
    aggregateid: Mapped[str] = mapped_column(Text, comment="the record's key")
    type: Mapped[str] = mapped_column(Text)
    payload: Mapped[bytes] = mapped_column(LargeBinary, comment="Avro, single-object encoding")
    lane: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    occurred_at: Mapped[datetime] = mapped_column(comment="logical time")
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp(), comment="wall time")


class OutboxArchive(Base):
    """What was published; a partition a day, dropped after 30 days."""

    __tablename__ = "outbox_archive"
    __table_args__ = (
        Index(None, "aggregatetype", "aggregateid", "seq"),
        {"postgresql_partition_by": "RANGE (published_at)"},
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    published_at: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[UUID]
    aggregatetype: Mapped[str] = mapped_column(Text)
    aggregateid: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    lane: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, Any]]
    occurred_at: Mapped[datetime]
    created_at: Mapped[datetime]


class OutboxLane(Base):
    """A lane is claimed by locking its row; `lane = hash(aggregateid) mod 32`."""

    __tablename__ = "outbox_lanes"

    lane: Mapped[int] = mapped_column(SmallInteger, primary_key=True)


class OutboxFailure(Base):
    """A row that the broker refused; its aggregate waits behind it, in WAITING_LANE, until this row goes.

    `next_attempt_at` null: the row is a parked dead letter. Replay and discard set it to the present; the relay
    then tries the row again if it is back in the outbox, and lets the aggregate go on.
    """

    __tablename__ = "outbox_failures"
    __table_args__ = (
        CheckConstraint("attempts > 0", name="attempts"),
        UniqueConstraint("aggregatetype", "aggregateid"),
        Index(None, "lane", "next_attempt_at"),
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    lane: Mapped[int] = mapped_column(SmallInteger, comment="the aggregate's, where its rows return to")
    aggregatetype: Mapped[str] = mapped_column(Text)
    aggregateid: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(SmallInteger)
    last_error: Mapped[str] = mapped_column(Text)
    next_attempt_at: Mapped[datetime | None] = mapped_column(comment="wall time; null: a dead letter")


def lane_of(aggregateid: str) -> int:
    """The lane an aggregate's rows travel in."""
    return zlib.crc32(aggregateid.encode()) % LANES


def lock_key(aggregatetype: str, aggregateid: str) -> int:
    """The advisory lock of an aggregate, a signed 64-bit number."""
    name = f"{aggregatetype}\0{aggregateid}".encode()
    unsigned = zlib.crc32(name) << 32 | zlib.crc32(name[::-1], 0x5BD1)
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


async def lock_aggregate(
    tx: AsyncSession | Driver, aggregatetype: str, aggregateid: str, *, shared: bool = False
) -> None:
    """Hold the aggregate's lock until the transaction ends."""
    await lock_aggregates(tx, aggregatetype, [aggregateid], shared=shared)


async def lock_aggregates(
    tx: AsyncSession | Driver, aggregatetype: str, aggregateids: Sequence[str], *, shared: bool = False
) -> None:
    """Hold the locks of all of them, taken in the order given (who takes several, takes them in one order).

    `shared`: batches of ad events, whose order among themselves does not matter; ticks are exclusive.
    """
    keys = [lock_key(aggregatetype, aggregateid) for aggregateid in aggregateids]
    await send(tx, _LOCK_SHARED if shared else _LOCK, keys)


async def append(
    tx: AsyncSession | Driver,
    record: Record,
    *,
    traceparent: str | None = None,
) -> None:
    """Publish `record` when the transaction commits.

    Takes the aggregate's lock first, so that the order of `seq` is the order of commits within an aggregate.
    Raises ValueError for a type that is not registered or a payload that does not fit its schema, and
    PayloadTooLarge over PAYLOAD_BYTES_MAX: the request fails, not the relay.
    """
    await append_encoded(tx, encoded([record], traceparent=traceparent))


async def append_all(tx: AsyncSession | Driver, records: Sequence[Record]) -> None:
    """As `append` of each in turn, in one statement. Whoever else locks several of the aggregates does so in this
    order."""
    await append_encoded(tx, encoded(records))


class Encoded(NamedTuple):
    """Records as `append_encoded` takes them."""

    locks: Sequence[int]
    columns: Sequence[Sequence[Any]]


def encoded(records: Sequence[Record], *, traceparent: str | None = None) -> Encoded:
    """The records as rows, for who appends them under other locks and wants to hold those no longer than need be.

    Raises ValueError and PayloadTooLarge, as `append`.
    """
    rows = [_row(record, traceparent) for record in records]
    return Encoded([lock_key(row["aggregatetype"], row["aggregateid"]) for row in rows], _columns(rows))


async def append_encoded(tx: AsyncSession | Driver, records: Encoded) -> None:
    """Publish the records when the transaction commits, as `append_all`."""
    await send(tx, _APPEND, records.locks, *records.columns)


async def append_locked(tx: AsyncSession | Driver, records: Sequence[Record]) -> None:
    """Publish `records` as `append` does, for a caller that holds the locks of all their aggregates already."""
    if records:
        await send(tx, _INSERT_MANY, *columns_of(records))


def columns_of(records: Iterable[Record]) -> list[list[Any]]:
    """The rows of `records`, column by column in the order of _COLUMNS, as the driver takes them."""
    return _columns([_row(record) for record in records])


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in _COLUMNS]


def _row(record: Record, traceparent: str | None = None) -> dict[str, Any]:
    event = EVENTS[record.event_type]
    key = event.key(record)
    payload = encode(record)
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise PayloadTooLarge(f"{record.event_type} has {len(payload)} bytes, the limit is {PAYLOAD_BYTES_MAX}")
    headers = {"schema": event.schema_name}
    if traceparent:
        headers["traceparent"] = traceparent
    return {
        "id": record.event_id,
        "aggregatetype": event.aggregatetype,
        "aggregateid": key,
        "type": record.event_type,
        "payload": payload,
        "lane": lane_of(key),
        "headers": orjson.dumps(headers).decode(),
        "occurred_at": record.occurred_at,
    }


_LOCK, _LOCK_SHARED = (
    f"SELECT {function}(key) FROM unnest($1::bigint[]) AS key"
    for function in ("pg_advisory_xact_lock", "pg_advisory_xact_lock_shared")
)
_COLUMNS = {
    "id": "uuid",
    "aggregatetype": "text",
    "aggregateid": "text",
    "type": "text",
    "payload": "bytea",
    "lane": "smallint",
    "headers": "jsonb",
    "occurred_at": "timestamptz",
}
_INTO = f"INSERT INTO outbox_events ({', '.join(_COLUMNS)})"  # no RETURNING: who writes the outbox may not read it


def _arrays(first: int) -> str:
    return ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS.values(), first))


_INSERT_MANY = f"{_INTO} SELECT * FROM unnest({_arrays(1)})"
# A row's seq is drawn when the row is made, which is when all locks are held: it needs to know how many they are.
_APPEND = (
    f"WITH locked AS MATERIALIZED ({_LOCK}) {_INTO}"
    f" SELECT row.* FROM (SELECT count(*) FROM locked) AS held, unnest({_arrays(2)}) AS row"
)

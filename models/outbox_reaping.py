"""The outbox behind Debezium: which rows its replication slot has confirmed, and their way to the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import ARRAY, BigInteger, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

SLOT: Final = "packstream_outbox"

_CONFIRMED = text("SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = :slot")
_ROWS = text("SELECT seq FROM outbox_events WHERE seq > :after ORDER BY seq LIMIT :rows")
_POSITION = text("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
_MOVE_OUT = text(
    "WITH gone AS (DELETE FROM outbox_events WHERE seq = ANY(:seqs) RETURNING *)"
    " INSERT INTO outbox_archive (seq, published_at, id, aggregatetype, aggregateid, type, payload, lane, headers,"
    " occurred_at, created_at)"
    " SELECT seq, clock_timestamp(), id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at,"
    " created_at FROM gone WHERE type <> ALL(:unarchived)"
).bindparams(bindparam("seqs", type_=ARRAY(BigInteger)), bindparam("unarchived", type_=ARRAY(Text)))


class Sweep(NamedTuple):
    """Rows that were seen, and a position of the write-ahead log behind the commits of all of them."""

    seqs: list[int]
    position: int


async def confirmed_position(tx: AsyncSession, slot: str = SLOT) -> int | None:
    """Up to where Debezium has everything in Kafka; None without a slot."""
    position = (await tx.execute(_CONFIRMED, {"slot": slot})).scalar_one_or_none()
    return None if position is None else int(position)


async def look(tx: AsyncSession, *, after: int, rows_max: int) -> Sweep:
    """The next rows; the position is read after them, so it lies behind them."""
    seqs = list((await tx.execute(_ROWS, {"after": after, "rows": rows_max})).scalars())
    return Sweep(seqs, int((await tx.execute(_POSITION)).scalar_one()))


async def move_out(tx: AsyncSession, seqs: Sequence[int], *, unarchived: Sequence[str]) -> None:
    """Delete rows that are published; all but those of `unarchived` types go to the archive."""
    await tx.execute(_MOVE_OUT, {"seqs": list(seqs), "unarchived": list(unarchived)})

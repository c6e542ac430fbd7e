"""Commands on the positions of facts: each is refused to an owner that has been succeeded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models.analytics.tables import WarehouseBackfill, WarehouseBackfilled, WarehousePosition, WarehouseStream

WRITING: Final = 0x77617265  #: the advisory lock of `keep_apart`
PATIENT: Final = ["statement_timeout", "idle_in_transaction_session_timeout"]


class SucceededError(Exception):
    """Somebody else owns the partition now."""


@dataclass(slots=True)
class StreamPlace:
    """A stream, and the offset of the next row in it."""

    name: str
    row_offset: int = 0


@dataclass(slots=True)
class Place:
    """A partition in the hands of its owner. `doubtful_until`: rows of records before it may be there already."""

    topic: str
    partition: int
    epoch: int
    next_offset: int
    doubtful_until: int
    streams: dict[str, StreamPlace] = field(default_factory=dict)


async def take_over(
    tx: AsyncSession, topic: str, partition: int, *, first_offset: int, wall: datetime
) -> tuple[Place, list[str]]:
    """Own the partition from here on; `first_offset` is where a partition begins that nobody has owned before.

    Where the owner before began what it did not end, its streams are returned and forgotten: they have to be ended
    before anything is written, so that it cannot go on.
    """
    mine = insert(WarehousePosition).values(
        topic=topic, partition=partition, epoch=1, next_offset=first_offset, updated_at=wall
    )
    taken = mine.on_conflict_do_update(
        index_elements=["topic", "partition"], set_={"epoch": WarehousePosition.epoch + 1, "updated_at": wall}
    )
    row = (await tx.scalars(taken.returning(WarehousePosition), execution_options={"populate_existing": True})).one()
    here = (WarehouseStream.topic == topic, WarehouseStream.partition == partition)
    kept = {
        found.table_name: StreamPlace(found.stream, found.row_offset)
        for found in await tx.scalars(select(WarehouseStream).where(*here))
    }
    place = Place(topic, partition, row.epoch, row.next_offset, row.pending_until or 0)
    if row.pending_until is None:
        place.streams = kept
        return place, []
    return place, [stream.name for stream in kept.values()]


async def claim(tx: AsyncSession, place: Place, until: int, *, wall: datetime) -> None:
    """Say that rows of records before `until` are about to be written. Raises SucceededError."""
    await _set(tx, place, wall, pending_until=max(until, place.doubtful_until, place.next_offset + 1))


async def keep_stream(tx: AsyncSession, place: Place, table: str, stream: StreamPlace, *, wall: datetime) -> None:
    """Write a stream down, before its first row is sent. Raises SucceededError."""
    await _set(tx, place, wall)
    await _put(tx, place, {table: stream})


async def complete(tx: AsyncSession, place: Place, next_offset: int, *, wall: datetime) -> None:
    """The claimed rows are written, and the streams have come as far as `place` says. Raises SucceededError."""
    doubt = place.doubtful_until if place.doubtful_until > next_offset else None
    await _set(tx, place, wall, next_offset=next_offset, pending_until=doubt)
    await _put(tx, place, place.streams)


async def forget_streams(tx: AsyncSession, place: Place, *, wall: datetime) -> None:
    """Streams that are ended. Raises SucceededError."""
    await _set(tx, place, wall)
    here = (WarehouseStream.topic == place.topic, WarehouseStream.partition == place.partition)
    await tx.execute(delete(WarehouseStream).where(*here))


async def next_offsets(tx: AsyncSession, topic: str) -> dict[int, int]:
    """By partition, the offset up to which everything is written."""
    query = select(WarehousePosition.partition, WarehousePosition.next_offset).where(WarehousePosition.topic == topic)
    return {partition: offset for partition, offset in await tx.execute(query)}  # noqa: C416


# -- backfills --------------------------------------------------------------------------------------------------------


async def keep_apart(tx: AsyncSession, *, backfill: bool) -> None:
    """Until the transaction ends, no page of a backfill is written while the agent's batches are, and the other way.

    Waits for its turn, and may then wait for the warehouse, for as long as it takes.
    """
    for name in PATIENT:
        await tx.execute(select(func.set_config(name, "0", True)))
    lock = func.pg_advisory_xact_lock if backfill else func.pg_advisory_xact_lock_shared
    await tx.execute(select(lock(WRITING)))


async def announce(tx: AsyncSession, row_ids: Collection[str]) -> None:
    """A backfill is about to write these rows."""
    rows = [{"row_id": row_id} for row_id in sorted(row_ids)]
    if not rows:
        return
    await tx.execute(insert(WarehouseBackfilled).on_conflict_do_nothing(), rows)


async def announced(tx: AsyncSession, row_ids: Collection[str]) -> bool:
    """Whether any of these rows may be there already, by a backfill."""
    query = select(WarehouseBackfilled.row_id).where(WarehouseBackfilled.row_id.in_(row_ids)).limit(1)
    return (await tx.execute(query)).first() is not None


async def progress(tx: AsyncSession) -> dict[str, str]:
    """Cursors of the backfill that is under way, by section."""
    rows = await tx.execute(select(WarehouseBackfill.section, WarehouseBackfill.cursor))
    return {section: cursor for section, cursor in rows}  # noqa: C416


async def keep_progress(tx: AsyncSession, section: str, cursor: str, *, wall: datetime) -> None:
    """A section has come so far."""
    statement = insert(WarehouseBackfill).values(section=section, cursor=cursor, updated_at=wall)
    said = {"cursor": cursor, "updated_at": wall}
    await tx.execute(statement.on_conflict_do_update(index_elements=["section"], set_=said))


async def forget_progress(tx: AsyncSession) -> None:
    """The next backfill begins at the beginning."""
    await tx.execute(delete(WarehouseBackfill))


async def _set(tx: AsyncSession, place: Place, wall: datetime, **values: int | None) -> None:
    changed = await tx.execute(
        update(WarehousePosition)
        .where(WarehousePosition.topic == place.topic, WarehousePosition.partition == place.partition)
        .where(WarehousePosition.epoch == place.epoch)
        .values(updated_at=wall, **values)
        .returning(WarehousePosition.epoch)
    )
    if changed.first() is None:
        raise SucceededError(f"{place.topic}-{place.partition}: epoch {place.epoch} is over")


async def _put(tx: AsyncSession, place: Place, streams: Mapping[str, StreamPlace]) -> None:
    if not streams:
        return
    rows = [
        {"topic": place.topic, "partition": place.partition, "table_name": table, "stream": one.name,
         "row_offset": one.row_offset}
        for table, one in streams.items()
    ]  # fmt: skip
    statement = insert(WarehouseStream).values(rows)
    said = {name: statement.excluded[name] for name in ("stream", "row_offset")}
    await tx.execute(statement.on_conflict_do_update(index_elements=["topic", "partition", "table_name"], set_=said))

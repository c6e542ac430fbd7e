"""Rows to Kafka records, in order for each aggregate, and what became of each row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    UnknownProducerId,
)
from aiokafka.errors import UnknownTopicOrPartitionError as UnknownTopic
from aiokafka.partitioner import murmur2

from models.outbox_commands import Row
from schemas.registry import EVENTS, PARTITIONS, TOPICS

BATCH_BYTES: Final = 512 * 1024  #: of one produced batch; a single row may be larger
BATCH_ROWS_MAX: Final = 10_000
ROW_BYTES_MAX: Final = 8 << 20  #: far above what a topic takes, far below what the broker hangs up on
PLACES_MAX: Final = 100_000  #: keys whose partition is remembered

Place = tuple[str, int]
"""Topic and partition."""

_PRODUCER_BROKEN: Final = (
    InvalidProducerEpoch,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    UnknownProducerId,
)


class ProducerBroken(Exception):
    """The producer cannot go on; a new one can."""


@dataclass(slots=True)
class Refused:
    """Why the broker (or the relay in its stead) will not have a row."""

    error: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What became of rows. Those in none of the three were never sent: their aggregate stopped before them."""

    acked: list[Row] = field(default_factory=list)
    refused: list[tuple[Row, Refused]] = field(default_factory=list)
    held: list[Row] = field(default_factory=list)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.acked + other.acked, self.refused + other.refused, self.held + other.held)


def partition_of(key: bytes) -> int:
    """The partition that Java's producer, and so Debezium, puts `key` in."""
    return int(murmur2(key) & 0x7FFFFFFF) % PARTITIONS


def unpublishable(row: Row) -> Refused | None:
    """Why a row need not be shown to the broker; None for a good one."""
    if row.aggregatetype not in TOPICS:
        return Refused(f"no topic is registered for {row.aggregatetype!r}", "unknown_topic")
    if row.type not in EVENTS:
        return Refused(f"event type {row.type!r} is not registered", "unknown_type")
    if row.payload is None:
        return Refused(f"the payload has {row.size_bytes} bytes", "too_large")
    return None


def headers_of(row: Row) -> list[tuple[str, bytes]]:
    """The record's headers: `id` and `type` always, the others where the row has them."""
    headers = [("id", row.id), ("type", row.type.encode())]
    if row.traceparent is not None:
        headers.append(("traceparent", row.traceparent))
    if row.dead_letter_id is not None:
        headers.append(("dead-letter-id", row.dead_letter_id))
    return headers


class Publisher:
    """Publishes through one idempotent producer, with one batch a partition in flight.

    One at a time, because a refused batch must not let later rows of an aggregate overtake it.
    """

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer
        self._places: dict[tuple[str, bytes], Place] = {}

    async def publish(self, rows: Iterable[Row], *, singly: bool = False) -> Outcome:
        """Send `rows`, which are in order, and wait for every answer, however long the broker is away.

        `singly`: a row a batch, for rows that were refused before. Raises ProducerBroken when this producer cannot
        go on; what became of the rows is then unknown.
        """
        outcome = Outcome()
        stopped: set[tuple[str, bytes]] = set()
        lines: dict[Place, list[Row]] = {}
        for row in rows:
            if row.aggregate in stopped:
                outcome.held.append(row)
            elif refused := unpublishable(row):
                outcome.refused.append((row, refused))
                stopped.add(row.aggregate)
            else:
                lines.setdefault(self._place(row), []).append(row)
        rows_max = 1 if singly else BATCH_ROWS_MAX
        await _all([asyncio.create_task(self._send_line(*item, outcome, rows_max)) for item in lines.items()])
        return outcome

    def _place(self, row: Row) -> Place:
        place = self._places.get(row.aggregate)
        if place is None:
            if len(self._places) >= PLACES_MAX:
                self._places.clear()
            place = self._places[row.aggregate] = (TOPICS[row.aggregatetype].name, partition_of(row.key))
        return place

    async def _send_line(self, place: Place, rows: Sequence[Row], outcome: Outcome, rows_max: int) -> None:
        """All rows of one partition, batch after batch."""
        stopped: set[tuple[str, bytes]] = set()
        while rows:
            batch, count = self._batch(rows[:rows_max])
            if refused := await self._send(place, batch):
                await self._send_halves(place, rows[:count], refused, outcome, stopped)
            else:
                outcome.acked += rows[:count]
            rows = rows[count:]
            if stopped:
                outcome.held += [row for row in rows if row.aggregate in stopped]
                rows = [row for row in rows if row.aggregate not in stopped]

    async def _send_halves(
        self,
        place: Place,
        rows: Sequence[Row],
        refused: Refused,
        outcome: Outcome,
        stopped: set[tuple[str, bytes]],
    ) -> None:
        """Rows of a refused batch, halved until the row at fault stands alone; `stopped` gathers aggregates."""
        if len(rows) == 1:
            outcome.refused.append((rows[0], refused))
            stopped.add(rows[0].aggregate)
            return
        middle = len(rows) // 2
        for half in (rows[:middle], rows[middle:]):
            outcome.held += [row for row in half if row.aggregate in stopped]
            going = [row for row in half if row.aggregate not in stopped]
            if not going:
                continue
            batch, count = self._batch(going)
            assert count == len(going), "a part of a batch fits a batch"
            if again := await self._send(place, batch):
                await self._send_halves(place, going, again, outcome, stopped)
            else:
                outcome.acked += going

    def _batch(self, rows: Sequence[Row]) -> tuple[Any, int]:
        """A batch of the first rows, as many as fit, and how many these are."""
        batch = self._producer.create_batch()
        append = batch.append
        count = 0
        for row in rows:
            if append(timestamp=None, key=row.key, value=row.payload, headers=headers_of(row)) is None:
                break
            count += 1
        return batch, count

    async def _send(self, place: Place, batch: Any) -> Refused | None:
        """Send a batch until the broker says yes (None) or no (why)."""
        topic, partition = place
        try:
            await (await self._producer.send_batch(batch, topic, partition=partition))
        except _PRODUCER_BROKEN as exc:
            raise ProducerBroken(repr(exc)) from exc
        except UnknownTopic as exc:
            raise ProducerBroken(f"{topic} is missing or not known yet: run `packstream topics`") from exc
        except KafkaError as exc:
            if exc.retriable or self._producer._sender.sender_task.done():
                raise ProducerBroken(repr(exc)) from exc
            self._take_back_sequence(place, batch)
            return Refused(f"{type(exc).__name__}: {exc}", "refused")
        return None

    def _take_back_sequence(self, place: Place, batch: Any) -> None:
        """A refused batch was never appended: the next one must carry its sequence numbers.

        Java's producer does this itself; aiokafka counts on, and the broker would refuse all that follows.
        """
        manager = self._producer._txn_manager
        manager.increment_sequence_number(TopicPartition(*place), -batch.record_count())


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for every task; then raise what one of them raised."""
    if not tasks:
        return
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        raise
    for task in tasks:
        task.result()

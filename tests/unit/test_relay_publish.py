"""Where records go, in what order rows are sent, and what a refusal stops; against a scripted producer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
)
from hypothesis import given
from hypothesis import strategies as st

from agents.relay.failures import BACKOFF_MAX_S, retry_delay_s
from agents.relay.publish import ProducerBroken, Publisher, headers_of, partition_of
from models.outbox_commands import Row

PER_BATCH = 4


class ScriptedBatch:
    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes, headers: object) -> object | None:
        if len(self.values) == PER_BATCH:
            return None
        self.values.append(value)
        return object()

    def record_count(self) -> int:
        return len(self.values)


class ScriptedProducer:
    """Refuses batches by their values; keeps what it accepted, and sequence numbers as a broker would check them."""

    def __init__(self, verdict: Callable[[list[bytes]], KafkaError | None]) -> None:
        self.sent: list[bytes] = []
        self.in_flight: set[int] = set()
        self.sequence: dict[TopicPartition, int] = {}
        self._verdict = verdict
        self._txn_manager = self
        self._sender = self
        self.sender_task = asyncio.get_running_loop().create_future()

    def create_batch(self) -> ScriptedBatch:
        return ScriptedBatch()

    def increment_sequence_number(self, place: TopicPartition, count: int) -> None:
        self.sequence[place] = self.sequence.get(place, 0) + count

    async def send_batch(self, batch: ScriptedBatch, topic: str, *, partition: int) -> asyncio.Task[None]:
        assert partition not in self.in_flight, "one batch a partition in flight"
        self.in_flight.add(partition)
        self.increment_sequence_number(TopicPartition(topic, partition), len(batch.values))
        return asyncio.create_task(self._answer(batch, partition))

    async def _answer(self, batch: ScriptedBatch, partition: int) -> None:
        await asyncio.sleep(0)
        self.in_flight.discard(partition)
        if error := self._verdict(batch.values):
            raise error
        self.sent += batch.values


def row(seq: int, key: str = "k", payload: bytes | None = None, **changes: Any) -> Row:
    value = payload if payload is not None else b"%d" % seq
    return Row(seq, b"id", "catalog", key.encode(), "ad_changed", value, len(value), None, None, 0.0, False)._replace(
        **changes
    )


def refuse(*bad: bytes) -> Callable[[list[bytes]], KafkaError | None]:
    return lambda values: MessageSizeTooLargeError() if set(bad) & set(values) else None


@pytest.mark.parametrize(
    ("key", "partition"),
    # what org.apache.kafka.common.utils.Utils.murmur2 gives, modulo 12
    [(b"21", (-973932308 & 0x7FFFFFFF) % 12), (b"foobar", (-790332482 & 0x7FFFFFFF) % 12)],
)
def test_partitions_are_those_of_java(key: bytes, partition: int) -> None:
    assert partition_of(key) == partition


def test_headers_are_those_that_the_row_has() -> None:
    assert headers_of(row(1)) == [("id", b"id"), ("type", b"ad_changed")]
    full = headers_of(row(1, traceparent=b"t", dead_letter_id=b"d"))
    assert full[2:] == [("traceparent", b"t"), ("dead-letter-id", b"d")]


async def test_a_refused_row_stops_its_aggregate_and_no_other() -> None:
    producer = ScriptedProducer(refuse(b"5"))
    rows = [row(seq, key="a" if seq % 2 else "b") for seq in range(20)]
    outcome = await Publisher(producer).publish(rows)
    assert [item.seq for item, _ in outcome.refused] == [5]
    assert sorted(item.seq for item in outcome.held) == [7, 9, 11, 13, 15, 17, 19]
    assert sorted(int(value) for value in producer.sent) == sorted(item.seq for item in outcome.acked)
    assert sorted(item.seq for item in outcome.acked) == sorted([1, 3, *range(0, 20, 2)])
    (place,) = {(p, n) for p, n in producer.sequence.items() if p.partition == partition_of(b"a")}
    assert place[1] == sum(partition_of(r.key) == place[0].partition for r in outcome.acked), "as the broker counts"


@given(
    owners=st.lists(st.integers(0, 3), max_size=40),
    bad=st.sets(st.integers(0, 39), max_size=6),
    singly=st.booleans(),
)
def test_whatever_is_refused_the_order_of_each_aggregate_holds(owners: list[int], bad: set[int], singly: bool) -> None:
    async def check() -> None:
        producer = ScriptedProducer(refuse(*(b"%d" % seq for seq in bad)))
        rows = [row(seq, key=f"key {owner}") for seq, owner in enumerate(owners)]
        outcome = await Publisher(producer).publish(rows, singly=singly)
        for owner in set(owners):
            mine = [seq for seq, other in enumerate(owners) if other == owner]
            first_bad = next((n for n, seq in enumerate(mine) if seq in bad), len(mine))
            sent = [int(value) for value in producer.sent if owners[int(value)] == owner]
            assert sent == mine[:first_bad], "all before the refused row, once, in order, and none behind it"
        dealt = [*outcome.acked, *outcome.held, *(item for item, _ in outcome.refused)]
        assert sorted(item.seq for item in dealt) == list(range(len(owners)))

    asyncio.run(check())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aggregatetype": "songs"}, "unknown_topic"),
        ({"type": "order_sung"}, "unknown_type"),
        ({"payload": None, "size_bytes": 1 << 30}, "too_large"),
    ],
)
async def test_the_broker_is_not_asked_about_unpublishable_rows(changes: dict[str, Any], reason: str) -> None:
    producer = ScriptedProducer(refuse())
    outcome = await Publisher(producer).publish([row(1)._replace(**changes), row(2)._replace(**changes), row(3, "x")])
    assert [(item.seq, why.reason) for item, why in outcome.refused] == [(1, reason)]
    assert [item.seq for item in outcome.held] == [2]
    assert producer.sent == [b"3"]


@pytest.mark.parametrize("error", [OutOfOrderSequenceNumber(), KafkaConnectionError()])
async def test_a_broken_producer_is_not_the_rows_fault(error: KafkaError) -> None:
    with pytest.raises(ProducerBroken):
        await Publisher(ScriptedProducer(lambda values: error)).publish([row(1)])


def test_attempts_come_ever_more_rarely_up_to_a_cap() -> None:
    assert [retry_delay_s(n) for n in range(1, 9)] == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert retry_delay_s(10_000) == BACKOFF_MAX_S

"""Reading whole topics, outside any group: for reconciliation and benchmarks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

READ_RECORDS = 5_000


async def read_topic(
    connection: dict[str, Any],
    topic: str,
    *,
    until: Mapping[int, int] | None = None,
    isolation: str = "read_uncommitted",
) -> AsyncIterator[list[Any]]:
    """Records of all partitions, each partition's in order, up to (not including) the offsets in `until`, else up to
    the end as it was at the start."""
    async with AIOKafkaConsumer(
        **connection,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation,
        max_partition_fetch_bytes=8 << 20,
    ) as consumer:
        tps = [TopicPartition(topic, p) for p in sorted(await _partitions(connection, topic))]
        ends = await consumer.end_offsets(tps)
        stops = {tp: min(end, until.get(tp.partition, 0)) if until is not None else end for tp, end in ends.items()}
        consumer.assign(tps)
        await consumer.seek_to_beginning()
        pending = set(tps)
        while pending:
            for tp in list(pending):
                if await consumer.position(tp) >= stops[tp]:
                    consumer.pause(tp)
                    pending.discard(tp)
            fetched = await consumer.getmany(timeout_ms=200, max_records=READ_RECORDS) if pending else {}
            for tp, records in fetched.items():
                kept = [record for record in records if record.offset < stops[tp]]
                if kept:
                    yield kept


async def _partitions(connection: dict[str, Any], topic: str) -> set[int]:
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        [found] = await admin.describe_topics([topic])
    finally:
        await admin.close()
    if not found["partitions"]:
        raise SystemExit(f"packstream: there is no topic {topic}: run `packstream topics`, start a worker once")
    return {partition["partition"] for partition in found["partitions"]}

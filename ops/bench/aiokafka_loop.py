"""``python -m ops.bench.aiokafka_loop BROKERS TOPIC count|dedupe EVENTS DIR``: the plainest way to count, in memory.

It decodes and counts as the worker does and keeps nothing, in DIR or elsewhere: no state survives it.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

from aiokafka import AIOKafkaConsumer, TopicPartition

from ops.bench.progress import Progress
from schemas.ad_columns import Columns, unpack
from schemas.codec import decode_dict
from schemas.registry import PARTITIONS
from streams.watermarks import DAY_S

Counts = dict[tuple[bytes, int], list[int]]


def count_all(columns: Columns, counts: Counts) -> int:
    """Add every event to its ad and day: impressions, clicks, micros."""
    for ad, kind, iat_s, cost in zip(columns.ad, columns.kind, columns.iat_s, columns.cost_micros, strict=True):
        key = columns.ads[ad], iat_s // DAY_S
        found = counts.get(key)
        if found is None:
            found = counts[key] = [0, 0, 0]
        found[kind] += 1
        found[2] += cost
    return len(columns.kind)


def count_new(columns: Columns, counts: Counts, seen: set[bytes]) -> int:
    """The same without those whose id was met before; how many were new."""
    new = 0
    for jti, ad, kind, iat_s, cost in zip(
        columns.jti, columns.ad, columns.kind, columns.iat_s, columns.cost_micros, strict=True
    ):
        if jti in seen:
            continue
        seen.add(jti)
        new += 1
        key = columns.ads[ad], iat_s // DAY_S
        found = counts.get(key)
        if found is None:
            found = counts[key] = [0, 0, 0]
        found[kind] += 1
        found[2] += cost
    return new


async def consume(brokers: str, topic: str, *, dedupe: bool, events: int) -> None:
    """Read the topic from its beginning until `events` are counted."""
    counts: Counts = {}
    seen: set[bytes] = set()
    progress = Progress()
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id=f"loop-{uuid.uuid4()}", enable_auto_commit=False)
    async with consumer:
        partitions = [TopicPartition(topic, n) for n in range(PARTITIONS)]
        consumer.unsubscribe()
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while progress.seen < events:
            for messages in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                for message in messages:
                    columns = unpack(decode_dict(message.value)[1])
                    new = count_new(columns, counts, seen) if dedupe else count_all(columns, counts)
                    progress.add(len(columns.kind), new)
                progress.say()
    progress.end()


if __name__ == "__main__":
    asyncio.run(consume(sys.argv[1], sys.argv[2], dedupe=sys.argv[3] == "dedupe", events=int(sys.argv[4])))

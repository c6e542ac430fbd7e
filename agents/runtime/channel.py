"""Taking records from an agent's channel without Faust's stream, which acknowledges what was not dealt with.

A Faust stream acknowledges a record as soon as its agent asks for the next one or ends, even by an exception or a
cancellation; and Faust clears its queues when it resumes after a rebalance, when the first records are in them already.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition


async def drain(app: Any, stream: Any, *, records_max: int) -> AsyncIterator[dict[int, list[Any]]]:
    """What waits in the agent's channel, by partition, at most `records_max` at once; the caller acknowledges."""
    queue, unacked = stream.channel.queue, app.consumer.unacked
    # Records from before a rebalance are told by their generation here, so nothing needs clearing.
    app.flow_control._queues.discard(queue)
    await stream.maybe_start()
    while not stream.should_stop:
        batch: dict[int, list[Any]] = defaultdict(list)
        for n in range(records_max):
            if n and queue.empty():
                break
            try:
                event = await queue.get() if n == 0 else queue.get_nowait()
            except StopAsyncIteration:  # thrown into the queue when the agent stops
                return
            message = event.message
            if message.generation_id != app.consumer_generation_id or not app.flow_control.is_active():
                continue
            message.tracked = True
            unacked.add(message)
            batch[message.partition].append(event)
        if batch:
            yield batch


async def first_real_offset(connection: dict[str, Any], topic: str, partition: int, offset: int) -> int:
    """Offset of the first record at or after `offset` that really exists in the log."""
    async with AIOKafkaConsumer(
        **connection, enable_auto_commit=False, isolation_level="read_uncommitted", auto_offset_reset="earliest"
    ) as consumer:
        tp = TopicPartition(topic, partition)
        consumer.assign([tp])
        consumer.seek(tp, offset)
        return int((await consumer.getone()).offset)

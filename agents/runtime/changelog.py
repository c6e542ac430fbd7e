"""The only producer that may write one changelog partition. A batch is one Kafka transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

log = structlog.get_logger(__name__)

BATCH_BYTES: Final = 900_000
STOP_TIMEOUT_S: Final = 5.0
KNOWN_WITHIN_S: Final = 30.0
KNOWN_POLL_S: Final = 0.05

Changes = Mapping[bytes, bytes | None]
"""New values; None deletes the key."""


class FencedError(Exception):
    """Another worker has taken over this partition: the broker refused our producer's epoch."""


async def until_known(connection: dict[str, Any], topic: str, partitions: int) -> None:
    """Return once the broker's answers have all partitions of a topic that was made just now.

    Raises TimeoutError when they still have not after KNOWN_WITHIN_S.
    """
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        async with asyncio.timeout(KNOWN_WITHIN_S):
            while True:
                (found,) = await admin.describe_topics([topic])
                if len(found["partitions"]) == partitions and not found["error_code"]:
                    return
                await asyncio.sleep(KNOWN_POLL_S)
    finally:
        await admin.close()


class ChangelogWriter:
    """`start` bumps the producer's epoch, which fences off whoever wrote the partition before."""

    def __init__(self, connection: dict[str, Any], topic: str, partition: int, transactional_id: str) -> None:
        self.topic, self.partition = topic, partition
        self._producer = AIOKafkaProducer(
            **connection,
            transactional_id=transactional_id,
            acks="all",
            linger_ms=0,
            max_batch_size=BATCH_BYTES,
            max_request_size=4 * BATCH_BYTES,
            transaction_timeout_ms=30_000,
        )

    async def start(self) -> None:
        """InitProducerId: the broker aborts what a former owner left open and refuses whatever it still sends."""
        await self._producer.start()

    async def stop(self) -> None:
        """Let go; a fenced producer cannot stop in order, and need not."""
        try:
            await asyncio.wait_for(self._producer.stop(), STOP_TIMEOUT_S)
        except (KafkaError, TimeoutError, asyncio.CancelledError) as exc:
            log.debug("changelog_producer_stop", topic=self.topic, partition=self.partition, error=repr(exc))

    async def write(self, changes: Changes) -> int:
        """Write all changes in one transaction; the offset of the last record. Raises FencedError."""
        try:
            await self._producer.begin_transaction()
            sent = [await self._send(batch) for batch in self._batches(changes)]
            ends = [(await future).offset + count for future, count in sent]
            await self._producer.commit_transaction()
        except (ProducerFenced, InvalidProducerEpoch) as exc:
            raise FencedError(f"{self.topic}-{self.partition}") from exc
        return int(ends[-1]) - 1

    def _batches(self, changes: Changes) -> list[Any]:
        batch = self._producer.create_batch()
        batches = [batch]
        append = batch.append
        for key, value in changes.items():
            if append(key=key, value=value, timestamp=None) is None:  # full
                batch = self._producer.create_batch()
                batches.append(batch)
                append = batch.append
                if append(key=key, value=value, timestamp=None) is None:
                    raise ValueError(f"a value of {len(value or b'')} bytes does not fit a batch")
        return batches

    async def _send(self, batch: Any) -> tuple[Awaitable[Any], int]:
        count = batch.record_count()
        batch.close()
        return await self._producer.send_batch(batch, self.topic, partition=self.partition), count

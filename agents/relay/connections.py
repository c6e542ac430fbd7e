"""The relay's connections, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import structlog
from aiokafka import AIOKafkaProducer

from agents.kafka import connection
from agents.outages import DATABASE_GONE
from agents.relay.publish import BATCH_BYTES
from ops.settings import Settings
from schemas.registry import PARTITIONS, TOPICS

CONNECT_S: Final = 5.0
REQUEST_MS: Final = 5_000
CLOSE_S: Final = 3.0
IDLE_IN_TRANSACTION_MS: Final = 10_000  #: a relay that stands still loses its lanes after this time

# The outbox is a queue: its size changes faster than its statistics, so plans must not depend on them.
# An acknowledged row's removal may be lost with the server (it would be sent again), so commits need not wait.
PUMP_SETTINGS: Final = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "synchronous_commit": "off",
}

log = structlog.get_logger(__name__)


class TopicsMissing(Exception):
    """The broker has not all registered topics, or not with the partitions they have for life."""


async def connect(settings: Settings, application: str, **server_settings: str) -> asyncpg.Connection:
    """A connection of our own to Postgres, as the owner."""
    limits = {
        "application_name": application,
        "statement_timeout": "30000",
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
        "tcp_user_timeout": str(IDLE_IN_TRANSACTION_MS),
    }
    url = settings.sqlalchemy_url.replace("postgresql+asyncpg://", "postgresql://", 1)
    return await asyncpg.connect(url, timeout=CONNECT_S, command_timeout=60, server_settings=limits | server_settings)


@asynccontextmanager
async def pump_connection(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection for one pump."""
    db = await connect(settings, "packstream-relay", **PUMP_SETTINGS)
    try:
        yield db
    finally:
        await close_connection(db)


async def close_connection(db: asyncpg.Connection) -> None:
    """Close politely, or cut off what does not answer."""
    try:
        await db.close(timeout=CLOSE_S)
    except DATABASE_GONE as exc:
        log.info("relay_database_close_failed", error=repr(exc))
        db.terminate()


async def start_producer(settings: Settings) -> AIOKafkaProducer:
    """A started idempotent producer that knows all topics. Raises KafkaError, OSError or TopicsMissing."""
    producer = AIOKafkaProducer(
        **connection(settings),
        client_id="packstream-relay",
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        linger_ms=0,
        request_timeout_ms=REQUEST_MS,
        retry_backoff_ms=50,
        metadata_max_age_ms=30_000,
    )
    try:
        await producer.start()
        await _learn_topics(producer)
    except BaseException:
        await stop_producer(producer)
        raise
    return producer


async def _learn_topics(producer: Any) -> None:
    await producer.client.set_topics([topic.name for topic in TOPICS.values()])
    known = {topic.name: producer.client.cluster.partitions_for_topic(topic.name) or () for topic in TOPICS.values()}
    if wrong := {name: len(partitions) for name, partitions in known.items() if len(partitions) != PARTITIONS}:
        raise TopicsMissing(f"not {PARTITIONS} partitions: {wrong}: run `packstream topics`")


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Send what is left and close; give up on a broker that does not answer."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await producer.stop()
    except TimeoutError:
        log.warning("relay_producer_abandoned")

"""A relay as its own process, rows for it to publish, and a reader of what it published."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from models.outbox import lane_of
from ops.settings import Settings
from schemas.registry import PARTITIONS, TOPIC_PREFIX

REPOSITORY = Path(__file__).resolve().parents[1]
PAYLOAD = bytes(range(200))


class Relay:
    """A `packstream relay` process."""

    def __init__(self, settings: Settings, folder: Path, **environment: str) -> None:
        self.ready_file = folder / f"relay-{uuid.uuid4().hex}.ready"
        self.log = self.ready_file.with_suffix(".log")
        addresses = {
            "PACKSTREAM_ENV": "test",
            "DATABASE_URL": settings.database_url,
            "KAFKA_BROKERS": settings.kafka_brokers,
            "REDIS_URL": settings.redis_url,
            "AD_SHARDS": str(settings.ad_shards),
            "RELAY_MAX_ATTEMPTS": str(settings.relay_max_attempts),
            "PACKSTREAM_READY_FILE": str(self.ready_file),
            "LOG_FORMAT": "json",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", "relay"],
                cwd=REPOSITORY,
                env={**os.environ, **addresses, **environment},
                stderr=log,
                stdout=log,
            )

    def wait_ready(self, within_s: float = 90) -> Relay:
        deadline = time.monotonic() + within_s
        while not self.ready_file.exists():
            assert self.process.poll() is None, f"the relay ended: {self.log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"the relay is not ready: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)
        return self

    def said(self, event: str) -> bool:
        """Whether an event of this name is in the log."""
        return f'"{event}"' in self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self, within_s: float = 20) -> int:
        self.process.terminate()
        return self.process.wait(within_s)


@contextmanager
def relay(settings: Settings, **environment: str) -> Iterator[Relay]:
    """A ready relay; killed at the end if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        started = Relay(settings, Path(folder), **environment)
        try:
            yield started.wait_ready()
        finally:
            started.kill()


@dataclass(frozen=True)
class Draft:
    """A row to insert."""

    key: str
    payload: bytes = PAYLOAD
    type: str = "ad_changed"
    aggregatetype: str = "catalog"
    headers: str = '{"schema": "test"}'
    id: uuid.UUID = field(default_factory=uuid.uuid4)


INSERT = """
INSERT INTO outbox_events (id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp())
"""


async def insert(db: asyncpg.Connection, drafts: Iterable[Draft]) -> None:
    """Insert rows in one transaction, in this order."""
    await db.executemany(
        INSERT,
        [(d.id, d.aggregatetype, d.key, d.type, d.payload, lane_of(d.key), d.headers) for d in drafts],
    )


def keys(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


@dataclass(frozen=True)
class Seen:
    """A record that was read."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: dict[str, str]

    @property
    def id(self) -> str:
        return self.headers["id"]


class Topics:
    """Reads topics from where they ended when it started."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.seen: list[Seen] = []

    async def rewind(self) -> None:
        """Read from the topics' beginnings instead."""
        await self._consumer.seek_to_beginning()

    async def read(self, *, quiet_s: float = 1.0) -> list[Seen]:
        """All records up to now and until nothing comes for `quiet_s`."""
        while batches := await self._consumer.getmany(timeout_ms=int(quiet_s * 1000), max_records=10_000):
            for records in batches.values():
                self.seen += [seen(record) for record in records]
        return self.seen

    async def until(self, condition: Callable[[list[Seen]], bool], within_s: float = 60) -> list[Seen]:
        """Read until `condition` holds of all that was read."""
        deadline = time.monotonic() + within_s
        while not condition(self.seen):
            assert time.monotonic() < deadline, f"{len(self.seen)} records were read, and not what was waited for"
            batches = await self._consumer.getmany(timeout_ms=100)
            for records in batches.values():
                self.seen += [seen(record) for record in records]
        return self.seen


def seen(record: Any) -> Seen:
    headers = {name: value.decode() for name, value in record.headers}
    return Seen(record.topic, record.partition, record.offset, record.key.decode(), record.value, headers)


@asynccontextmanager
async def topics(brokers: str, *aggregatetypes: str) -> AsyncIterator[Topics]:
    """A reader of these topics from their present ends on."""
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="none", enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(TOPIC_PREFIX + name, n) for name in aggregatetypes for n in range(PARTITIONS)]
        consumer.assign(places)
        await consumer.seek_to_end(*places)
        for place in places:
            await consumer.position(place)
        yield Topics(consumer)
    finally:
        await consumer.stop()


def first_occurrences(records: Sequence[Seen]) -> dict[str, list[str]]:
    """For each key the event ids in the order in which they first appear."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: (r.topic, r.partition, r.offset)):
        found[record.key].setdefault(record.id)
    return {key: list(ids) for key, ids in found.items()}


def expected(drafts: Iterable[Draft]) -> dict[str, list[str]]:
    """For each key the event ids in the order of their insertion."""
    found: dict[str, list[str]] = defaultdict(list)
    for draft in drafts:
        found[draft.key].append(str(draft.id))
    return dict(found)


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 60, every_s: float = 0.05) -> None:
    """Wait until `check` says yes."""
    deadline = time.monotonic() + within_s
    while not await check():
        assert time.monotonic() < deadline, f"not within {within_s} s: {check}"
        await asyncio.sleep(every_s)

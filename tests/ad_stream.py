"""Feeds ad events straight into Kafka and counts what must come out: for tests of the stream side alone."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

from aiokafka import AIOKafkaProducer
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.ads.gateway import day_key
from models.ads.rules import day_number, shard_of
from models.database import new_id
from models.redis import RedisLink
from schemas.ad_columns import CLICK, IMPRESSION, AdEvent, pack
from schemas.codec import encode
from schemas.records import AdEvents
from streams.topics import AD_EVENTS

SHARDS = 12
TTL_S = 1800


async def make_ads(engine: AsyncEngine, count: int, *, stores: int = 2) -> list[UUID]:
    """Vendor stores with ads, as rows."""
    now = datetime.now(UTC)
    async with engine.begin() as tx:
        store_ids = [new_id() for _ in range(stores)]
        await tx.execute(
            text(
                "INSERT INTO stores"
                " (id, name, type, address, state, kyc_status, subscription_active, created_at, updated_at) VALUES"
                " (:id, 'v', 'vendor', '{}', 'CA', 'verified', true, :now, :now)"
            ),
            [{"id": store_id, "now": now} for store_id in store_ids],
        )
        ads = [new_id() for _ in range(count)]
        await tx.execute(
            text(
                "INSERT INTO ads (id, store_id, name, billing_model, placement, target_type, bid_cpm_cents,"
                " daily_budget_cents, starts_at, headline, status, created_at, updated_at) VALUES"
                " (:id, :store, 'a', 'cpm', 'home', 'store', 250, 100000, :now, 'h', 'active', :now, :now)"
            ),
            [{"id": ad, "store": store_ids[n % stores], "now": now} for n, ad in enumerate(ads)],
        )
    return ads


@dataclass
class Truth:
    """What was sent, once each: ad, day → impressions, clicks, spend."""

    counted: dict[tuple[UUID, date], list[int]] = field(default_factory=dict)

    def add(self, event: AdEvent) -> None:
        day = datetime.fromtimestamp(event.iat_s, UTC).date()
        found = self.counted.setdefault((UUID(bytes=event.ad_id), day), [0, 0, 0])
        found[event.kind] += 1
        found[2] += event.cost_micros


class Feeder:
    """Sends batches and ticks as the relay would."""

    def __init__(self, brokers: str, ads: Sequence[UUID], *, seed: int = 1) -> None:
        self._producer = AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=2)
        self.ads, self.random, self.truth = ads, random.Random(seed), Truth()

    async def __aenter__(self) -> Feeder:
        await self._producer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._producer.stop()

    def event(self, ad_id: UUID, iat_s: int, *, kind: int = IMPRESSION, cost: int = 2500) -> AdEvent:
        return AdEvent(self.random.randbytes(16), ad_id.bytes, kind, iat_s, iat_s + TTL_S, 0 if kind == CLICK else cost)

    def some(self, count: int, iat_s: int) -> list[AdEvent]:
        """New events over all ads, a tenth of them clicks."""
        events = [
            self.event(self.random.choice(self.ads), iat_s, kind=int(self.random.random() < 0.1)) for _ in range(count)
        ]
        for event in events:
            self.truth.add(event)
        return events

    async def send(self, events: Sequence[AdEvent]) -> None:
        """A record for each shard among the events."""
        shards: dict[int, list[AdEvent]] = {}
        for event in events:
            shards.setdefault(shard_of(UUID(bytes=event.ad_id), SHARDS), []).append(event)
        now = datetime.now(UTC)
        for shard, part in shards.items():
            await self.send_record(pack(part, event_id=new_id(), shard=shard, occurred_at=now, actor="test"))

    async def send_record(self, record: AdEvents) -> None:
        await self.send_bytes(encode(record), key=str(record.shard))

    async def send_bytes(self, value: bytes | None, *, key: str) -> None:
        await self._producer.send(AD_EVENTS, value, key=key.encode())

    async def tick(self, at_s: float, shards: Sequence[int] = range(SHARDS)) -> None:
        """Every shard's watermark moves to `at_s` (seconds since 1970)."""
        now = datetime.now(UTC)
        for shard in shards:
            await self.send_record(
                AdEvents(event_id=new_id(), occurred_at=now, actor="test", shard=shard, tick_us=int(at_s * 1_000_000))
            )
        await self._producer.flush()


class WorkerProcess:
    """`packstream worker` (or another `module`) as a process of its own; `arguments` are its command line's."""

    def __init__(
        self,
        environment: dict[str, str],
        directory: Path,
        name: str = "w",
        arguments: Sequence[str] = (),
        module: Sequence[str] = ("ops.cli", "worker"),
    ) -> None:
        self.name, self.directory, self.arguments = name, directory, (*module, *arguments)
        self.ready_file = directory / f"{name}.ready"
        self.log = directory / f"{name}.log"
        self.environment = {
            **os.environ,
            **environment,
            "DATA_DIR": str(directory / name),
            "PACKSTREAM_READY_FILE": str(self.ready_file),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                env=self.environment,
                stdout=out,
                stderr=out,
            )

    async def ready(self, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.ready_file.exists():
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            await asyncio.sleep(0.05)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it, by force where it does not go."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


async def in_redis(link: RedisLink, truth: Truth) -> dict[tuple[UUID, date], list[int]]:
    """The live counters of whatever `truth` names."""
    found: dict[tuple[UUID, date], list[int]] = {}
    for ad_id, day in truth.counted:
        key = day_key(shard_of(ad_id, SHARDS), day_number(day), ad_id.bytes)
        values = await link.execute("HMGET", key, "impressions", "clicks", "settled")
        if any(value is not None for value in values):
            found[ad_id, day] = [int(value) for value in values]
    return found


async def eventually(check: object, *, timeout_s: float = 30.0) -> None:
    """Until the awaitable `check()` is true; AssertionError with its last answer otherwise."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = await check()  # type: ignore[operator]
        if answer is True:
            return
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)

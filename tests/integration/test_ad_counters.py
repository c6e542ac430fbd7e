"""The ad_counters agent on a real Kafka, Postgres and Valkey: what goes in once comes out once."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from models.ads.gateway import gate_key
from models.redis import RedisLink
from ops.migrate import upgrade
from ops.settings import Settings
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from ops.topics import ensure_topics
from tests.ad_stream import TTL_S, Feeder, WorkerProcess, eventually, in_redis, make_ads

PARTS = ("postgres", "kafka", "redis")
DAY_S = 86_400


@dataclass
class Site:
    """A stack of this module's own: the agent's topic and group have fixed names."""

    environment: dict[str, str]
    root: Path

    @property
    def settings(self) -> Settings:
        return Settings(**{name.lower(): value for name, value in self.environment.items()})  # type: ignore[arg-type]


@pytest.fixture
def site() -> Iterator[Site]:
    root = Path(tempfile.mkdtemp(prefix="packstream-agent-"))
    root.chmod(0o755)
    data = DataDir.at(root)
    try:
        addresses = asyncio.run(stack_up(data, PARTS, bound=True)).site.addresses
        names = ("DATABASE_URL", "REDIS_URL", "KAFKA_BROKERS")
        found = Site({name: addresses[name] for name in names} | {"PACKSTREAM_ENV": "test"}, root)
        upgrade(found.settings)
        asyncio.run(ensure_topics(found.settings))
        yield found
    finally:
        asyncio.run(stack_down(data, PARTS))
        shutil.rmtree(root)


@pytest.fixture
async def link(site: Site) -> AsyncIterator[RedisLink]:
    link = RedisLink(site.environment["REDIS_URL"])
    await link.connect()
    yield link
    await link.close()


@pytest.fixture
def worker(site: Site) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(site.environment, site.root)
    worker.start()
    yield worker
    worker.stop()


def at_noon(days_from_today: int = 0) -> int:
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return int((today + timedelta(days=days_from_today)).timestamp())


async def rows(engine: AsyncEngine, sql: str) -> list[tuple[object, ...]]:
    async with engine.connect() as tx:
        return [tuple(row) for row in await tx.execute(text(sql))]


async def rollups(engine: AsyncEngine) -> dict[tuple[UUID, date], list[int]]:
    found = await rows(engine, "SELECT ad_id, day, impressions, clicks, spend_micros FROM ad_daily_rollups")
    return {(ad, day): [i, c, s] for ad, day, i, c, s in found}  # type: ignore[misc]


async def test_events_are_counted_once_rolled_up_and_charged(
    site: Site, engine: AsyncEngine, link: RedisLink, worker: WorkerProcess
) -> None:
    ads = await make_ads(engine, 50)
    await worker.ready()
    async with Feeder(site.environment["KAFKA_BROKERS"], ads) as feeder:
        noon = at_noon()
        await feeder.tick(noon - 10)
        events = feeder.some(3000, noon)
        await feeder.send(events)
        await feeder.send(events[:500])  # a repeated stretch
        await feeder.send(feeder.some(500, noon + 90))

        async def shown() -> object:
            found = await in_redis(link, feeder.truth)
            return found == feeder.truth.counted or (len(found), sum(v[0] + v[1] for v in found.values()))

        await eventually(shown)
        close = (noon // DAY_S + 1) * DAY_S + TTL_S + 5
        await feeder.tick(close - 1)
        await asyncio.sleep(1)
        assert await rows(engine, "SELECT count(*) FROM ad_day_closures") == [(0,)]
        await feeder.tick(close)

        async def closed() -> object:
            found = await rows(engine, "SELECT count(*) FROM ad_day_closures")
            return found == [(12,)] or found

        await eventually(closed)
        assert await rollups(engine) == feeder.truth.counted

        async def said() -> object:
            said = "count(*), max(applied_offset) > 0, sum(end_offset - applied_offset - 1)"
            found = await rows(engine, f"SELECT {said} FROM agent_positions WHERE agent = 'ad_counters'")
            return found == [(12, True, 0)] or found

        await eventually(said)
        charges = await rows(engine, "SELECT sum(spend_micros), count(*) FROM usage_charges WHERE status = 'recorded'")
        assert charges == [(sum(v[2] for v in feeder.truth.counted.values()), 2)]
        outbox = await rows(engine, "SELECT type, count(*) FROM outbox_events GROUP BY 1 ORDER BY 1")
        assert outbox == [("ad_daily_charge_recorded", 2), ("ad_spend_rolled_up", 2)]


async def test_bad_records_become_dead_letters_and_nothing_else_is_lost(
    site: Site, engine: AsyncEngine, link: RedisLink, worker: WorkerProcess
) -> None:
    ads = await make_ads(engine, 5)
    await worker.ready()
    async with Feeder(site.environment["KAFKA_BROKERS"], ads) as feeder:
        noon = at_noon()
        await feeder.tick(noon - 10)
        await feeder.send_bytes(b"not avro", key="3")
        await feeder.send_bytes(b"\xc3\x01" + b"\0" * 20, key="3")
        await feeder.send_bytes(None, key="4")
        stranger = UUID(int=7)
        await feeder.send([*feeder.some(20, noon), feeder.event(stranger, noon)])
        await feeder.send(feeder.some(100, noon))

        async def shown() -> object:
            return await in_redis(link, feeder.truth) == feeder.truth.counted

        await eventually(shown)

        async def kept() -> object:
            found = await rows(engine, "SELECT reason, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1")
            return found == [("undecodable", 2), ("unknown_ad", 1), ("unknown_schema", 1)] or found

        await eventually(kept)


async def test_an_event_of_a_closed_day_becomes_an_adjustment(
    site: Site, engine: AsyncEngine, link: RedisLink, worker: WorkerProcess
) -> None:
    ads = await make_ads(engine, 3)
    await worker.ready()
    async with Feeder(site.environment["KAFKA_BROKERS"], ads) as feeder:
        noon = at_noon(-2)
        await feeder.tick(noon)
        await feeder.send(feeder.some(50, noon))
        await feeder.tick(noon + 2 * DAY_S)
        late = feeder.event(ads[0], noon)
        await feeder.send([late])
        await feeder.send([late])

        async def adjusted() -> object:
            found = await rows(engine, "SELECT event_id, reason, cost_micros FROM ad_adjustments")
            return found == [(UUID(bytes=late.jti), "day_closed", 2500)] or found

        await eventually(adjusted)

        async def closed() -> object:
            found = await rows(engine, "SELECT count(*) FROM ad_day_closures")
            return found == [(24,)] or found

        await eventually(closed)
        assert await rollups(engine) == feeder.truth.counted


@pytest.mark.slow
async def test_killed_while_counting_loses_and_repeats_nothing(
    site: Site, engine: AsyncEngine, link: RedisLink, worker: WorkerProcess
) -> None:
    ads = await make_ads(engine, 40)
    await worker.ready()
    async with Feeder(site.environment["KAFKA_BROKERS"], ads) as feeder:
        noon = at_noon()
        await feeder.tick(noon - 10)
        for _ in range(4):
            until = time.monotonic() + 2
            while time.monotonic() < until:
                await feeder.send(feeder.some(200, noon))
                await asyncio.sleep(0.05)
            worker.signal(signal.SIGKILL)
            assert worker.process is not None
            worker.process.wait()
            worker.start()
            await worker.ready()

        async def shown() -> object:
            found = await in_redis(link, feeder.truth)
            return found == feeder.truth.counted or (len(found), sum(v[0] + v[1] for v in found.values()))

        await eventually(shown)


async def test_gate_opens_at_once_only_in_a_new_system_and_after_a_flush_only_when_all_has_expired(
    site: Site, engine: AsyncEngine, link: RedisLink, worker: WorkerProcess
) -> None:
    ads = await make_ads(engine, 3)
    await worker.ready()
    async with Feeder(site.environment["KAFKA_BROKERS"], ads) as feeder:
        now = time.time()
        await feeder.tick(now)
        await feeder.send(feeder.some(30, int(now)))

        async def is_open() -> object:
            found = [await link.execute("HGET", gate_key(shard), "epoch") for shard in range(12)]
            return None not in found or found

        await eventually(is_open)
        await link.execute("FLUSHALL")
        await feeder.tick(now + 1)

        async def is_lost() -> object:
            found = await rows(engine, "SELECT count(*) FROM ad_gate_epochs WHERE state = 'lost'")
            return found == [(12,)] or found

        await eventually(is_lost)
        await feeder.tick(time.time() + TTL_S + 5)
        await asyncio.sleep(1)
        assert await link.execute("HGET", gate_key(0), "epoch") is None  # too early by a second
        await feeder.tick(time.time() + 60 + TTL_S + 6)
        await eventually(is_open)
        assert await in_redis(link, feeder.truth) == feeder.truth.counted

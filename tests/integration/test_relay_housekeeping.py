"""Ticks exclude what they say, go only forward, and come from one leader; partitions come and go; shards are frozen."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from agents.housekeeping.leader import IDLE_S, LEADER_LOCK
from models import outbox, outbox_partitions
from models.ads.engine import ShardsFrozen, freeze_shards, tick
from models.ads.writes import record_events, record_flush
from models.clock import Clock, set_clock
from models.database import new_id
from ops.settings import Settings
from ops.topics import TopicsError, ensure_topics
from schemas.ad_columns import IMPRESSION, AdEvent, unpack
from schemas.codec import decode_dict
from tests.local_stack import Database, Stack, settings_for
from tests.relay_process import Relay, eventually, relay, topics

pytestmark = pytest.mark.timeout(300)

SHARDS = 3
SKEW_S = 0


@pytest.fixture
async def settings(stack: Stack, database: Database) -> Settings:
    found = settings_for(stack, database, ad_shards=SHARDS)
    await ensure_topics(found)
    return found


@pytest.fixture
async def engine(settings: Settings) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(settings.sqlalchemy_url, pool_size=20)
    yield made
    await made.dispose()


@pytest.fixture
async def db(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("record", [record_events, record_flush])
async def test_what_a_tick_excludes_never_comes_after_it(
    settings: Settings, engine: AsyncEngine, db: asyncpg.Connection, record: Callable[..., Awaitable[list[AdEvent]]]
) -> None:
    """Collectors that commit late race with ticks on one shard; without the shard's lock this fails."""
    async with AsyncSession(engine) as tx, tx.begin():
        await freeze_shards(tx, SHARDS)
    stop = asyncio.Event()
    taken = 0

    async def collector(seed: int) -> None:
        nonlocal taken
        chance = random.Random(seed)
        driver = await asyncpg.connect(settings.database_url)
        while not stop.is_set():
            expires = int(datetime.now(UTC).timestamp()) + chance.choice((-1, 0, 0, 0, 1))
            event = AdEvent(new_id().bytes, new_id().bytes, IMPRESSION, expires - 1, expires, 10)
            async with driver.transaction():
                refused = await record(driver, {0: [event]}, skew_s=SKEW_S, now=datetime.now(UTC), actor="test")
                await asyncio.sleep(chance.uniform(0, 0.05))
            taken += not refused
        await driver.close()

    async def ticker() -> None:
        clock = Clock()
        while not stop.is_set():
            async with AsyncSession(engine) as tx, tx.begin():
                await tick(tx, 0, clock, follow=False, actor="test")
            await asyncio.sleep(0.005)

    jobs = [asyncio.create_task(job) for job in (*(collector(n) for n in range(6)), ticker())]
    await asyncio.sleep(6)
    stop.set()
    await asyncio.gather(*jobs)
    ticks, events = _check_exclusion(await db.fetch("SELECT payload FROM outbox_events ORDER BY seq"))
    assert ticks > 20
    assert events == taken > 20


def _check_exclusion(rows: list[asyncpg.Record]) -> tuple[int, int]:
    """How many ticks and events there are; fails where an event comes behind a tick that excludes it."""
    ticks = events = last_us = 0
    for row in rows:
        columns = unpack(decode_dict(row["payload"])[1])
        if columns.tick_us is not None:
            assert columns.tick_us >= last_us, "ticks never go back"
            ticks, last_us = ticks + 1, columns.tick_us
        for exp_s in columns.exp_s:
            assert (exp_s + SKEW_S) * 1_000_000 > last_us, "an event came behind a tick that excludes it"
            events += 1
    return ticks, events


async def test_a_tick_waits_for_whoever_holds_the_shard_and_only_for_that(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as tx, tx.begin():
        await freeze_shards(tx, SHARDS)

    async def write(shard: int) -> None:
        async with AsyncSession(engine) as tx, tx.begin():
            await tick(tx, shard, Clock(), follow=True, actor="test")

    async with AsyncSession(engine) as holder, holder.begin():
        await outbox.lock_aggregate(holder, "ads.events", "1", shared=True)
        waiting = asyncio.create_task(write(1))
        await write(2)
        await asyncio.sleep(0.2)
        assert not waiting.done()
    await waiting


async def test_every_shard_is_ticked_by_the_logical_clock(settings: Settings, engine: AsyncEngine) -> None:
    async with topics(settings.kafka_brokers, "ads.events") as reader:
        with relay(settings, AD_TICK_S="0.3"):
            await reader.until(lambda seen: {record.key for record in seen} == {"0", "1", "2"})
            ahead = datetime.now(UTC) + timedelta(days=2)
            async with AsyncSession(engine) as tx, tx.begin():
                await set_clock(tx, ahead, wall=datetime.now(UTC))
            moved = int(ahead.timestamp() * 1_000_000)
            seen = await reader.until(lambda seen: sum(_tick(r.value) >= moved for r in seen) >= 6)
    for shard in "012":
        found = [_tick(record.value) for record in seen if record.key == shard]
        assert found == sorted(found)
        assert len(found) >= 3


def _tick(payload: bytes) -> int:
    return int(decode_dict(payload)[1]["tick_us"])


async def test_another_leads_when_the_leader_dies_or_stands_still(settings: Settings, db: asyncpg.Connection) -> None:
    async def leader() -> int | None:
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND granted AND database ="
        pid: int | None = await db.fetchval(
            query + " (SELECT oid FROM pg_database WHERE datname = current_database())", LEADER_LOCK
        )
        return pid

    async def changed(before: int | None) -> int:
        async def check() -> bool:
            return await leader() not in (None, before)

        await eventually(check, within_s=60)
        found = await leader()
        assert found is not None
        return found

    with relay(settings) as first:
        one = await changed(None)
        with relay(settings) as second:
            assert await leader() == one, "one leads at a time"
            first.signal(signal.SIGSTOP)
            two = await changed(one)
            ticked = await _ticked(db)
            first.signal(signal.SIGCONT)
            await asyncio.sleep(2)
            assert await leader() == two, "the woken one does not lead beside its successor"
            assert await _ticked(db) > ticked
            second.kill()
            await changed(two)
    assert IDLE_S < 10


async def _ticked(db: asyncpg.Connection) -> datetime:
    found: datetime = await db.fetchval("SELECT min(ticked_until) FROM ad_shards")
    return found


async def test_another_number_of_shards_is_refused(settings: Settings, engine: AsyncEngine, tmp_path: Path) -> None:
    async with AsyncSession(engine) as tx, tx.begin():
        await freeze_shards(tx, SHARDS)
        await freeze_shards(tx, SHARDS)
        with pytest.raises(ShardsFrozen, match="frozen at 3"):
            await freeze_shards(tx, SHARDS + 1)
    process = Relay(settings.model_copy(update={"ad_shards": SHARDS + 1}), tmp_path)
    try:
        assert await asyncio.to_thread(process.process.wait, 60) == 1
    finally:
        process.kill()
    assert "AD_SHARDS is frozen at 3" in process.log.read_text()


async def test_partitions_are_made_filled_and_dropped(engine: AsyncEngine, db: asyncpg.Connection) -> None:
    today = datetime.now(UTC).date()
    await db.execute(
        "INSERT INTO outbox_archive (seq, published_at, id, aggregatetype, aggregateid, type, payload, lane, headers,"
        " occurred_at, created_at) VALUES (1, now(), gen_random_uuid(), 'a', 'b', 'c', '', 0, '{}', now(), now())"
    )
    async with AsyncSession(engine) as tx, tx.begin():
        await outbox_partitions.create(tx, today)
        await outbox_partitions.create(tx, date(2001, 1, 1))
        assert await outbox_partitions.days(tx) == [date(2001, 1, 1), today]
        where = await tx.scalar(text("SELECT tableoid::regclass::text FROM outbox_archive"))
        assert where == outbox_partitions.name_of(today)
        await outbox_partitions.drop(tx, date(2001, 1, 1))
        assert await outbox_partitions.days(tx) == [today]


async def test_topics_are_made_once_mended_and_refused_with_other_partitions(settings: Settings) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_brokers)
    await admin.start()
    try:
        assert await ensure_topics(settings) == []
        topic = ConfigResource(ConfigResourceType.TOPIC, "packstream.media", configs={"retention.ms": "1000"})
        await admin.alter_configs([topic])
        await ensure_topics(settings)
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "packstream.media")])
        config = {entry[0]: entry[1] for entry in answer.resources[0][4]}
        assert config["retention.ms"] == str(30 * 86_400_000)
        assert config["message.timestamp.type"] == "LogAppendTime"
    finally:
        await admin.close()


def test_another_partition_count_is_refused(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr("ops.topics.PARTITIONS", 7)
    with pytest.raises(TopicsError, match="for life"):
        asyncio.run(ensure_topics(settings))

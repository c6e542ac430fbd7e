"""The relay loses nothing and keeps the order of every aggregate, whatever dies."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from agents.relay.connections import IDLE_IN_TRANSACTION_MS
from ops.settings import Settings
from ops.stack.local import records, stack_down, stack_up
from ops.stack.paths import DataDir
from ops.topics import ensure_topics
from tests.local_stack import Database, Stack, settings_for
from tests.relay_process import (
    Draft,
    Relay,
    Topics,
    eventually,
    expected,
    first_occurrences,
    insert,
    keys,
    relay,
    topics,
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def settings(stack: Stack, database: Database) -> Settings:
    found = settings_for(stack, database)
    await ensure_topics(found)
    return found


@pytest.fixture
async def db(settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(settings.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def catalog(settings: Settings) -> AsyncIterator[Topics]:
    async with topics(settings.kafka_brokers, "catalog") as reader:
        yield reader


async def pending(db: asyncpg.Connection) -> int:
    count: int = await db.fetchval("SELECT count(*) FROM outbox_events WHERE type <> 'ad_events'")
    return count


async def drained(db: asyncpg.Connection, within_s: float = 60) -> None:
    async def check() -> bool:
        return await pending(db) == 0

    await eventually(check, within_s)


async def write_load(settings: Settings, names: list[str], rows: int, seed: int) -> list[Draft]:
    """Rows of few and many a transaction, in order for each key; a writer has its keys alone."""
    chance = random.Random(seed)
    db = await asyncpg.connect(settings.database_url)
    written: list[Draft] = []
    while len(written) < rows:
        drafts = [Draft(chance.choice(names)) for _ in range(chance.choice((1, 5, 60)))]
        await insert(db, drafts)
        written += drafts
        await asyncio.sleep(0.01)
    await db.close()
    return written


async def write_until(settings: Settings, names: list[str], stop: asyncio.Event, seed: int) -> list[Draft]:
    written: list[Draft] = []
    while not stop.is_set():
        written += await write_load(settings, names, 200, seed + len(written))
    return written


async def test_a_row_arrives_with_its_key_bytes_and_headers(
    settings: Settings, db: asyncpg.Connection, catalog: Topics
) -> None:
    draft = Draft(keys(1)[0], headers='{"schema": "x", "traceparent": "00-a-b-01"}')
    await insert(db, [draft])
    with relay(settings) as process:
        (record,) = await catalog.until(lambda seen: len(seen) == 1)
        await drained(db)
        assert process.terminate() == 0
    assert (record.topic, record.key, record.value) == ("packstream.catalog", draft.key, draft.payload)
    assert record.headers == {"id": str(draft.id), "type": "ad_changed", "traceparent": "00-a-b-01"}


async def test_published_rows_are_archived_but_ad_batches_are_not(
    settings: Settings, db: asyncpg.Connection, catalog: Topics
) -> None:
    draft = Draft(keys(1)[0])
    await insert(db, [draft, Draft("0", type="ad_events", aggregatetype="ads.events")])
    with relay(settings, AD_TICK_S="30"):
        await catalog.until(lambda seen: len(seen) == 1)
        await drained(db)
        await eventually(lambda: _is_empty(db))
    rows = await db.fetch("SELECT * FROM outbox_archive")
    assert [(row["id"], row["payload"], row["type"]) for row in rows] == [(draft.id, draft.payload, "ad_changed")]
    assert rows[0]["published_at"] > rows[0]["created_at"]


async def _is_empty(db: asyncpg.Connection) -> bool:
    return await db.fetchval("SELECT count(*) FROM outbox_events") == 0


async def test_order_holds_while_relays_are_killed_ten_times(
    settings: Settings, db: asyncpg.Connection, catalog: Topics, tmp_path: Path
) -> None:
    """Two relays work at any time; a third starts while the one before it is killed."""
    relays = [Relay(settings, tmp_path) for _ in range(3)]
    stop = asyncio.Event()
    writers = [asyncio.create_task(write_until(settings, keys(40), stop, seed)) for seed in range(3)]
    try:
        for _ in range(10):
            await asyncio.to_thread(relays[1].wait_ready)
            await asyncio.sleep(random.uniform(0.1, 0.4))
            relays.pop(0).kill()
            relays.append(Relay(settings, tmp_path))
        stop.set()
        written = [draft for rows in await asyncio.gather(*writers) for draft in rows]
        await drained(db, 120)
    finally:
        for process in relays:
            process.kill()
    assert first_occurrences(await catalog.read()) == expected(written)
    archived = await db.fetchval("SELECT count(*) FROM outbox_archive WHERE type = 'ad_changed'")
    assert archived == len(written), "a row is archived once, however often it was sent"


async def test_a_relay_that_stands_still_loses_its_lanes_and_spoils_nothing(
    settings: Settings, db: asyncpg.Connection, catalog: Topics
) -> None:
    names = keys(200)
    with relay(settings) as stopped:
        writer = asyncio.create_task(write_load(settings, names, 6000, 1))
        await asyncio.sleep(0.5)
        stopped.signal(signal.SIGSTOP)
        with relay(settings):
            await asyncio.sleep(IDLE_IN_TRANSACTION_MS / 1000 + 2)
            written = await writer
            await drained(db)
            stopped.signal(signal.SIGCONT)
            more = await write_load(settings, names, 2000, 2)
            await drained(db)
        assert stopped.process.poll() is None, f"the woken relay goes on: {stopped.log.read_text()[-3000:]}"
        last = await write_load(settings, names, 200, 3)
        await drained(db)
    assert first_occurrences(await catalog.read()) == expected([*written, *more, *last])


DISTURBANCES = ("relay_broker_away", "relay_producer_broken", "relay_database_gone")


async def test_sigterm_ends_a_busy_relay_cleanly(settings: Settings, db: asyncpg.Connection, catalog: Topics) -> None:
    """Nothing is sent twice, unless a part was away meanwhile: then what it had not answered is sent again."""
    drafts = [Draft(key) for key in keys(500) for _ in range(20)]
    await insert(db, drafts)
    with relay(settings) as first:
        assert first.terminate() == 0
        log = first.log.read_text()
    left = await pending(db)
    with relay(settings) as second:
        await drained(db)
        log += second.log.read_text()
    seen = await catalog.read()
    assert first_occurrences(seen) == expected(drafts)
    disturbed = any(f'"{event}"' in log for event in DISTURBANCES)
    assert disturbed or len(seen) == len(drafts), f"a clean end repeats nothing ({left} rows were left): {log[-6000:]}"


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[tuple[DataDir, str]]:
    """A broker of this test alone."""
    data = DataDir.at(tmp_path / "own-kafka")
    yield data, asyncio.run(stack_up(data, ("kafka",), bound=True)).site.addresses["KAFKA_BROKERS"]
    asyncio.run(stack_down(data, ("kafka",)))


def test_the_broker_may_be_down_for_twenty_seconds(
    stack: Stack, database: Database, own_kafka: tuple[DataDir, str]
) -> None:
    data, brokers = own_kafka
    asyncio.run(_broker_down(settings_for(stack, database, kafka_brokers=brokers), data))


async def _broker_down(settings: Settings, data: DataDir) -> None:
    await ensure_topics(settings)
    db = await asyncpg.connect(settings.database_url)
    names = keys(100)
    with relay(settings) as process:
        before = await write_load(settings, names, 1000, 1)
        broker = records(data).living("kafka")
        assert broker is not None
        writer = asyncio.create_task(write_load(settings, names, 3000, 2))
        await asyncio.sleep(0.2)
        broker.signal(signal.SIGKILL)
        assert broker.wait_gone(10)
        for _ in range(20):
            await asyncio.sleep(1)
            assert not await _old_transactions(db), "no transaction stays open while the broker is away"
        during = await writer
        assert await pending(db) > 0
        assert await db.fetchval("SELECT count(*) FROM outbox_failures") == 0, "no attempt is burnt"
        await stack_up(data, ("kafka",), bound=True)
        await drained(db)
        after = await write_load(settings, names, 200, 3)
        await drained(db)
        async with topics(settings.kafka_brokers, "catalog") as reader:
            await reader.rewind()
            seen = await reader.read(quiet_s=2)
        assert process.terminate() == 0
    assert first_occurrences(seen) == expected([*before, *during, *after])
    assert await db.fetchval("SELECT count(*) FROM dead_letters") == 0
    await db.close()


async def _old_transactions(db: asyncpg.Connection) -> int:
    count: int = await db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'packstream-relay'"
        " AND datname = current_database() AND xact_start < clock_timestamp() - interval '7 seconds'"
    )
    return count

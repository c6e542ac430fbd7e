"""Low-rate agents on a real Kafka and Postgres: one effect for each event, in the order of its key, whatever happens.

The agent of these tests is `notifications`: its effect is a row.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from agents.runtime.crash import RESTART_EXIT_CODE
from models import dead_letter_commands as commands
from models.database import new_id
from ops.settings import asyncpg_url
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from streams.topics import AD_COUNTERS, NOTIFICATIONS, NOTIFICATIONS_TOPIC
from tests.ad_stream import WorkerProcess, eventually
from tests.agent_site import Site, direct, execute, make_store, notice, publish, rows, running_site
from tests.relay_process import REPOSITORY, Relay, relay

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as found:
        yield found


@pytest.fixture
async def engine(site: Site) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(asyncpg_url(site.environment["DATABASE_URL"]))
    await execute(engine, "TRUNCATE dead_letters, outbox_events")
    yield engine
    await engine.dispose()


@pytest.fixture(scope="module")
def publisher(site: Site) -> Iterator[Relay]:
    with relay(site.settings) as started:
        yield started


@pytest.fixture
async def worker(site: Site) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess(site.environment, site.root, arguments=("--agents", NOTIFICATIONS))
    worker.start()
    await worker.ready()
    yield worker
    worker.stop()


async def told(engine: AsyncEngine, store_id: UUID) -> list[UUID]:
    """The events that have become notifications of a store, in the order in which they did."""
    sql = "SELECT event_id FROM notifications WHERE store_id = :store ORDER BY id"
    return [row[0] for row in await rows(engine, sql, store=store_id)]


async def until_told(engine: AsyncEngine, store_id: UUID, events: list[UUID], timeout_s: float = 60) -> None:
    async def check() -> object:
        found = await told(engine, store_id)
        return found == events or (len(found), len(events))

    await eventually(check, timeout_s=timeout_s)


async def letters(engine: AsyncEngine, key: UUID) -> list[tuple[str, str]]:
    """(reason, status) of a key's letters, the oldest first."""
    sql = "SELECT reason, status FROM dead_letters WHERE source = 'notifications' AND key = :key ORDER BY id"
    return [(row[0], row[1]) for row in await rows(engine, sql, key=str(key))]


async def until_letters(engine: AsyncEngine, key: UUID, expected: list[tuple[str, str]]) -> None:
    async def check() -> object:
        found = await letters(engine, key)
        return found == expected or found

    await eventually(check, timeout_s=60)


async def oldest_letter(engine: AsyncEngine, key: UUID) -> UUID:
    found = await rows(engine, "SELECT id FROM dead_letters WHERE key = :key ORDER BY id LIMIT 1", key=str(key))
    letter_id = found[0][0]
    assert isinstance(letter_id, UUID)
    return letter_id


async def replay(engine: AsyncEngine, *ids: UUID) -> None:
    async with AsyncSession(engine) as tx, tx.begin():
        await commands.replay(tx, ids, actor="test", now=datetime.now(UTC))


async def discard(engine: AsyncEngine, letter_id: UUID) -> None:
    async with AsyncSession(engine) as tx, tx.begin():
        await commands.discard(tx, letter_id, reason="test", actor="test", now=datetime.now(UTC))


@pytest.mark.slow
async def test_killed_at_any_time_each_event_has_one_effect(
    site: Site, engine: AsyncEngine, worker: WorkerProcess
) -> None:
    stores = [(await make_store(engine)).id for _ in range(15)]
    events = [[notice(store) for _ in range(30)] for store in stores]
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        for round_ in range(3):
            for of_store in events:
                part = of_store[round_ * 10 : (round_ + 1) * 10]
                await kafka.send(*part, part[0], part[-1])  # some of them twice
            await asyncio.sleep(0.2 * round_)
            worker.signal(signal.SIGKILL)
            assert worker.process is not None
            worker.process.wait()
            worker.start()
            await worker.ready()
    for store, of_store in zip(stores, events, strict=True):
        await until_told(engine, store, [event.event_id for event in of_store], timeout_s=120)
    assert await rows(engine, "SELECT count(*) FROM dead_letters") == [(0,)]


async def test_a_failing_key_waits_in_order_until_its_letter_is_replayed(
    site: Site, engine: AsyncEngine, worker: WorkerProcess, publisher: Relay
) -> None:
    stuck, other = new_id(), (await make_store(engine)).id
    events = [notice(stuck) for _ in range(4)]
    beside = notice(other)
    await publish(engine, *events, beside)
    await until_told(engine, other, [beside.event_id])
    await until_letters(engine, stuck, [("handler_failed", "parked"), *[("behind", "parked")] * 3])
    await replay(engine, await oldest_letter(engine, stuck))  # nothing was mended: it parks again, still the first
    await until_letters(engine, stuck, [("handler_failed", "parked"), *[("behind", "parked")] * 3])
    await make_store(engine, store_id=stuck)
    late = notice(stuck)
    await publish(engine, late)
    await until_letters(engine, stuck, [("handler_failed", "parked"), *[("behind", "parked")] * 4])
    assert await told(engine, stuck) == []
    await replay(engine, await oldest_letter(engine, stuck))
    await until_told(engine, stuck, [event.event_id for event in (*events, late)])
    await until_letters(engine, stuck, [("handler_failed", "replayed"), *[("behind", "replayed")] * 4])
    assert await rows(engine, "SELECT count(*) FROM dead_letters WHERE settled_at IS NULL") == [(0,)]
    last = notice(stuck)
    await publish(engine, last)
    await until_told(engine, stuck, [event.event_id for event in (*events, late, last)])


async def test_a_discarded_letter_lets_the_rest_of_its_key_go_on(
    site: Site, engine: AsyncEngine, worker: WorkerProcess, publisher: Relay
) -> None:
    stuck = new_id()
    events = [notice(stuck) for _ in range(3)]
    await publish(engine, *events)
    await until_letters(engine, stuck, [("handler_failed", "parked"), *[("behind", "parked")] * 2])
    await make_store(engine, store_id=stuck)
    await discard(engine, await oldest_letter(engine, stuck))
    await until_told(engine, stuck, [event.event_id for event in events[1:]])
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send(events[0])  # should it come again, it has no effect either
    last = notice(stuck)
    await publish(engine, last)
    await until_told(engine, stuck, [event.event_id for event in (*events[1:], last)])


async def test_an_undecodable_record_becomes_a_letter_that_parks_its_key(
    site: Site, engine: AsyncEngine, worker: WorkerProcess, publisher: Relay
) -> None:
    store, other = (await make_store(engine)).id, (await make_store(engine)).id
    event, beside = notice(store), notice(other)
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send_bytes(NOTIFICATIONS_TOPIC, str(store), b"not avro")
        await kafka.send(event, beside)
    await until_told(engine, other, [beside.event_id])
    await until_letters(engine, store, [("undecodable", "parked"), ("behind", "parked")])
    await discard(engine, await oldest_letter(engine, store))
    await until_told(engine, store, [event.event_id])


async def test_a_systemic_failure_ends_the_process(site: Site, engine: AsyncEngine, worker: WorkerProcess) -> None:
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        for _ in range(60):
            await kafka.send_bytes(NOTIFICATIONS_TOPIC, str(new_id()), b"not avro")
    process = worker.process
    assert process is not None
    assert await asyncio.to_thread(process.wait, 60) == RESTART_EXIT_CODE
    assert await rows(engine, "SELECT count(*) FROM dead_letters") == [(51,)]
    worker.start()
    await worker.ready()  # the supervisor's part; the nine that are left are no majority

    async def all_parked() -> object:
        found = await rows(engine, "SELECT count(*) FROM dead_letters")
        return found == [(60,)] or found

    await eventually(all_parked, timeout_s=60)
    assert worker.process is not None
    assert worker.process.poll() is None


async def test_while_postgres_is_away_records_wait_and_none_is_parked(
    site: Site, engine: AsyncEngine, worker: WorkerProcess
) -> None:
    store = (await make_store(engine)).id
    events = [notice(store) for _ in range(5)]
    data = DataDir.at(site.root)
    await engine.dispose()
    await stack_down(data, ("postgres",))
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send(*events)
    await asyncio.sleep(8)  # longer than all attempts at a record take
    process = worker.process
    assert process is not None
    assert process.poll() is None
    await stack_up(data, ("postgres",), bound=True)
    await until_told(engine, store, [event.event_id for event in events])
    assert await rows(engine, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert process.poll() is None


async def seen(engine: AsyncEngine, event_id: UUID) -> list[str]:
    """The agents of tests.two_agents that an event had an effect by."""
    sql = "SELECT actor FROM audit_log WHERE object_id = :id ORDER BY actor"
    return [row[0] for row in await rows(engine, sql, id=str(event_id))]


async def until_seen(engine: AsyncEngine, event_id: UUID, agents: list[str]) -> None:
    async def check() -> object:
        found = await seen(engine, event_id)
        return found == agents or found

    await eventually(check, timeout_s=60)


async def test_a_replay_for_one_agent_is_nothing_to_another_of_the_same_topic(
    site: Site, engine: AsyncEngine, publisher: Relay
) -> None:
    environment = {**os.environ, **site.environment, "DATA_DIR": str(site.root / "two")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.two_agents", env=environment, cwd=REPOSITORY
    )
    try:
        stuck = new_id()
        first, second = notice(stuck), notice(stuck)
        await publish(engine, first, second)
        sql = "SELECT reason FROM dead_letters WHERE source = 'second' AND key = :key ORDER BY id"

        async def parked() -> object:
            found = [row[0] for row in await rows(engine, sql, key=str(stuck))]
            return found == ["handler_failed", "behind"] or found

        await eventually(parked, timeout_s=90)
        assert [await seen(engine, event.event_id) for event in (first, second)] == [["first"], ["first"]]
        await make_store(engine, store_id=stuck)
        await replay(engine, await oldest_letter(engine, stuck))
        for event in (first, second):
            await until_seen(engine, event.event_id, ["first", "second"])
        third = notice(stuck)
        await publish(engine, third)
        await until_seen(engine, third.event_id, ["first", "second"])
        assert await seen(engine, first.event_id) == ["first", "second"]  # once each
        assert await rows(engine, "SELECT count(*) FROM dead_letters WHERE settled_at IS NULL") == [(0,)]
    finally:
        process.kill()
        await process.wait()


@pytest.mark.slow
async def test_workers_with_different_agents_share_a_group(site: Site, engine: AsyncEngine) -> None:
    workers = [
        WorkerProcess(site.environment, site.root, name, ("--agents", agent))
        for name, agent in (("counting", AD_COUNTERS), ("telling", NOTIFICATIONS))
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            await worker.ready(timeout_s=180)
        store = (await make_store(engine)).id
        events = [notice(store) for _ in range(20)]
        async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
            await kafka.send(*events)
        await until_told(engine, store, [event.event_id for event in events])
        assert all(worker.process is not None and worker.process.poll() is None for worker in workers)
    finally:
        for worker in workers:
            worker.stop()

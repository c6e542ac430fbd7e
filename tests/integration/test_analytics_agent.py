"""The analytics agent on a real Kafka, Postgres and BigQuery emulator: a row for each fact, once, whatever happens."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from agents.warehouse_writer import WarehouseWriter
from models import dead_letter_commands as commands
from models.analytics import positions
from models.analytics.gateway import BigQuery
from models.analytics.positions import SucceededError
from models.database import make_sessions, new_id
from ops.backfill import PLACE, Run
from ops.cli import main
from ops.gap_proof import prove
from ops.stack.local import stack_down, stack_up
from ops.stack.paths import DataDir
from ops.warehouse import connected_warehouse
from schemas.codec import encode
from schemas.records import AdDailyChargeRecorded, AdDayTotals, AdSpendRolledUp, Record
from streams.facts import facts_of
from streams.topics import AD_ROLLUPS, ANALYTICS, ORDERS
from tests.ad_stream import WorkerProcess, eventually
from tests.agent_site import Site, direct, execute, make_store, notice, publish, rows, running_site
from tests.facts_site import PARTS, expected_ids, found_ids, roll_up, until_exactly
from tests.order_events import NOON, attribution, canceled, checkout, decided, line, order, paid_out, reject
from tests.relay_process import Relay, relay

pytestmark = pytest.mark.timeout(400)
DAY = date(2026, 4, 30)
AGENT = ("--agents", ANALYTICS)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site(PARTS) as found:
        yield found


@pytest.fixture
async def store(site: Site) -> AsyncIterator[BigQuery]:
    store = connected_warehouse(site.settings)
    yield store
    store.close()


@pytest.fixture(scope="module")
def publisher(site: Site) -> Iterator[Relay]:
    with relay(site.settings) as started:
        yield started


@pytest.fixture(scope="module")
def running_worker(site: Site) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(site.environment, site.root, arguments=AGENT)
    yield worker
    worker.stop()


@pytest.fixture
async def worker(running_worker: WorkerProcess) -> WorkerProcess:
    """A worker with this agent alone, for all tests that do not kill it."""
    if running_worker.process is None or running_worker.process.poll() is not None:
        running_worker.start()
    await running_worker.ready()
    return running_worker


def lives(count: int) -> list[Record]:
    """Events of as many checkouts: orders of two vendors, one decided in part, some canceled, some paid out."""
    events: list[Record] = []
    for n in range(count):
        bought = line(attribution=attribution(target_type="product"))
        event = checkout(order(bought, line(), attribution=attribution()), order(line(quantity=n + 1)))
        first, second = event.orders
        taken = reject(first, 1)
        events += [event, decided(taken), canceled(second) if n % 2 else paid_out(taken)]
    return events


async def letters(engine: AsyncEngine, *events: Record) -> list[tuple[str, str, bool]]:
    """(reason, status, settled) of the agent's letters of these events."""
    sql = (
        "SELECT reason, status, settled_at IS NOT NULL FROM dead_letters"
        " WHERE source = 'analytics' AND event_id = ANY (:ids) ORDER BY id"
    )
    return [(row[0], row[1], row[2]) for row in await rows(engine, sql, ids=[event.event_id for event in events])]


async def until_letters(engine: AsyncEngine, event: Record, *expected: tuple[str, str, bool]) -> None:
    async def check() -> object:
        found = await letters(engine, event)
        return found == list(expected) or found

    await eventually(check, timeout_s=60)


async def test_every_fact_is_a_row_once_though_events_come_twice(
    site: Site, engine: AsyncEngine, store: BigQuery, worker: WorkerProcess
) -> None:
    events = lives(12)
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send(*events, *events[:5])
        await until_exactly(store, expected_ids(events))
        late = lives(1)
        await kafka.send(*events[3:8], *late)
    await until_exactly(store, expected_ids([*events, *late]))
    event = events[0]
    [row] = [fact.row for fact in facts_of(event, {}) if fact.table == "marketplace_events"][:1]
    [found] = await store.query("SELECT * FROM {marketplace_events} WHERE row_id = @id", id=row["row_id"])
    assert {name: found[name] for name in row} == row
    sql = "SELECT sum(row_offset) FROM warehouse_streams"
    assert await rows(engine, sql) == [((await found_ids(store)).total(),)]
    sql = "SELECT count(*) FROM agent_positions WHERE agent = 'analytics' AND topic = :topic"

    async def reported() -> object:
        return (await rows(engine, sql, topic=ORDERS))[0][0] > 0

    await eventually(reported, timeout_s=30)


def closed_day(store_id: UUID, ads: list[AdDayTotals], amount_cents: int) -> tuple[Record, Record]:
    micros = sum(ad.spend_micros for ad in ads)
    common: dict[str, Any] = {"occurred_at": NOON, "actor": "test", "store_id": store_id, "spend_micros": micros}
    rolled = AdSpendRolledUp(
        **common, event_id=new_id(), day=DAY, impressions=sum(ad.impressions for ad in ads), clicks=0, ads=ads
    )
    charge = AdDailyChargeRecorded(
        **common, event_id=new_id(), charge_id=new_id(), charge_type="ad_spend", for_date=DAY, amount_cents=amount_cents
    )
    return rolled, charge


def totals(*micros: int) -> list[AdDayTotals]:
    return [AdDayTotals(ad_id=new_id(), impressions=10, clicks=1, spend_micros=one) for one in micros]


async def test_a_charge_reaches_its_ads_to_the_cent_and_waits_as_a_letter_for_what_it_is_split_by(
    site: Site, engine: AsyncEngine, store: BigQuery, worker: WorkerProcess, publisher: Relay
) -> None:
    vendor, other = (await make_store(engine)).id, (await make_store(engine)).id
    ads, later = totals(30_000, 30_000, 0, 40_000), totals(12_345)
    await roll_up(engine, vendor, DAY, ads)
    events = closed_day(vendor, ads, 10)
    orphaned = closed_day(other, later, 1)
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send(*events, *orphaned)
    await until_exactly(store, expected_ids([*events, orphaned[0]], {(vendor, DAY): ads}))
    sql = "SELECT ad_id, cost_cents FROM {ad_event_facts} WHERE type = 'charge' AND store_id = @store"
    found = {row["ad_id"]: row["cost_cents"] for row in await store.query(sql, store=str(vendor))}
    assert found == {str(ads[0].ad_id): 3, str(ads[1].ad_id): 3, str(ads[3].ad_id): 4}
    await until_letters(engine, orphaned[1], ("spend_differs", "parked", False))
    await roll_up(engine, other, DAY, later)
    letter = (await rows(engine, "SELECT id FROM dead_letters WHERE event_id = :id", id=orphaned[1].event_id))[0][0]
    async with AsyncSession(engine) as tx, tx.begin():
        await commands.replay(tx, [letter], actor="test", now=datetime.now(UTC))
    await until_exactly(store, expected_ids(orphaned, {(other, DAY): later}))
    await until_letters(engine, orphaned[1], ("spend_differs", "replayed", True))


async def test_what_is_refused_is_a_letter_and_what_is_beside_it_is_written(
    site: Site, engine: AsyncEngine, store: BigQuery, worker: WorkerProcess, publisher: Relay
) -> None:
    ancient = order(created_at=datetime(1900, 1, 1, tzinfo=UTC))  # no partition can hold it
    mixed = checkout(order(), ancient, order())
    stray, good = replace(notice(new_id()), kind="x"), lives(2)
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        group = str(mixed.checkout_group_id)
        await kafka.send_bytes(ORDERS, group, b"not avro")
        await kafka.send_bytes(ORDERS, group, encode(stray))
        await kafka.send(mixed, *good)
    fine = expected_ids([mixed, *good])
    refused = ("marketplace_events", f"order_created:{ancient.order_id}")
    del fine[refused]
    await until_exactly(store, fine)
    assert refused not in await found_ids(store)
    await until_letters(engine, mixed, ("row_refused", "parked", False))
    await until_letters(engine, stray, ("refused_type", "parked", False))
    [[error]] = await rows(engine, "SELECT error FROM dead_letters WHERE event_id = :id", id=mixed.event_id)
    assert error == f"order_created:{ancient.order_id}: occurred_at: 1900-01-01 has no partition"
    sql = "SELECT count(*) FROM dead_letters WHERE reason = 'undecodable' AND key = :key"
    assert await rows(engine, sql, key=group) == [(1,)]
    letter = (await rows(engine, "SELECT id FROM dead_letters WHERE event_id = :id", id=mixed.event_id))[0][0]
    async with AsyncSession(engine) as tx, tx.begin():
        await commands.replay(tx, [letter], actor="test", now=datetime.now(UTC))

    async def parked_again() -> object:
        sql = "SELECT attempts, status FROM dead_letters WHERE id = :id"
        found = await rows(engine, sql, id=letter)
        return found == [(2, "parked")] or found

    await eventually(parked_again, timeout_s=60)
    await until_exactly(store, fine)  # the replay wrote nothing a second time


async def test_the_proof_names_what_is_missing_and_how_far_all_is_there(
    site: Site, engine: AsyncEngine, store: BigQuery, worker: WorkerProcess, publisher: Relay
) -> None:
    events = lives(3)
    began = datetime.now(UTC)
    await publish(engine, *events)
    await until_exactly(store, expected_ids(events))

    async def proved() -> object:
        whole, _ = await prove(site.settings)
        return (whole.ok and whole.pending == 0 and whole.watermark > began.isoformat()) or whole

    await eventually(proved, timeout_s=30)
    whole, _ = await prove(site.settings)
    assert whole.in_kafka == whole.in_warehouse >= len(events)
    assert 0 <= whole.committed - whole.in_kafka <= whole.letters  # letters that other tests have left
    lost = f"order_decided:{events[1].order.order_id}:2"  # type: ignore[attr-defined]
    await store.query("DELETE FROM {marketplace_events} WHERE row_id = @id", id=lost)
    archived = "SELECT created_at FROM outbox_archive WHERE id = :id"
    committed = (await rows(engine, archived, id=events[1].event_id))[0][0]
    broken, _ = await prove(site.settings)
    assert [(gap.level, gap.key) for gap in broken.missing] == [("warehouse", lost)]
    assert (broken.ok, broken.in_warehouse) == (False, whole.in_warehouse - 1)
    assert datetime.fromisoformat(broken.watermark) == committed
    never_sent = new_id()
    await execute(
        engine,
        "INSERT INTO outbox_archive SELECT seq + 1000000, now(), :fresh, aggregatetype, aggregateid, type, payload,"
        " lane, headers, occurred_at, created_at - interval '1 second' FROM outbox_archive WHERE id = :id",
        fresh=never_sent,
        id=events[0].event_id,
    )
    broken, _ = await prove(site.settings)
    assert [(gap.level, gap.key) for gap in broken.missing] == [("kafka", str(never_sent)), ("warehouse", lost)]
    command = ["reconcile", "--facts", "--json", "--data", str(site.root / "cli")]
    result = await asyncio.to_thread(CliRunner().invoke, main, command, env=site.environment)
    assert result.exit_code == 1
    assert [json.loads(row)["topic"] for row in result.stdout.splitlines()] == [ORDERS, AD_ROLLUPS]
    await execute(engine, "DELETE FROM outbox_archive WHERE id = :id", id=never_sent)


async def test_while_the_warehouse_is_away_nothing_is_lost_and_it_drains_when_it_is_back(
    site: Site, engine: AsyncEngine, store: BigQuery, worker: WorkerProcess
) -> None:
    before, during = lives(4), lives(8)
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await kafka.send(*before)
        await until_exactly(store, expected_ids(before))
        data = DataDir.at(site.root)
        await stack_down(data, ("bigquery",))
        await kafka.send(*during)
        await asyncio.sleep(4)  # more tries than it makes before it only waits
    assert worker.process is not None
    assert worker.process.poll() is None
    await stack_up(data, ("bigquery",), bound=True)  # its tables are as they were, its streams are forgotten
    await until_exactly(store, expected_ids([*before, *during]))
    assert await letters(engine, *before, *during) == []


async def test_an_owner_that_died_while_it_wrote_is_succeeded_without_a_row_twice_or_missing(
    site: Site, engine: AsyncEngine, store: BigQuery
) -> None:
    """At each point between claim and completion; the former owner wakes up again and can do nothing more."""
    sessions = make_sessions(engine)

    async def once(act: Any, generation: int) -> Any:
        return await act()

    writer = WarehouseWriter(store, sessions, once)
    wall = datetime.now(UTC)

    async def take_over(topic: str) -> tuple[positions.Place, list[str]]:
        async with sessions.begin() as tx:
            return await positions.take_over(tx, topic, 0, first_offset=7, wall=wall)

    for died_after in ("claim", "first table", "all rows"):
        topic, events = f"test.{died_after}", lives(2)
        facts = [fact for event in events for fact in facts_of(event, {})]
        place, unended = await take_over(topic)
        assert (place.next_offset, place.doubtful_until, unended) == (7, 0, [])
        async with sessions.begin() as tx:
            await positions.claim(tx, place, 13, wall=wall)
        part = {"claim": [], "first table": [f for f in facts if f.table == "marketplace_events"], "all rows": facts}
        await writer.write(place, part[died_after], doubtful=False, generation=1)
        heir, unended = await take_over(topic)
        assert (heir.next_offset, heir.doubtful_until) == (7, 13)
        assert len(unended) == len({fact.table for fact in part[died_after]})
        for stream in unended:
            await store.end_stream(stream)
        before = await found_ids(store)
        with pytest.raises(SucceededError) if died_after != "all rows" else nullcontext():
            await writer.write(place, facts, doubtful=False, generation=1)  # its streams are ended, and it opens none
        assert await found_ids(store) == before
        async with sessions.begin() as tx:
            await positions.forget_streams(tx, heir, wall=wall)
            await positions.claim(tx, heir, 10, wall=wall)
        await writer.write(heir, facts, doubtful=True, generation=1)
        async with sessions.begin() as tx:
            await positions.complete(tx, heir, 13, wall=wall)
        with pytest.raises(SucceededError):
            async with sessions.begin() as tx:
                await positions.complete(tx, place, 13, wall=wall)
        found = await found_ids(store)
        assert {found[fact.table, fact.row_id] for fact in facts} == {1}
        after, unended = await take_over(topic)
        assert (after.next_offset, after.doubtful_until, unended) == (13, 0, [])
        assert after.streams == heir.streams


async def test_a_backfill_beside_the_stream_doubles_nothing(
    site: Site, engine: AsyncEngine, store: BigQuery, worker: WorkerProcess
) -> None:
    """Rows that were filled before their events come, after, and at the same time."""
    run = Run(store, make_sessions(engine), lambda _: None)
    async with make_sessions(engine).begin() as tx:
        run._place, _ = await positions.take_over(tx, PLACE, 0, first_offset=0, wall=datetime.now(UTC))
    events = lives(30)
    facts = [fact for event in events for fact in facts_of(event, {})]
    third = len(facts) // 3
    async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
        await run._write(facts[:third])
        await asyncio.gather(kafka.send(*events), run._write(facts[third : 2 * third]))
        await until_exactly(store, expected_ids(events))
        await run._write(facts)
    await until_exactly(store, expected_ids(events))
    assert third <= run.report.rows <= 2 * third


@pytest.mark.slow
async def test_killed_and_rebalanced_under_load_row_counts_equal_the_events(
    site: Site, engine: AsyncEngine, store: BigQuery, running_worker: WorkerProcess
) -> None:
    running_worker.stop()
    workers = [WorkerProcess(site.environment, site.root, name, AGENT) for name in ("a", "b")]
    events: list[Record] = []
    fences = 0
    try:
        async with direct(site.environment["KAFKA_BROKERS"]) as kafka:
            for turn in range(6):
                one = workers[turn % 2]
                if one.process is None or one.process.poll() is not None:  # the turn before spared it
                    one.start()
                await one.ready()
                fresh = lives(150)
                events += fresh
                await kafka.send(*fresh, *fresh[:20])
                await asyncio.sleep(0.15 * turn)
                victim = workers[(turn + 1) % 2] if turn % 3 == 2 else one
                if victim.process is not None and victim.process.poll() is None:
                    victim.signal(signal.SIGKILL)
                    victim.process.wait()
                pending = await rows(engine, "SELECT count(*) FROM warehouse_positions WHERE pending_until IS NOT NULL")
                fences += pending[0][0]
        for one in workers:
            if one.process is None or one.process.poll() is not None:
                one.start()
        await until_exactly(store, expected_ids(events), timeout_s=240)
    finally:
        for one in workers:
            one.stop()
    assert fences > 0  # some died with rows under way, else this proves little
    copies = Counter((await found_ids(store)).values())
    assert set(copies) == {1}
    assert await letters(engine, *events) == []

"""Faults for real, under load: afterwards answers, topic, counters, rollups and charges are one.

Each test takes a business day of its own, does its harm, closes the day and counts (count.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from agents.kafka import connection
from models.ads.rules import shard_of
from models.database import new_id
from ops.kafka_read import read_topic
from ops.reconcile import reconcile_day
from schemas.ad_columns import IMPRESSION, AdEvent, pack
from schemas.codec import encode
from streams.gate import MARGIN_S
from streams.topics import AD_EVENTS
from tests.faults.count import count_day
from tests.faults.load import Load, Market
from tests.faults.stand_still import stand_still
from tests.faults.system import GRACE_S, SHARDS, System, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ROUNDS = 4
PROGRAMS = ("worker", "relay", "api")
STAND_STILLS = 5  #: at most: the first whose zombie wrote something will do
KAFKA_DOWN_S = 30.0


async def test_killed_workers_relays_and_apis_lose_and_repeat_nothing(
    system: System, market: Market, load: Load
) -> None:
    day = await market.next_morning()
    kills = 0
    async with load.running():
        for round_ in range(ROUNDS):
            await load.goes_on()
            old = {}
            for name in PROGRAMS[round_ % 3 :] + PROGRAMS[: round_ % 3]:
                old[name] = await system.kill(name)
                kills += 1
                await asyncio.sleep(0.7)
            for name in PROGRAMS:
                await system.back(name, old[name])
        await load.goes_on()
    found = await count_day(market, load.tally, day)
    print(f"\n{kills} kills; {found}; {load.tally.answers}")
    assert not found.wrong, found.wrong[:20]
    assert kills >= 10


async def test_a_worker_that_stood_still_is_refused_and_changes_nothing(
    system: System, market: Market, load: Load
) -> None:
    day = await market.next_morning()
    second, before, rounds = system.second_worker(), system.fencings(), 0
    second.start()
    await second.ready()
    while rounds < STAND_STILLS and system.fencings() == before:
        await stand_still(market, second, load)
        rounds += 1
    found = await count_day(market, load.tally, day)
    second.stop()
    fencings = system.fencings() - before
    print(f"\n{fencings} fencings in {rounds} stand-stills; {found}; {load.tally.answers}")
    assert not found.wrong, found.wrong[:20]
    assert fencings > 0, "the zombie wrote nothing: the fault did not happen"


async def test_after_a_loss_of_redis_nothing_is_served_until_all_old_tokens_have_expired(
    system: System, market: Market, load: Load
) -> None:
    day = await market.next_morning()
    load.hold = 0.3
    async with load.running():
        await load.holds(20)
    await system.redis("FLUSHALL")
    await market.sign_in_again()
    await nothing_is_served(market, load)
    await load.use_held(share=0.5)  # tokens of before the loss count, though no gate knows them any more
    await reopen(system, market, load)
    await load.use_held(gone=True)

    load.hold = 0.0
    async with load.running():
        await load.goes_on()
        old = await system.kill("redis")
        await system.back("redis", old)
        await asyncio.sleep(2)
    await nothing_is_served(market, load)
    await reopen(system, market, load)
    async with load.running():
        await load.goes_on()
    found = await count_day(market, load.tally, day)
    print(f"\n{found}; {load.tally.serves} {load.tally.answers}")
    assert not found.wrong, found.wrong[:20]
    assert load.tally.serves["budget_exhausted"] + load.tally.serves["served"] > 50


async def nothing_is_served(market: Market, load: Load) -> None:
    """Every gate is closed, and Postgres knows it."""
    system = market.system
    served = load.tally.serves["served"]
    async with market.client() as http:

        async def lost() -> bool:
            await load.serve(http)
            return bool(await system.value("SELECT count(*) FROM ad_gate_epochs WHERE state = 'lost'") == SHARDS)

        await until("all gates are known to be lost", lost)
        for _ in range(20):
            page = await load.serve(http)
            assert page is not None, load.tally.serves
            assert (page["ad"], page["reason"]) == (None, "gate_closed")
    assert load.tally.serves["served"] == served


async def reopen(system: System, market: Market, load: Load) -> None:
    """Gates open when the watermark passes loss + margin + token TTL + skew, not a moment before."""
    lost = sorted(row[0] for row in await system.rows("SELECT lost_at FROM ad_gate_epochs"))
    first, last = (at + timedelta(seconds=MARGIN_S + GRACE_S) for at in (lost[0], lost[-1]))
    await market.move_clock(first - timedelta(seconds=8))
    await system.watermarks_passed(first - timedelta(seconds=8))
    assert await system.gates_open() == 0
    async with market.client() as http:
        page = await load.serve(http)
        assert page is not None
        assert page["reason"] == "gate_closed"
    await market.move_clock(max(last, await system.now()) + timedelta(seconds=1))
    await system.all_gates_open()


async def test_the_api_needs_no_kafka(system: System, market: Market, load: Load) -> None:
    day = await market.next_morning()
    async with load.running():
        await load.goes_on()
        pid = await system.signal("kafka", signal.SIGSTOP)
        try:
            await asyncio.sleep(KAFKA_DOWN_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        answers, serves = Counter(load.tally.answers), Counter(load.tally.serves)
        waiting = await system.value("SELECT count(*) FROM outbox_events")
        drained_s = await system.outbox_drained(timeout_s=60)
    found = await count_day(market, load.tally, day)
    print(f"\n{waiting} rows waited, drained in {drained_s:.1f} s; {found}; {serves} {answers}")
    assert waiting > 100
    assert answers.keys() <= {"impression accepted", "impression duplicate", "click 302"}
    assert serves.keys() <= {"served", "budget_exhausted", "no_candidates"}
    assert not found.wrong, found.wrong[:20]
    assert not found.unknown


async def test_poison_and_a_repeated_stretch_of_the_topic_change_no_count(
    system: System, market: Market, load: Load
) -> None:
    day = await market.next_morning()
    closed = day - timedelta(days=1)
    letters = Counter(await reasons(system))
    ads = list(market.budgets_micros)
    stranger, late = ad_event(new_id(), day), ad_event(ads[0], closed)
    async with load.running(), AIOKafkaProducer(bootstrap_servers=system.settings.kafka_brokers) as producer:
        await load.goes_on()
        for key in (b"1", b"2"):
            await producer.send_and_wait(AD_EVENTS, b"this is not Avro", key=key)
            await producer.send_and_wait(AD_EVENTS, b"\xc3\x01" + b"\x07" * 40, key=key)
            await producer.send_and_wait(AD_EVENTS, None, key=key)
        await send_event(producer, stranger)
        await send_event(producer, late)
        await load.goes_on(30)
        repeated = 0
        async for batch in read_topic(connection(system.settings), AD_EVENTS):
            for record in batch[-400:]:
                await producer.send(AD_EVENTS, record.value, key=record.key)
                repeated += 1
        old = await system.kill("worker")  # in the midst of it
        await system.back("worker", old)
        await load.goes_on(30)
    found = await count_day(market, load.tally, day)
    print(f"\n{repeated} records repeated; {found}")
    assert not found.wrong, found.wrong[:20]
    assert found.repeats > 20
    letters_now = Counter(await reasons(system)) - letters
    # The stretch that was repeated held the poison too.
    assert letters_now.keys() == {"undecodable", "unknown_schema", "unknown_ad"}
    assert letters_now["undecodable"] >= 4
    sql = "SELECT reason, cost_micros FROM ad_adjustments WHERE event_id = $1"
    assert [tuple(row) for row in await system.rows(sql, UUID(bytes=late.jti))] == [("day_closed", 5)]
    reconciliation = await reconcile_day(system.settings, closed)
    assert (reconciliation.differences, reconciliation.adjustments) == ([], 1)


def ad_event(ad_id: UUID, day: date) -> AdEvent:
    """An impression at noon."""
    noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp())
    return AdEvent(new_id().bytes, ad_id.bytes, IMPRESSION, noon, noon + 1800, 5)


async def send_event(producer: AIOKafkaProducer, event: AdEvent) -> None:
    """As the relay would."""
    shard = shard_of(UUID(bytes=event.ad_id), SHARDS)
    record = pack([event], event_id=new_id(), shard=shard, occurred_at=datetime.now(UTC), actor="test")
    await producer.send_and_wait(AD_EVENTS, encode(record), key=str(shard).encode())


async def reasons(system: System) -> dict[str, int]:
    """Dead letters by reason."""
    rows = await system.rows("SELECT reason, count(*) FROM dead_letters GROUP BY 1")
    return {row[0]: row[1] for row in rows}

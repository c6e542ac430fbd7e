"""How soon a worker is back with a table of a million keys, and how long a planned hand-over stops counting."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from agents.runtime.store import POSITION_KEY, collecting_later
from models.ads.gateway import day_key
from models.ads.rules import day_number, shard_of
from models.database import new_id
from models.redis import RedisLink
from ops.bench.ad_rows import COST_MICROS, make_ads
from ops.bench.ad_topic import ACTOR, TTL_S, producer
from ops.bench.results import Plan, Result, Rounds
from ops.bench.site import BenchSite, Process, site
from ops.stack.errors import StackError
from schemas.ad_columns import IMPRESSION, AdEvent, pack
from schemas.codec import encode
from schemas.registry import PARTITIONS
from streams.ad_day import AdDay
from streams.topics import AD_COUNTERS, AD_COUNTERS_CHANGELOG, AD_EVENTS

WORKER: Final = ("worker", "--agents", AD_COUNTERS)
TABLE_DAYS: Final = 8  #: the keys are of the days before today: so many counters an ad are kept
FEED_EVERY_S: Final = 0.024  #: an event of each shard; with 12 shards 500 a second
POLL_S: Final = 0.005
LOADING, RAW = "recovery: cold loading", "recovery: raw read of the changelog"
PACE, READY = "recovery: cold loading, pace", "recovery: cold start to ready"
WARM, HANDOVER = "recovery: warm restart to ready", "recovery: planned hand-over"


@dataclass(frozen=True, slots=True)
class Size:
    """Of the table, and how often it is loaded and handed over."""

    rounds: int
    keys: int
    settle_s: float  #: of counting before and after a hand-over


FULL: Final = Size(rounds=3, keys=1_000_000, settle_s=4.0)
QUICK: Final = Size(rounds=1, keys=20_000, settle_s=1.5)


async def run(plan: Plan) -> list[Result]:
    """Cold, warm and the plain read in turns; then hand-overs from one of two workers to the other."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with site("postgres", "kafka", "redis") as found:
        ads = await _probes(found)
        worker = found.process("a", *WORKER)
        await _declare(worker)
        records = await fill_changelog(found, size.keys)
        plan.say(f"recovery: a changelog of {records:,} records")
        for n in range(size.rounds):
            await _load(found, worker, records, rounds)
            plan.say(
                f"recovery: round {n + 1} of {size.rounds}: loaded in {rounds.last(LOADING):.2f} s, ready in "
                f"{rounds.last(READY):.1f} s, warm {rounds.last(WARM):.1f} s, raw {rounds.last(RAW):,.0f} records/s"
            )
        for n in range(size.rounds):
            rounds.add(HANDOVER, await _hand_over(found, ads, size), "s")
            plan.say(f"recovery: round {n + 1} of {size.rounds}: hand-over {rounds.last(HANDOVER):.2f} s")
    return [
        rounds.result(LOADING, note=f"{records:,} records, {size.keys:,} keys, all partitions in one worker"),
        rounds.result(PACE, against=RAW),
        rounds.result(RAW, note="aiokafka, nothing kept"),
        rounds.result(READY, note="process start included"),
        rounds.result(WARM, note="process start included; the table is on disk"),
        rounds.result(HANDOVER, note="SIGTERM of one of two workers at 500 events/s: a shard's longest pause"),
    ]


async def _probes(found: BenchSite) -> dict[int, UUID]:
    """An ad that Postgres knows of each shard."""
    shards = found.settings.ad_shards
    probes: dict[int, UUID] = {}
    while len(probes) < shards:
        ad_id = new_id()
        probes.setdefault(shard_of(ad_id, shards), ad_id)
    await make_ads(found.settings, list(probes.values()))
    return probes


async def _declare(worker: Process) -> None:
    """Let a worker make its changelog topic, as it wants it."""
    worker.start()
    await worker.ready()
    await worker.stop()
    _forget(worker)


def _forget(worker: Process) -> None:
    """Take a worker's table away; nothing of its log stays either."""
    shutil.rmtree(worker.directory / "worker")
    worker.log.unlink()


async def fill_changelog(found: BenchSite, keys: int) -> int:
    """Counters of `keys` ads and days, as batches of a worker would have left them; how many records that is."""
    async with producer(found.brokers) as sender:
        partitions = await _partitions_of_shards(sender, found.settings.ad_shards)
        each = -(-keys // len(partitions))
        for shard, partition in partitions.items():
            await _send(sender, partition, [_counter(shard, n) for n in range(each)])
        for partition in range(PARTITIONS):
            await _send(sender, partition, [(POSITION_KEY, b"-1")])
    return each * len(partitions) + PARTITIONS


def _counter(shard: int, number: int) -> tuple[bytes, bytes]:
    """An ad's day that is over: no open minutes."""
    today = day_number(datetime.now(UTC).date())
    day = AdDay(shard, today - 1 - number % TABLE_DAYS, new_id().bytes)
    day.impressions, day.clicks, day.spend_micros = 900 + number % 100, number % 40, 900 * COST_MICROS
    return day.key, day.pack(0)


async def _partitions_of_shards(sender: AIOKafkaProducer, shards: int) -> dict[int, int]:
    """Where the default partitioner leads each shard's key."""
    every = sorted(await sender.partitions_for(AD_EVENTS))
    return {shard: sender._partitioner(str(shard).encode(), every, every) for shard in range(shards)}


async def _send(sender: AIOKafkaProducer, partition: int, records: Sequence[tuple[bytes, bytes]]) -> None:
    batch, sent = sender.create_batch(), []
    for key, value in records:
        if batch.append(key=key, value=value, timestamp=None) is None:
            sent.append(await sender.send_batch(batch, AD_COUNTERS_CHANGELOG, partition=partition))
            batch = sender.create_batch()
            batch.append(key=key, value=value, timestamp=None)
    sent.append(await sender.send_batch(batch, AD_COUNTERS_CHANGELOG, partition=partition))
    await asyncio.gather(*sent)


async def _load(found: BenchSite, worker: Process, records: int, rounds: Rounds) -> None:
    """A plain read of the changelog, a worker without a table, and the same worker again with it."""
    rounds.add(RAW, await _read(found.brokers), "records/s")
    rounds.add(READY, await _started(worker), "s")
    (line,) = worker.logged("table_loaded")
    if line["records"] < records:
        raise StackError(f"recovery: {line['records']} of {records} records were loaded")
    rounds.add(LOADING, line["seconds"], "s")
    rounds.add(PACE, line["records"] / line["seconds"], "records/s")
    await worker.stop()
    rounds.add(WARM, await _started(worker), "s")
    await worker.stop()
    _forget(worker)


async def _started(worker: Process) -> float:
    """Seconds from the start of the process until all its partitions may be counted."""
    began = time.monotonic()
    worker.start()
    await worker.ready()
    return time.monotonic() - began


async def _read(brokers: str) -> float:
    """Records a second of a consumer that does nothing else, committed records only."""
    partitions = [TopicPartition(AD_COUNTERS_CHANGELOG, n) for n in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers, isolation_level="read_committed", max_partition_fetch_bytes=8 << 20
    )
    await consumer.start()
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    ends = await consumer.end_offsets(partitions)
    count, began, pending = 0, time.monotonic(), set(partitions)
    with collecting_later():
        while pending:
            for records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
                count += len(records)
            pending = {tp for tp in pending if await consumer.position(tp) < ends[tp]}
    seconds = time.monotonic() - began
    await consumer.stop()
    return count / seconds


async def _hand_over(found: BenchSite, ads: dict[int, UUID], size: Size) -> float:
    """The longest pause of any shard's counter around the moment when one of two workers is asked to leave."""
    workers = [found.process(name, *WORKER) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    await asyncio.gather(*(worker.ready() for worker in workers))
    link = RedisLink(found.addresses["REDIS_URL"])
    await link.connect()
    pauses = Pauses(link, ads)
    feeding = asyncio.create_task(_feed(found.brokers, ads))
    watching = asyncio.create_task(pauses.watch())
    try:
        await pauses.all_move()
        await asyncio.sleep(size.settle_s)
        pauses.begin()
        workers[0].terminate()
        await asyncio.sleep(size.settle_s)
        await pauses.all_move()
        return pauses.longest_s
    finally:
        for task in (feeding, watching):
            task.cancel()
        await asyncio.gather(feeding, watching, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in workers))
        await link.close()
        for worker in workers:
            _forget(worker)


class Pauses:
    """Watches one counter of each shard."""

    def __init__(self, link: RedisLink, ads: dict[int, UUID]) -> None:
        day = day_number(datetime.now(UTC).date())
        self._link = link
        self._keys = [day_key(shard, day, ad_id.bytes) for shard, ad_id in ads.items()]
        self._moved = [0.0] * len(self._keys)  #: when each counter was last seen to move
        self.longest_s = 0.0

    async def watch(self) -> None:
        """Until cancelled."""
        last: list[Any] = [None] * len(self._keys)
        while True:
            found = await asyncio.gather(*(self._link.execute("HGET", key, "events") for key in self._keys))
            now = time.monotonic()
            for n, value in enumerate(found):
                if value != last[n]:
                    self.longest_s = max(self.longest_s, now - self._moved[n])
                    last[n], self._moved[n] = value, now
            await asyncio.sleep(POLL_S)

    def begin(self) -> None:
        """Pauses count from here."""
        self.longest_s = 0.0

    async def all_move(self, *, timeout_s: float = 60.0) -> None:
        """Return when every counter has moved from now on; StackError when one stands still."""
        began = time.monotonic()
        while min(self._moved) < began:
            if time.monotonic() - began > timeout_s:
                raise StackError(f"recovery: a shard stood still for {timeout_s:.0f} s")
            await asyncio.sleep(POLL_S)


async def _feed(brokers: str, ads: dict[int, UUID]) -> None:
    """An event of each shard, again and again, until cancelled."""
    async with producer(brokers) as sender:
        ends = time.monotonic()
        while True:
            now = datetime.now(UTC)
            iat_s = int(now.timestamp())
            for shard, ad_id in ads.items():
                event = AdEvent(new_id().bytes, ad_id.bytes, IMPRESSION, iat_s, iat_s + TTL_S, COST_MICROS)
                record = pack([event], event_id=new_id(), shard=shard, occurred_at=now, actor=ACTOR)
                await sender.send(AD_EVENTS, encode(record), key=str(shard).encode())
            ends += FEED_EVERY_S
            await asyncio.sleep(max(0.0, ends - time.monotonic()))

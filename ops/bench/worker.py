"""One worker's events a second, exact, with dedupe and publishing, against other ways to count the same topic."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from confluent_kafka.admin import AdminClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from models.ads.gateway import day_key, gate_key
from models.ads.rules import shard_of
from models.database import new_id
from models.redis import RedisLink
from ops.bench import kafka_streams_jar
from ops.bench.ad_rows import make_ads
from ops.bench.ad_topic import Filling, fill
from ops.bench.progress import Pace, pace_of
from ops.bench.results import Plan, Result, Rounds
from ops.bench.site import BenchSite, Process, site
from ops.stack.errors import StackError
from streams.topics import AD_COUNTERS, AD_COUNTERS_CHANGELOG, AD_EVENTS, APP_ID
from streams.watermarks import DAY_S

UNIT: Final = "events/s"
WORKER: Final = ("worker", "--agents", AD_COUNTERS)
POLL_S: Final = 0.02
TIMEOUT_S: Final = 180.0
CHECKED_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Size:
    """How much is counted. A contender stops after `contender_events`: its pace is steady by then."""

    rounds: int
    ads: int
    events: int
    contender_events: int
    contenders: tuple[str, ...]


LOOP, LOOP_DEDUPE = "aiokafka + dict", "aiokafka + dict, dedupe"
QUIX, QUIX_DEDUPE = "quix streams", "quix streams, dedupe"
STREAMS, STREAMS_EOS = "kafka streams at-least-once", "kafka streams exactly-once"
STREAMS_DEDUPE, STREAMS_EOS_DEDUPE = f"{STREAMS}, dedupe", f"{STREAMS_EOS}, dedupe"
ALL: Final = (LOOP, LOOP_DEDUPE, QUIX, QUIX_DEDUPE, STREAMS, STREAMS_EOS, STREAMS_DEDUPE, STREAMS_EOS_DEDUPE)

FULL: Final = Size(rounds=3, ads=10_000, events=1_500_000, contender_events=600_000, contenders=ALL)
QUICK: Final = Size(rounds=1, ads=200, events=60_000, contender_events=30_000, contenders=(LOOP_DEDUPE, QUIX, STREAMS))
MODES: Final = {False: "count", True: "dedupe"}

NOTES: Final = {
    LOOP: "nothing kept, nothing shown, repeats counted",
    LOOP_DEDUPE: "nothing kept, nothing shown",
    QUIX: "state and changelog; repeats counted, nothing shown",
    QUIX_DEDUPE: "a mark an event in its state; nothing shown",
    STREAMS: "one thread; state and changelog; repeats counted, nothing shown",
    STREAMS_EOS: "one thread; the same in transactions",
    STREAMS_DEDUPE: "one thread; a mark an event in a second store",
    STREAMS_EOS_DEDUPE: "one thread; the same in transactions",
}


async def run(plan: Plan) -> list[Result]:
    """The worker, then each contender, alone on the machine with broker and Valkey, round after round."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with site("postgres", "kafka", "redis") as found:
        topic = await Topic.filled(found, size, plan)
        contenders = Contenders(found, size).chosen()
        for n in range(size.rounds):
            rounds.add("worker", await topic.count_with_worker(n), UNIT)
            plan.say(f"worker: round {n + 1} of {size.rounds}: {rounds.last('worker'):,.0f} events/s, exact")
            for name, pace in contenders.items():
                rounds.add(name, (await pace()).events_per_s, UNIT)
                plan.say(f"worker: round {n + 1} of {size.rounds}: {name}: {rounds.last(name):,.0f} events/s")
    share = topic.filling.duplicates / topic.filling.events
    exact = f"{topic.filling.events:,} events, {share:.1%} of them repeats; counts equal the truth"
    return [
        rounds.result("worker", note=exact),
        *(rounds.result("worker", against=name) for name in contenders),
        *(rounds.result(name, note=NOTES[name]) for name in contenders),
    ]


class Topic:
    """The filled topic, and the worker on it."""

    def __init__(self, found: BenchSite, filling: Filling, day: int) -> None:
        self._site, self.filling, self._day = found, filling, day
        self._shards = found.settings.ad_shards

    @classmethod
    async def filled(cls, found: BenchSite, size: Size, plan: Plan) -> Topic:
        """Ads in Postgres and their events in the topic."""
        ads = [new_id() for _ in range(size.ads)]
        await make_ads(found.settings, ads)
        noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
        start_s = int(noon.timestamp())
        filling = await fill(found.brokers, ads, events=size.events, shards=found.settings.ad_shards, start_s=start_s)
        plan.say(f"worker: {filling.events:,} events of {size.ads:,} ads in {filling.records:,} records and ticks")
        return cls(found, filling, start_s // DAY_S)

    async def count_with_worker(self, n: int) -> float:
        """Events a second of a worker that starts from nothing. StackError when a count is wrong."""
        await forget_worker(self._site)
        link = RedisLink(self._site.addresses["REDIS_URL"])
        await link.connect()
        process = self._site.process(f"worker-{n}", *WORKER)
        try:
            await link.execute("FLUSHALL")
            process.start()
            pace = await self._pace(link, process)
            await self._check(link)
        finally:
            await process.stop()
            await link.close()
        return pace

    async def _pace(self, link: RedisLink, process: Process) -> float:
        """From the first watermark in Redis to the last: all that it covers is published by then."""
        deadline, began, before, covered = time.monotonic() + TIMEOUT_S, 0.0, 0, 0
        while covered < self.filling.events:
            await asyncio.sleep(POLL_S)
            process.check()
            covered, now = await self._covered(link), time.monotonic()
            if covered and not before:
                began, before = now, covered
            if now > deadline:
                raise StackError(f"worker: {covered:,} of {self.filling.events:,} events after {TIMEOUT_S:.0f} s")
        return (covered - before) / (now - began)

    async def _covered(self, link: RedisLink) -> int:
        """How many events the shards' watermarks cover."""
        asked = [link.execute("HGET", gate_key(shard), "watermark_us") for shard in self.filling.until_tick]
        marks = await asyncio.gather(*asked)
        pairs = zip(self.filling.until_tick.values(), marks, strict=True)
        return sum(0 if mark is None else until[int(mark)] for until, mark in pairs)

    async def _check(self, link: RedisLink) -> None:
        """StackError unless Redis holds exactly what was sent, once each."""
        wanted = list(self.filling.counts.items())
        for begin in range(0, len(wanted), CHECKED_AT_ONCE):
            part = wanted[begin : begin + CHECKED_AT_ONCE]
            found = await asyncio.gather(*(self._counted(link, ad_id) for ad_id, _ in part))
            wrong = [ad_id.hex() for (ad_id, counts), had in zip(part, found, strict=True) if counts != had]
            if wrong:
                raise StackError(f"worker: wrong counts of {len(wrong)} ads, {wrong[0]} the first of them")

    async def _counted(self, link: RedisLink, ad_id: bytes) -> list[int]:
        key = day_key(shard_of(UUID(bytes=ad_id), self._shards), self._day, ad_id)
        values: Sequence[bytes | None] = await link.execute("HMGET", key, "impressions", "clicks", "settled")
        return [int(value or 0) for value in values]


async def forget_worker(found: BenchSite) -> None:
    """Take away what workers have left in Kafka and Postgres, so that the next one starts from nothing."""
    await asyncio.to_thread(_forget_in_kafka, found.brokers)
    engine = create_async_engine(found.settings.sqlalchemy_url)
    async with engine.begin() as tx:
        await tx.execute(text("TRUNCATE ad_gate_epochs"))
    await engine.dispose()


def _forget_in_kafka(brokers: str) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    if APP_ID in {group.group_id for group in admin.list_consumer_groups().result().valid}:
        admin.delete_consumer_groups([APP_ID])[APP_ID].result()
    if AD_COUNTERS_CHANGELOG in admin.list_topics(timeout=10).topics:
        admin.delete_topics([AD_COUNTERS_CHANGELOG])[AD_COUNTERS_CHANGELOG].result()


class Contenders:
    """The others, each a process that stops after `contender_events`."""

    def __init__(self, found: BenchSite, size: Size) -> None:
        self._site, self._events, self._names = found, str(size.contender_events), size.contenders
        self._runs = 0

    def chosen(self) -> dict[str, Callable[[], Awaitable[Pace]]]:
        """Those of the size, by name, in the order in which they take turns."""
        every: dict[str, Callable[[], Awaitable[Pace]]] = {
            LOOP: lambda: self._loop(dedupe=False),
            LOOP_DEDUPE: lambda: self._loop(dedupe=True),
            QUIX: lambda: self._quix(dedupe=False),
            QUIX_DEDUPE: lambda: self._quix(dedupe=True),
            STREAMS: lambda: self._streams("at_least_once", dedupe=False),
            STREAMS_EOS: lambda: self._streams("exactly_once_v2", dedupe=False),
            STREAMS_DEDUPE: lambda: self._streams("at_least_once", dedupe=True),
            STREAMS_EOS_DEDUPE: lambda: self._streams("exactly_once_v2", dedupe=True),
        }
        return {name: every[name] for name in self._names}

    async def _loop(self, *, dedupe: bool) -> Pace:
        return await self._pace("ops.bench.aiokafka_loop", MODES[dedupe], self._events)

    async def _quix(self, *, dedupe: bool) -> Pace:
        return await self._pace("ops.bench.quix_streams", MODES[dedupe], self._events, self._directory())

    async def _streams(self, guarantee: str, *, dedupe: bool) -> Pace:
        directory = self._directory()
        name = f"bench-{self._runs}"
        arguments = (self._site.brokers, AD_EVENTS, name, directory, guarantee, MODES[dedupe], self._events)
        return await self._run(await kafka_streams_jar.command(*arguments))

    async def _pace(self, module: str, *arguments: str) -> Pace:
        return await self._run((sys.executable, "-m", module, self._site.brokers, AD_EVENTS, *arguments))

    async def _run(self, argv: Sequence[str]) -> Pace:
        log = self._site.root / "contender.log"
        return await pace_of(argv, log, environment=dict(os.environ), timeout_s=TIMEOUT_S)

    def _directory(self) -> str:
        self._runs += 1
        path = self._site.root / f"contender-{self._runs}"
        path.mkdir()
        return str(path)

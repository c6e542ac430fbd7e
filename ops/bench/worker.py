"""One worker's events a second, exact, with dedupe and publishing, against other ways to count the same topic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
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
from ops.bench.ad_rows import make_ads
from ops.bench.ad_topic import Filling, fill
from ops.bench.contenders import ALL, SOME, Contender
from ops.bench.results import Plan, Result, Rounds
from ops.bench.site import BenchSite, Process, site
from ops.stack.errors import StackError
from streams.topics import AD_COUNTERS, AD_COUNTERS_CHANGELOG, APP_ID
from streams.watermarks import DAY_S

UNIT: Final = "events/s"
WORKER: Final = ("worker", "--agents", AD_COUNTERS)
POLL_S: Final = 0.02
TIMEOUT_S: Final = 180.0
CHECKED_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Size:
    """How much is counted, and by whom. `contender_events`: instead of the contender's own number."""

    rounds: int
    ads: int
    events: int
    contenders: tuple[Contender, ...]
    contender_events: int | None


FULL: Final = Size(rounds=3, ads=10_000, events=1_500_000, contenders=ALL, contender_events=None)
QUICK: Final = Size(rounds=1, ads=200, events=60_000, contenders=SOME, contender_events=30_000)


async def run(plan: Plan) -> list[Result]:
    """The worker, then each contender, alone on the machine with broker and Valkey, round after round."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with site("postgres", "kafka", "redis") as found:
        topic = await Topic.filled(found, size, plan)
        for n in range(size.rounds):
            turn = f"worker: round {n + 1} of {size.rounds}"
            rounds.add("worker", await topic.count_with_worker(n), UNIT)
            plan.say(f"{turn}: {rounds.last('worker'):,.0f} events/s, exact")
            for contender in size.contenders:
                pace = await contender.pace(found, quick_events=size.contender_events)
                rounds.add(contender.name, pace.events_per_s, UNIT)
                plan.say(f"{turn}: {contender.name}: {pace.events_per_s:,.0f} events/s")
    share = topic.filling.duplicates / topic.filling.events
    exact = f"{topic.filling.events:,} events, {share:.1%} of them repeats; counts equal the truth"
    return [
        rounds.result("worker", note=exact),
        *(rounds.result("worker", against=contender.name) for contender in size.contenders),
        *(rounds.result(contender.name, note=contender.note) for contender in size.contenders),
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

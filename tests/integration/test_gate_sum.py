"""The gate's running sum against summing every field at every offer: the same history, the same decisions."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from models.ads.gateway import ADMIT, CounterSink, DayCounters, Gate, Offer, day_key
from models.ads.rules import CANDIDATES_MAX, day_from_number, shard_of
from models.redis import RedisLink, Script

SHARDS, TTL_S, SKEW_S = 2, 1800, 5
GRACE_S = TTL_S + SKEW_S
DAY = 20_000
START_S = (DAY + 1) * 86_400 - 3600  #: the history crosses midnight
MICROS = 1_000_000
STEPS = 500
FULL_SUM = Script((Path(__file__).parent / "full_sum.lua").read_text())


class FullSumLink(RedisLink):
    """A link whose gate sums everything at every offer."""

    async def script(self, script: Script, *, keys: Any, args: Any) -> Any:
        return await super().script(FULL_SUM if script is ADMIT else script, keys=keys, args=args)


class Side:
    """A gate and its agent, on a logical database of their own."""

    def __init__(self, link: RedisLink) -> None:
        self.link = link
        self.gate = Gate(link, shards=SHARDS, token_ttl_s=TTL_S, skew_s=SKEW_S)
        self.sink = CounterSink(link)

    async def open(self, shard: int, watermark_s: int) -> None:
        await self.sink.publish(shard, watermark_us=watermark_s * MICROS, ticked=True, days=())
        assert await self.sink.begin_seeding(shard, "mark", seen=None)
        assert await self.sink.open(shard, mark="mark", epoch=uuid4())


@asynccontextmanager
async def linked(link: RedisLink) -> AsyncIterator[Side]:
    await link.connect()
    await link.ping()
    try:
        yield Side(link)
    finally:
        await link.close()


@pytest.fixture
async def sides(own_redis: str) -> AsyncIterator[tuple[Side, Side]]:
    """The gate as it is, and the yardstick."""
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(linked(RedisLink(own_redis)))
        full = await stack.enter_async_context(linked(FullSumLink(own_redis.removesuffix("/0") + "/1")))
        yield running, full


class History:
    """Anything that may happen to a shard's hashes, in any order, the same on both sides."""

    def __init__(self, sides: tuple[Side, Side], seed: int) -> None:
        self.sides, self.random = sides, random.Random(seed)
        self.watermark_s = dict.fromkeys(range(SHARDS), START_S)
        self.ads = [UUID(int=self.random.getrandbits(128)) for _ in range(8)]
        self.reserved: dict[tuple[UUID, int], int] = {}
        self.counters: dict[tuple[UUID, int], dict[int, int]] = {}
        self.events = 0
        self.published: list[tuple[int, DayCounters]] = []
        self.said: dict[str, int] = {}

    async def serve(self) -> None:
        rng = self.random
        iat_s = max(self.watermark_s.values()) - rng.choice([0, 0, 0, 30, 90, 600, GRACE_S, GRACE_S + 60])
        lineup = rng.sample(self.ads, rng.randrange(1, CANDIDATES_MAX + 1))
        offers = [Offer(ad, rng.choice([7, 333, 1000]), rng.choice([0, 3000, 8000, 8001, 20_000])) for ad in lineup]
        verdicts = [
            await side.gate.admit(offers, iat_s=iat_s, buyer="b", serves_per_minute=10**9) for side in self.sides
        ]
        assert verdicts[0] == verdicts[1]
        for code in verdicts[0].refused:
            self.said[code] = self.said.get(code, 0) + 1
        winner = verdicts[0].admitted
        if winner is not None:
            self.said["admitted"] = self.said.get("admitted", 0) + 1
            key = offers[winner].ad_id, iat_s // 60
            self.reserved[key] = self.reserved.get(key, 0) + offers[winner].cost_micros

    async def settle(self) -> None:
        """Part of a minute's reservations, sometimes more than was reserved, sometimes of a minute never reserved."""
        rng = self.random
        if not self.reserved:
            return
        for ad_id, minute in rng.sample(sorted(self.reserved), min(len(self.reserved), rng.randrange(1, 4))):
            minute += rng.choice([0] * 9 + [1])
            minutes = self.counters.setdefault((ad_id, minute // 1440), {})
            reserved = self.reserved.get((ad_id, minute), 500)
            minutes[minute] = max(minutes.get(minute, 0), int(reserved * rng.choice([0.3, 0.7, 1, 1, 1.2])))
            await self._publish_ad(ad_id, minute // 1440)

    async def go_back(self) -> None:
        """Counters that no agent shows: newer, and yet a minute has less than before."""
        if self.counters:
            ad_id, day = self.random.choice(sorted(self.counters))
            minutes = self.counters[ad_id, day]
            minute = self.random.choice(sorted(minutes))
            minutes[minute] //= 2
            await self._publish_ad(ad_id, day)

    async def repeat(self) -> None:
        """Counters of before, again."""
        if self.published:
            shard, counters = self.random.choice(self.published)
            await self._publish(shard, [counters])

    async def tick(self) -> None:
        shard = self.random.randrange(SHARDS)
        self.watermark_s[shard] += self.random.choice([0, 1, 20, 61, 61, 300, 1900])
        await self._publish(shard, [], watermark_us=self.watermark_s[shard] * MICROS)

    async def lose_ad(self) -> None:
        """The hash of an ad's day goes, as if evicted."""
        ad_id, day = self.random.choice(self.ads), self.random.choice([DAY, DAY + 1])
        for side in self.sides:
            await side.link.execute("DEL", day_key(shard_of(ad_id, SHARDS), day, ad_id.bytes))

    async def lose_all(self) -> None:
        """Everything goes; the gates are seeded with what was counted, and open again."""
        for side in self.sides:
            await side.link.execute("FLUSHDB")
        for ad_id, day in list(self.counters):
            await self._publish_ad(ad_id, day)
        for side in self.sides:
            for shard, watermark_s in self.watermark_s.items():
                await side.open(shard, watermark_s)

    async def check(self) -> None:
        for ad_id in self.ads:
            for day in (DAY, DAY + 1):
                shown = [await side.gate.live(ad_id, day_from_number(day)) for side in self.sides]
                assert shown[0] == shown[1]

    async def _publish_ad(self, ad_id: UUID, day: int) -> None:
        minutes, shard = self.counters[ad_id, day], shard_of(ad_id, SHARDS)
        self.events += 1
        still_open = [(m, v) for m, v in minutes.items() if (m + 1) * 60 + GRACE_S > self.watermark_s[shard]]
        flat = tuple(number for pair in still_open for number in pair)
        counters = (ad_id.bytes, day, self.events, self.events, 0, sum(minutes.values()), flat)
        self.published.append((shard, counters))
        await self._publish(shard, [counters])

    async def _publish(self, shard: int, days: list[DayCounters], watermark_us: int | None = None) -> None:
        for side in self.sides:
            await side.sink.publish(shard, watermark_us=watermark_us, ticked=watermark_us is not None, days=days)


@pytest.mark.parametrize("seed", range(10))
async def test_the_running_sum_decides_as_the_full_sum_does_in_any_history(sides: tuple[Side, Side], seed: int) -> None:
    for side in sides:
        for shard in range(SHARDS):
            await side.open(shard, START_S)
    history = History(sides, seed)
    steps = [history.serve] * 24 + [history.settle] * 8 + [history.tick] * 5 + [history.repeat] * 2
    steps += [history.go_back] * 2 + [history.lose_ad]
    for n in range(STEPS):
        await history.random.choice(steps)()
        if n % 200 == 199:
            await history.lose_all()
        if n % 20 == 0:
            await history.check()
    await history.check()
    assert min(history.said[word] for word in ("admitted", "budget_exhausted", "gate_closed")) > 5


def ad_of_shard_0() -> UUID:
    return next(ad for ad in iter(uuid4, None) if shard_of(ad, SHARDS) == 0)


async def admitted(side: Side, *offers: Offer, iat_s: int = START_S) -> int | None:
    return (await side.gate.admit(offers, iat_s=iat_s, buyer="b", serves_per_minute=10**9)).admitted


async def test_counters_that_go_back_in_a_minute_let_nothing_more_through(sides: tuple[Side, Side]) -> None:
    ad_id, minute = ad_of_shard_0(), START_S // 60
    for side in sides:
        await side.open(0, START_S)
        assert [await admitted(side, Offer(ad_id, 100, 1000)) for _ in range(11)] == [0] * 10 + [None]
        for events, settled in ((10, 1000), (11, 500)):
            day: DayCounters = (ad_id.bytes, DAY, events, events, 0, settled, (minute, settled))
            await side.sink.publish(0, watermark_us=None, ticked=False, days=[day])
            assert await admitted(side, Offer(ad_id, 100, 1000)) is None


async def test_only_the_first_offer_after_a_change_reads_the_minutes(sides: tuple[Side, Side]) -> None:
    running, ad_id, minute = sides[0], ad_of_shard_0(), START_S // 60
    plenty, nothing = Offer(ad_id, 100, 10**9), Offer(ad_id, 100, 0)

    async def sums(offers: int) -> int:
        """How often all fields are read while an offer is refused, and then one admitted, so many times."""
        await running.link.execute("CONFIG", "RESETSTAT")
        for _ in range(offers):
            assert await admitted(running, nothing, plenty) == 1
        said = (await running.link.execute("INFO", "commandstats")).decode()
        found = [line for line in said.splitlines() if line.startswith("cmdstat_hgetall:calls=")]
        return int(found[0].partition("=")[2].partition(",")[0]) if found else 0

    await running.open(0, START_S)
    for back in range(29):
        await admitted(running, plenty, iat_s=START_S - 60 * back)
    assert await sums(20) == 0
    day: DayCounters = (ad_id.bytes, DAY, 1, 1, 0, 100, (minute, 100))
    await running.sink.publish(0, watermark_us=None, ticked=False, days=[day])
    assert await sums(20) == 1
    await running.sink.publish(0, watermark_us=(START_S + 240) * MICROS, ticked=True, days=())
    assert await sums(20) == 1

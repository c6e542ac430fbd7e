"""The budget gate in Lua on a real Valkey, against the plainest model of it: no order of things spends too much."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from models.ads.gateway import STALE_S, CounterSink, DayCounters, Gate, Offer, day_key, gate_key
from models.ads.rules import CANDIDATES_MAX, day_from_number, shard_of
from models.redis import RedisLink

SHARDS, TTL_S, SKEW_S = 2, 1800, 5
GRACE_S = TTL_S + SKEW_S
DAY = 20_000
START_S = DAY * 86_400 + 6 * 3600
MICROS = 1_000_000


@pytest.fixture
async def link(own_redis: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(own_redis)
    await link.connect()
    await link.ping()
    yield link
    await link.close()


@pytest.fixture
def gate(link: RedisLink) -> Gate:
    return Gate(link, shards=SHARDS, token_ttl_s=TTL_S, skew_s=SKEW_S)


@pytest.fixture
def sink(link: RedisLink) -> CounterSink:
    return CounterSink(link)


async def open_gate(sink: CounterSink, shard: int, *, watermark_s: int = START_S) -> UUID:
    """A brand-new shard's gate, opened as its owner does."""
    epoch = uuid4()
    await sink.publish(shard, watermark_us=watermark_s * MICROS, ticked=True, days=())
    assert await sink.begin_seeding(shard, "mark", seen=None)
    assert await sink.open(shard, mark="mark", epoch=epoch)
    return epoch


def ads_of(shard: int, count: int) -> list[UUID]:
    found: list[UUID] = []
    while len(found) < count:
        ad_id = uuid4()
        if shard_of(ad_id, SHARDS) == shard:
            found.append(ad_id)
    return found


async def admit(gate: Gate, *offers: Offer, iat_s: int = START_S) -> tuple[int | None, list[str]]:
    verdict = await gate.admit(offers, iat_s=iat_s, buyer="b", serves_per_minute=10**9)
    return verdict.admitted, list(verdict.refused)


@dataclass
class Ad:
    """The model of one ad's day."""

    ad_id: UUID
    shard: int
    cost: int
    budget: int
    settled: int = 0
    events: int = 0
    reserved: dict[int, int] = field(default_factory=dict)
    settled_of: dict[int, int] = field(default_factory=dict)

    def held(self, watermark_s: int) -> int:
        return sum(
            max(0, value - self.settled_of.get(minute, 0))
            for minute, value in self.reserved.items()
            if (minute + 1) * 60 + GRACE_S > watermark_s
        )

    def counters(self, watermark_s: int) -> DayCounters:
        minutes = [(m, v) for m, v in self.settled_of.items() if (m + 1) * 60 + GRACE_S > watermark_s]
        flat = tuple(number for pair in minutes for number in pair)
        return self.ad_id.bytes, DAY, self.events, self.events, 0, self.settled, flat


@dataclass
class Token:
    ad: Ad
    iat_s: int


class Model:
    """Serves, settlements and watermarks in any order; the gate must say what the model says."""

    def __init__(self, gate: Gate, sink: CounterSink, seed: int) -> None:
        self.gate, self.sink, self.random = gate, sink, random.Random(seed)
        self.watermark_s = dict.fromkeys(range(SHARDS), START_S)
        self.ads = [self._ad(shard) for shard in range(SHARDS) for _ in range(5)]
        self.tokens: list[Token] = []
        self.admitted = self.refused = self.closed = 0

    def _ad(self, shard: int) -> Ad:
        cost = self.random.choice([7, 333, 1000])
        return Ad(ads_of(shard, 1)[0], shard, cost, cost * self.random.randrange(1, 12) + self.random.randrange(cost))

    def _expected(self, ad: Ad, cost: int, budget: int, minute: int) -> str:
        watermark_s = self.watermark_s[ad.shard]
        if (minute + 1) * 60 + GRACE_S <= watermark_s:
            return "gate_closed"
        fits = ad.settled + ad.held(watermark_s) + cost <= budget
        return "admitted" if fits else "budget_exhausted"

    async def serve(self) -> None:
        latest = max(self.watermark_s.values())
        iat_s = latest + self.random.randrange(-GRACE_S - 120, 5)
        lineup = self.random.sample(self.ads, self.random.randrange(1, CANDIDATES_MAX + 1))
        refused: list[str] = []
        winner = None
        for n, ad in enumerate(lineup):
            said = self._expected(ad, ad.cost, ad.budget, iat_s // 60)
            if said == "admitted":
                winner = n
                break
            refused.append(said)
        offers = [Offer(ad.ad_id, ad.cost, ad.budget) for ad in lineup]
        assert await admit(self.gate, *offers, iat_s=iat_s) == (winner, refused)
        self.refused += refused.count("budget_exhausted")
        self.closed += refused.count("gate_closed")
        if winner is not None:
            self.admitted += 1
            ad = lineup[winner]
            ad.reserved[iat_s // 60] = ad.reserved.get(iat_s // 60, 0) + ad.cost
            self.tokens.append(Token(ad, iat_s))

    async def settle(self) -> None:
        """Some tokens become impressions; those past their end cannot any more."""
        touched: list[Ad] = []
        for token in self.random.sample(self.tokens, min(len(self.tokens), self.random.randrange(4))):
            self.tokens.remove(token)
            if token.iat_s + GRACE_S <= self.watermark_s[token.ad.shard]:
                continue
            minute = token.iat_s // 60
            token.ad.settled += token.ad.cost
            token.ad.events += 1
            token.ad.settled_of[minute] = token.ad.settled_of.get(minute, 0) + token.ad.cost
            touched.append(token.ad)
        for shard in range(SHARDS):
            days = [ad.counters(self.watermark_s[shard]) for ad in touched if ad.shard == shard]
            for _ in range(self.random.randrange(1, 3)):
                await self.sink.publish(shard, watermark_us=None, ticked=False, days=days)

    async def tick(self) -> None:
        shard = self.random.randrange(SHARDS)
        step_s = self.random.choice([0, 1, 1, 30, 61, 600])
        self.watermark_s[shard] = min(self.watermark_s[shard] + step_s, START_S + 8 * 3600)
        for back_s in self.random.sample([0, 0, 1, 100], 2):  # an old watermark changes nothing
            at_us = (self.watermark_s[shard] - back_s) * MICROS
            await self.sink.publish(shard, watermark_us=at_us, ticked=True, days=())
        await self.sink.publish(shard, watermark_us=self.watermark_s[shard] * MICROS, ticked=True, days=())

    async def check(self) -> None:
        """Never settled + held > budget, by the gate's own account."""
        for ad in self.ads:
            live = await self.gate.live(ad.ad_id, day_from_number(DAY))
            assert (live.spend_micros, live.reserved_micros) == (ad.settled, ad.held(self.watermark_s[ad.shard]))
            assert live.spend_micros + live.reserved_micros <= ad.budget


@pytest.mark.parametrize("seed", range(8))
async def test_no_order_of_serves_settlements_and_watermarks_spends_more_than_the_budget(
    gate: Gate, sink: CounterSink, seed: int
) -> None:
    for shard in range(SHARDS):
        await open_gate(sink, shard)
    model = Model(gate, sink, seed)
    for n in range(400):
        await model.random.choice([model.serve, model.serve, model.settle, model.tick])()
        if n % 20 == 0:
            await model.check()
    await model.check()
    assert model.admitted > 20
    assert model.refused > 20
    assert model.closed > 5


async def test_a_thousand_serves_at_once_share_one_budget(gate: Gate, sink: CounterSink) -> None:
    await open_gate(sink, 0)
    [ad_id] = ads_of(0, 1)
    offer = Offer(ad_id, 100, 2_599)
    verdicts = await asyncio.gather(*(admit(gate, offer, iat_s=START_S + n % 300) for n in range(1000)))
    assert sum(admitted == 0 for admitted, _ in verdicts) == 25


async def test_a_lower_budget_is_in_force_at_once(gate: Gate, sink: CounterSink) -> None:
    await open_gate(sink, 0)
    [ad_id] = ads_of(0, 1)
    assert await admit(gate, Offer(ad_id, 100, 1000)) == (0, [])
    assert await admit(gate, Offer(ad_id, 100, 199)) == (None, ["budget_exhausted"])
    assert await admit(gate, Offer(ad_id, 100, 200)) == (0, [])


async def test_a_closed_minute_takes_no_reservation(gate: Gate, sink: CounterSink) -> None:
    minute_end = START_S + 60
    await open_gate(sink, 0, watermark_s=minute_end + GRACE_S - 1)
    offer = Offer(ads_of(0, 1)[0], 1, 100)
    assert await admit(gate, offer, iat_s=minute_end - 1) == (0, [])
    await sink.publish(0, watermark_us=(minute_end + GRACE_S) * MICROS, ticked=True, days=())
    assert await admit(gate, offer, iat_s=minute_end - 1) == (None, ["gate_closed"])
    assert await admit(gate, offer, iat_s=minute_end) == (0, [])


async def test_a_gate_without_a_recent_tick_is_closed(gate: Gate, sink: CounterSink, link: RedisLink) -> None:
    await open_gate(sink, 0)
    offer = Offer(ads_of(0, 1)[0], 1, 100)

    async def last_tick_was(seconds: int) -> None:
        time_s, _ = await link.execute("TIME")
        await link.execute("HSET", gate_key(0), "ticked_us", (int(time_s) - seconds) * MICROS)

    await last_tick_was(STALE_S - 5)
    assert await admit(gate, offer) == (0, [])
    await last_tick_was(STALE_S + 2)
    assert await admit(gate, offer) == (None, ["gate_closed"])
    await sink.publish(0, watermark_us=None, ticked=False, days=())  # counters alone are no tick
    assert await admit(gate, offer) == (None, ["gate_closed"])
    await sink.publish(0, watermark_us=START_S * MICROS, ticked=True, days=())
    assert await admit(gate, offer) == (0, [])


@pytest.mark.parametrize("missing", ["run_id", "watermark_us", "ticked_us"])
async def test_a_gate_that_lacks_anything_is_closed(
    gate: Gate, sink: CounterSink, link: RedisLink, missing: str
) -> None:
    await open_gate(sink, 0)
    await link.execute("HDEL", gate_key(0), missing)
    assert await admit(gate, Offer(ads_of(0, 1)[0], 1, 100)) == (None, ["gate_closed"])


async def test_a_gate_of_another_server_is_closed(gate: Gate, sink: CounterSink, link: RedisLink) -> None:
    await open_gate(sink, 0)
    await link.execute("HSET", gate_key(0), "run_id", "f" * 40)
    assert await admit(gate, Offer(ads_of(0, 1)[0], 1, 100)) == (None, ["gate_closed"])


async def test_counters_and_watermarks_only_move_forward(gate: Gate, sink: CounterSink, link: RedisLink) -> None:
    rng = random.Random(5)
    ads = ads_of(0, 6)
    snapshots: list[tuple[int, list[DayCounters]]] = []
    counts = dict.fromkeys(ads, 0)
    for n in range(40):
        touched = rng.sample(ads, 3)
        for ad_id in touched:
            counts[ad_id] += rng.randrange(1, 4)
        days: list[DayCounters] = [
            (ad.bytes, DAY, counts[ad], counts[ad], 0, 10 * counts[ad], (START_S // 60, 10 * counts[ad]))
            for ad in touched
        ]
        snapshots.append((START_S + n, days))
    shuffled = snapshots * 3
    rng.shuffle(shuffled)
    best: dict[bytes, int] = {}
    newest = 0
    for at_s, days in shuffled:
        await sink.publish(0, watermark_us=at_s * MICROS, ticked=True, days=days)
        newest = max(newest, at_s)
        assert await link.execute("HGET", gate_key(0), "watermark_us") == str(newest * MICROS).encode()
        for ad_bytes, _, events, *_ in days:
            best[ad_bytes] = max(best.get(ad_bytes, 0), events)
            fields = ("impressions", "settled", f"S{START_S // 60}")
            found = await link.execute("HMGET", day_key(0, DAY, ad_bytes), *fields)
            assert [int(value) for value in found] == [best[ad_bytes], 10 * best[ad_bytes], 10 * best[ad_bytes]]
    assert best == {ad_id.bytes: count for ad_id, count in counts.items() if count}


async def test_seeding_closes_only_the_gate_that_was_seen(gate: Gate, sink: CounterSink) -> None:
    epoch = await open_gate(sink, 0)
    offer = Offer(ads_of(0, 1)[0], 1, 100)
    assert not await sink.begin_seeding(0, "late", seen=None)  # a former owner, who still believes it was never opened
    assert await admit(gate, offer) == (0, [])
    assert await sink.begin_seeding(0, "next", seen=str(epoch))
    assert await admit(gate, offer) == (None, ["gate_closed"])
    assert not await sink.open(0, mark="late", epoch=uuid4())
    assert await sink.open(0, mark="next", epoch=uuid4())
    assert await admit(gate, offer) == (0, [])


async def test_a_loss_during_seeding_keeps_the_gate_closed(gate: Gate, sink: CounterSink, link: RedisLink) -> None:
    await sink.publish(0, watermark_us=START_S * MICROS, ticked=True, days=())
    assert await sink.begin_seeding(0, "mark", seen=None)
    await link.execute("FLUSHALL")
    assert not await sink.open(0, mark="mark", epoch=uuid4())
    await sink.publish(0, watermark_us=START_S * MICROS, ticked=True, days=())
    assert await admit(gate, Offer(ads_of(0, 1)[0], 1, 100)) == (None, ["gate_closed"])

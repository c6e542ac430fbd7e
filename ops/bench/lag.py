"""From the 202 answer of an impression until its ad's live counter in Redis has it, at a steady rate."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from models.ads.gateway import day_key
from models.ads.rules import day_number, day_of, shard_of
from models.redis import RedisLink
from ops.bench.http_client import Connection, connect
from ops.bench.marketplace import Marketplace, marketplace
from ops.bench.results import Plan, Result, Rounds, percentile
from ops.stack.errors import StackError

ADS: Final = 1000  #: events take turns over them, so that each has its own place in a counter
CONNECTIONS: Final = 64
POLL_S: Final = 0.002
TIMEOUT_S: Final = 30.0
ACCEPTED: Final = 202


@dataclass(frozen=True, slots=True)
class Size:
    """The rate, how long, and how often."""

    rounds: int
    events_per_s: int
    warm_up_s: float
    seconds: float


FULL: Final = Size(rounds=3, events_per_s=500, warm_up_s=5.0, seconds=10.0)
QUICK: Final = Size(rounds=1, events_per_s=50, warm_up_s=0.2, seconds=1.0)


async def run(plan: Plan) -> list[Result]:
    """Rounds of a steady rate; their p50, p99 and worst."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with marketplace(ads=ADS, buyers=1) as market:
        link = RedisLink(market.site.addresses["REDIS_URL"])
        await link.connect()
        counters = Counters(market, link)
        for n in range(size.rounds):
            lags_ms = await counters.round(size)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0)):
                rounds.add(f"lag: {name}", percentile(lags_ms, share), "ms")
            plan.say(
                f"lag: round {n + 1} of {size.rounds}: p50 {rounds.last('lag: p50'):.0f} ms, "
                f"p99 {rounds.last('lag: p99'):.0f} ms of {len(lags_ms):,} impressions"
            )
        await link.close()
    note = f"{size.events_per_s} impressions/s; polled every {POLL_S * 1000:.0f} ms"
    return [rounds.result(f"lag: {name}", note=note) for name in ("p50", "p99", "worst")]


@dataclass(slots=True)
class Pending:
    """An impression that was answered and is not yet seen in the counter."""

    number: int  #: the ad's impressions once this one is counted
    answered: float


class Counters:
    """What was sent to each ad, and when its counter showed it."""

    def __init__(self, market: Marketplace, link: RedisLink) -> None:
        self._market, self._link = market, link
        self._shards = market.site.settings.ad_shards
        self._sent = [0] * len(market.ads)
        self._waiting: dict[int, deque[Pending]] = {}
        self._lags_ms: list[float] = []
        self._counts_from = 0.0
        self._refused: list[int] = []

    async def round(self, size: Size) -> list[float]:
        """Send at the rate and watch until the last impression is counted; milliseconds, each impression's."""
        self._lags_ms.clear()
        count = int(size.events_per_s * (size.warm_up_s + size.seconds))
        ads = [n % len(self._sent) for n in range(count)]
        requests = self._market.impressions(count, ads=ads)
        began = time.perf_counter()
        self._counts_from = began + size.warm_up_s
        watching = asyncio.create_task(self._watch(count))
        await self._send(requests, ads, began, size.events_per_s)
        await watching
        return sorted(self._lags_ms)

    async def _send(self, requests: Sequence[bytes], ads: Sequence[int], began: float, rate: int) -> None:
        free: deque[Connection] = deque()
        asked: dict[Connection, int] = {}
        free.extend(await connect(self._market.port, CONNECTIONS, partial(self._answered, free, asked)))
        every = list(free)
        for n, (request, ad) in enumerate(zip(requests, ads, strict=True)):
            while time.perf_counter() < began + n / rate or not free:
                await asyncio.sleep(0.001)
            connection = free.popleft()
            asked[connection] = ad
            connection.ask(request, time.perf_counter())
        while len(free) < len(every):
            await asyncio.sleep(0.001)
        for connection in every:
            connection.close()

    def _answered(
        self, free: deque[Connection], asked: dict[Connection, int], connection: Connection, status: int, _: float
    ) -> None:
        if status != ACCEPTED:
            self._refused.append(status)
        ad = asked[connection]
        self._sent[ad] += 1
        self._waiting.setdefault(ad, deque()).append(Pending(self._sent[ad], time.perf_counter()))
        free.append(connection)

    async def _watch(self, count: int) -> None:
        """Poll the counters of ads that have pending impressions until all `count` were seen."""
        seen, deadline = 0, time.monotonic() + TIMEOUT_S + count / 100
        while seen < count:
            await asyncio.sleep(POLL_S)
            ads = list(self._waiting)
            found = await asyncio.gather(*(self._impressions(ad) for ad in ads))
            now = time.perf_counter()
            if self._refused:
                raise StackError(f"lag: impressions were answered with {set(self._refused)}")
            seen += sum(self._seen(ad, number, now) for ad, number in zip(ads, found, strict=True))
            if time.monotonic() > deadline:
                raise StackError(f"lag: {count - seen} of {count} impressions do not appear in the counters")

    def _seen(self, ad: int, number: int, now: float) -> int:
        """Take what the counter shows; how many impressions that were."""
        waiting, taken = self._waiting[ad], 0
        while waiting and waiting[0].number <= number:
            pending = waiting.popleft()
            taken += 1
            if pending.answered >= self._counts_from:
                self._lags_ms.append(1000 * (now - pending.answered))
        if not waiting:
            del self._waiting[ad]
        return taken

    async def _impressions(self, ad: int) -> int:
        ad_id = self._market.ads[ad]
        key = day_key(shard_of(ad_id, self._shards), day_number(day_of(int(time.time()))), ad_id.bytes)
        return int(await self._link.execute("HGET", key, "impressions") or 0)

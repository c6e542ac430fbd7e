"""Serve and impression against a route of the same server that does nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import asyncpg

from ops.bench.http_client import get, join
from ops.bench.http_load import Job, Load, apply
from ops.bench.marketplace import Marketplace, marketplace
from ops.bench.results import Plan, Result, Rounds
from ops.bench.site import BenchSite

NO_OP, SERVE, IMPRESSION = "no-op route", "routes: serve", "routes: impression"
UNIT: Final = "requests/s"
ADS: Final = 500
BUYERS: Final = 16
# An impression waits for its flush and commit: few connections would measure that wait, and not what the server can do.
CONNECTIONS: Final = 256
IMPRESSIONS_A_SECOND_MAX: Final = 12_000  #: prepared for saturation; if they run out, it ends early
SETTLED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Size:
    """How long each route is loaded, and how often in turn; before that impressions, as often as Kafka's JIT needs."""

    unmeasured: int
    rounds: int
    warm_up_s: float
    seconds: float


FULL: Final = Size(unmeasured=4, rounds=5, warm_up_s=0.5, seconds=3.0)
QUICK: Final = Size(unmeasured=0, rounds=1, warm_up_s=0.1, seconds=0.5)


@dataclass(frozen=True, slots=True)
class Route:
    """How to ask a route. `requests` makes as many as asked for; without `cycle` each is good once."""

    requests: Callable[[int], list[bytes]]
    cycle: bool
    status: int


async def run(plan: Plan) -> list[Result]:
    """Saturation of each route in turn, then each at half of what it just did; the whole system runs beside it."""
    size, rounds, shares = QUICK if plan.quick else FULL, Rounds(), [0.0]
    async with marketplace(ads=ADS, buyers=BUYERS) as market:
        routes = {
            NO_OP: Route(lambda _: [get("/healthz")], cycle=True, status=200),
            SERVE: Route(lambda _: market.serves(), cycle=True, status=200),
            IMPRESSION: Route(market.impressions, cycle=False, status=202),
        }
        bench = Routes(market, size)
        for n in range(size.unmeasured):
            plan.say(f"routes: warming up, {n + 1} of {size.unmeasured}")
            await bench.load(routes[IMPRESSION], None)
        for n in range(size.rounds):
            for name, route in routes.items():
                full = await bench.load(route, None)
                half = await bench.load(route, full.requests_per_s / 2)
                shares.append(full.cpu_share)
                rounds.add(name, full.requests_per_s, UNIT)
                rounds.add(f"{name}, half load: p50", half.p50_ms, "ms")
                rounds.add(f"{name}, half load: p99", half.p99_ms, "ms")
                plan.say(
                    f"routes: round {n + 1} of {size.rounds}: {name}: {full.requests_per_s:,.0f} {UNIT}; "
                    f"at half load p50 {half.p50_ms:.1f} ms, p99 {half.p99_ms:.1f} ms"
                )
    return _results(rounds, max(shares))


def _results(rounds: Rounds, load_share: float) -> list[Result]:
    note = f"{CONNECTIONS} connections; the load generator took {load_share:.0%} of a core at most"
    found = [rounds.result(NO_OP, note=note)]
    found += [rounds.result(name, against=NO_OP) for name in (SERVE, IMPRESSION)]
    for name in (NO_OP, SERVE, IMPRESSION):
        found += [rounds.result(f"{name}, half load: {share}") for share in ("p50", "p99")]
    return found


class Routes:
    """Loads routes of one server."""

    def __init__(self, market: Marketplace, size: Size) -> None:
        self._market, self._size = market, size

    async def load(self, route: Route, rate: float | None) -> Load:
        """Load a route once nothing is left to do of what was loaded before."""
        size = self._size
        seconds = size.warm_up_s + size.seconds
        requests = route.requests(int((rate or IMPRESSIONS_A_SECOND_MAX) * seconds * 1.1) + CONNECTIONS)
        path = self._market.site.root / "requests"
        path.write_bytes(join(requests))
        await settled(self._market.site)
        job = Job(
            port=self._market.port,
            requests=str(path),
            cycle=route.cycle,
            status=route.status,
            connections=CONNECTIONS,
            warm_up_s=size.warm_up_s,
            seconds=size.seconds,
            rate=rate,
        )
        return await apply(job, self._market.site.root)


async def settled(found: BenchSite) -> None:
    """Return when the relay has published what was waiting (but for ticks), or after SETTLED_S."""
    deadline = time.monotonic() + SETTLED_S
    connection = await asyncpg.connect(found.addresses["DATABASE_URL"])
    try:
        while time.monotonic() < deadline:
            if await connection.fetchval("SELECT count(*) FROM outbox_events") <= found.settings.ad_shards:
                return
            await asyncio.sleep(0.1)
    finally:
        await connection.close()

"""Gate decisions a second, against a script that does nothing over the same connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from models.ads.gateway import Gate, Offer, day_key, gate_key
from models.ads.rules import shard_of
from models.database import new_id
from models.redis import RedisLink, Script
from ops.bench.results import Plan, Result, Rounds
from ops.bench.site import site

UNIT: Final = "decisions/s"
SHARDS: Final = 12
TTL_S: Final = 1800
SKEW_S: Final = 5
OPEN_MINUTES: Final = 30
UNDER_WAY: Final = 64  #: decisions asked for at once, as by so many requests
COST_MICROS: Final = 2500
PLENTY_MICROS: Final = 10**14
NOTHING: Final = Script("return 1")
BARE: Final = "gate: bare EVALSHA"

Decide = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Size:
    """How long each way is measured, and how often in turn."""

    rounds: int
    seconds: float


FULL: Final = Size(rounds=5, seconds=2.0)
QUICK: Final = Size(rounds=1, seconds=0.2)


async def run(plan: Plan) -> list[Result]:
    """One offer, eight of which the first or the last fits, each of an ad with 30 open minutes; and a bare script."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with site("redis") as found:
        link = RedisLink(found.addresses["REDIS_URL"])
        await link.connect()
        ways = await _ways(link)
        for n in range(size.rounds):
            for name, decide in ways.items():
                rounds.add(name, await _pace(decide, size.seconds), UNIT)
                plan.say(f"gate: round {n + 1} of {size.rounds}: {name}: {rounds.last(name):,.0f} {UNIT}")
        await link.close()
    note = f"{UNDER_WAY} under way, {OPEN_MINUTES} open minutes an ad"
    others = [name for name in ways if name != BARE]
    return [*(rounds.result(name, against=BARE, note=note) for name in others), rounds.result(BARE, note="return 1")]


async def _ways(link: RedisLink) -> dict[str, Decide]:
    gate = Gate(link, shards=SHARDS, token_ttl_s=TTL_S, skew_s=SKEW_S)
    iat_s, ads = int(time.time()), [new_id() for _ in range(8)]
    await _open(link, ads, iat_s)
    fits = [Offer(ad, COST_MICROS, PLENTY_MICROS) for ad in ads]
    spent = [Offer(ad, COST_MICROS, 0) for ad in ads[:-1]]

    def admit(offers: Sequence[Offer]) -> Decide:
        return lambda: gate.admit(offers, iat_s=iat_s, buyer="bench", serves_per_minute=10**12)

    return {
        BARE: lambda: link.script(NOTHING, keys=["bench"], args=[]),
        "gate: 1 offer": admit(fits[:1]),
        "gate: 8 offers, the first fits": admit(fits),
        "gate: 8 offers, the last fits": admit([*spent, fits[-1]]),
    }


async def _open(link: RedisLink, ads: Sequence[UUID], now_s: int) -> None:
    """Gates that let through, and what serve and the agent have written in the minutes still open."""
    await link.ping()
    minute, day = now_s // 60, now_s // 86_400
    for ad_id in ads:
        shard = shard_of(ad_id, SHARDS)
        marks = ("run_id", link.run_id, "watermark_us", now_s * 1_000_000, "ticked_us", (now_s + 3600) * 1_000_000)
        await link.execute("HSET", gate_key(shard), *marks)
        fields: list[object] = ["events", 600, "impressions", 600, "clicks", 0, "settled", 600 * COST_MICROS]
        for open_minute in range(minute - OPEN_MINUTES + 1, minute + 1):
            fields += (f"M{open_minute}", 25 * COST_MICROS, f"S{open_minute}", 20 * COST_MICROS)
        await link.execute("HSET", day_key(shard, day, ad_id.bytes), *fields)


async def _pace(decide: Decide, seconds: float) -> float:
    """Decisions a second of UNDER_WAY callers that each ask again when they are answered."""
    done, ends = 0, time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < ends:
            await decide()
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(UNDER_WAY)))
    return done / (time.perf_counter() - started)

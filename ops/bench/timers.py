"""200,000 pending timers of orders: what they cost in memory, how long a tick takes, how late what is due happens."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ops.bench.order_rows import Orders
from ops.bench.results import Plan, Result, Rounds, percentile
from ops.bench.site import BenchSite, Process, site
from ops.stack.errors import StackError
from schemas.codec import decode
from streams.topics import ORDER_TTL

WORKER: Final = ("worker", "--agents", ORDER_TTL)
FOLDED: Final = "timers: folded"
MEMORY: Final = "timers: memory they take"
IDLE, FIRING = "timers: idle tick p99", "timers: firing tick p99"
P50, P99, WORST = "timers: lateness p50", "timers: lateness p99", "timers: lateness worst"
POLL_S: Final = 0.25
TIMEOUT_S: Final = 300.0
LEAD_S: Final = 8.0  #: from the last insert to the first deadline
BUCKET: Final = re.compile(r'packstream_order_timers_tick_seconds_bucket\{fired="(yes|no)",le="([^"]+)"\} (\S+)')


@dataclass(frozen=True, slots=True)
class Size:
    """How many timers wait all the time, and what falls due meanwhile: half of it nudges, half expiries."""

    timers: int
    rounds: int
    due: int
    seconds: float


FULL: Final = Size(timers=200_000, rounds=3, due=400, seconds=20.0)
QUICK: Final = Size(timers=2_000, rounds=1, due=20, seconds=3.0)


async def run(plan: Plan) -> list[Result]:
    """One worker; its own clock and Postgres's are the machine's."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with site("postgres", "kafka", "redis") as found:
        worker = found.process("a", *WORKER, environment={"WORKER_METRICS_PORT": found.addresses["PORT"]})
        engine = create_async_engine(found.settings.sqlalchemy_url)
        try:
            await _wait_in_table(found, worker, engine, size, rounds)
            folded = f"{rounds.last(FOLDED):,.0f} events/s folded"
            plan.say(f"timers: {size.timers:,} wait: {rounds.last(MEMORY):.0f} MB, {folded}")
            for n in range(size.rounds):
                await _fall_due(found, worker, engine, size, rounds)
                plan.say(
                    f"timers: round {n + 1} of {size.rounds}: lateness p50 {rounds.last(P50):.0f} ms,"
                    f" p99 {rounds.last(P99):.0f} ms, firing tick p99 {rounds.last(FIRING):.0f} ms"
                )
        finally:
            await engine.dispose()
            await worker.stop()
    rate = f"{size.due / size.seconds:.0f} a second fall due, deadlines at any part of a second"
    return [
        rounds.result(MEMORY, note=f"{size.timers:,} timers in one worker: its memory with them less that without"),
        rounds.result(FOLDED, note="events of one order each, checked against Postgres"),
        rounds.result(IDLE, note="with nothing due; upper bound of the histogram's bucket"),
        rounds.result(FIRING, note="its transactions included; upper bound of the histogram's bucket"),
        rounds.result(P50, note=rate),
        rounds.result(P99, note="until the event is in the outbox; a second is the rounding's"),
        rounds.result(WORST),
    ]


async def _wait_in_table(found: BenchSite, worker: Process, engine: AsyncEngine, size: Size, rounds: Rounds) -> None:
    """Fill the table by way of the topic, with timers that are far off."""
    now = datetime.now(UTC)
    far = [now + timedelta(hours=6, seconds=0.1 * n) for n in range(size.timers // 2)]
    orders = Orders([(at, at + timedelta(hours=12)) for at in far])
    await orders.insert(found.settings)
    worker.start()
    await worker.ready()
    before = _memory_mb(worker.pid)
    began = time.monotonic()
    await orders.tell(found.brokers)
    await _until_applied(worker, engine, len(far))
    rounds.add(FOLDED, len(far) / (time.monotonic() - began), "events/s")
    rounds.add(MEMORY, _memory_mb(worker.pid) - before, "MB")


async def _until_applied(worker: Process, engine: AsyncEngine, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    applied = 0
    while applied < count:
        worker.check()
        if time.monotonic() > deadline:
            raise StackError(f"timers: {applied:,} of {count:,} events are folded after {TIMEOUT_S:.0f} s")
        await asyncio.sleep(POLL_S)
        async with engine.connect() as tx:
            statement = text("SELECT coalesce(sum(applied_offset + 1), 0) FROM agent_positions WHERE agent = :agent")
            applied = (await tx.execute(statement, {"agent": ORDER_TTL})).scalar_one()


async def _fall_due(found: BenchSite, worker: Process, engine: AsyncEngine, size: Size, rounds: Rounds) -> None:
    """A stretch of deadlines, each told in time."""
    begin, far = datetime.now(UTC) + timedelta(seconds=LEAD_S), timedelta(hours=12)
    step = timedelta(seconds=size.seconds / size.due)
    times = [begin + n * step for n in range(size.due)]
    orders = Orders([(at, at + far) if n % 2 else (at - far, at) for n, at in enumerate(times)])
    await orders.insert(found.settings)
    await orders.tell(found.brokers)
    before = _ticks(found)
    ids = {order.id for order in orders.orders}
    lateness_ms = await _lateness_ms(worker, engine, ids)
    for name, share in ((P50, 0.5), (P99, 0.99), (WORST, 1.0)):
        rounds.add(name, percentile(lateness_ms, share), "ms")
    after = _ticks(found)
    for name, fired in ((IDLE, "no"), (FIRING, "yes")):
        rounds.add(name, 1000 * _bound(before[fired], after[fired], 0.99), "ms")


async def _lateness_ms(worker: Process, engine: AsyncEngine, ids: set[Any]) -> list[float]:
    """From each deadline to its event in the outbox, once all are there. StackError when one is early or missing."""
    deadline = time.monotonic() + TIMEOUT_S
    found: list[float] = []
    while len(found) < len(ids):
        worker.check()
        if time.monotonic() > deadline:
            raise StackError(f"timers: {len(found)} of {len(ids)} fired after {TIMEOUT_S:.0f} s")
        await asyncio.sleep(POLL_S)
        async with engine.connect() as tx:
            statement = text("SELECT payload, created_at FROM outbox_events WHERE aggregatetype = 'orders'")
            rows = (await tx.execute(statement)).all()
        events: list[tuple[Any, datetime]] = [(decode(row.payload), row.created_at) for row in rows]
        found = [1000 * _late_s(event, at) for event, at in events if event.order.order_id in ids]
    if len(found) > len(ids) or min(found) < 0:
        raise StackError(f"timers: {len(found)} events of {len(ids)} timers, the earliest {min(found):.0f} ms late")
    return found


def _late_s(event: Any, at: datetime) -> float:
    nudged = event.event_type == "order_nudged"
    return float((at - (event.order.nudge_at if nudged else event.order.expires_at)).total_seconds())


def _memory_mb(pid: int) -> float:
    """What the process has in memory."""
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) / 1024


def _ticks(found: BenchSite) -> Mapping[str, Mapping[float, float]]:
    """How many ticks took at most so long, idle ones and those that fired."""
    with urllib.request.urlopen(f"http://127.0.0.1:{found.addresses['PORT']}/metrics", timeout=5) as answer:
        said = answer.read().decode()
    counts: dict[str, dict[float, float]] = {"yes": {}, "no": {}}
    for fired, bound, count in BUCKET.findall(said):
        counts[fired][float(bound)] = float(count)
    return counts


def _bound(before: Mapping[float, float], after: Mapping[float, float], share: float) -> float:
    """The lowest bucket's bound that so large a share of the ticks in between is in; seconds."""
    counted = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    total = max(counted.values())
    return min(bound for bound, count in counted.items() if count >= share * total)

"""Facts on their way to the warehouse (the local emulator): rows a second of one worker against the bare client, how
soon a checkout is seen there, and what a dashboard takes over many rows.

Worker: a topic full of checkouts, from its first row in the warehouse to its last. Bare client: the same rows, encoded
and appended to one committed stream at known offsets, and nothing else. Freshness: from the commit of the outbox row
until a query finds the order, with relay and worker running. Most of the time is the emulator's: it takes some
thousand rows a second; the ratio is what says something about the worker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaProducer

from models import outbox
from models.analytics import reads
from models.analytics.encoding import encoder
from models.analytics.gateway import BigQuery
from models.analytics.rules import Interval, Timeframe
from models.database import make_engine, make_sessions, new_id
from ops.bench.results import Plan, Result, Rounds, percentile
from ops.bench.site import BenchSite, site
from ops.stack.errors import StackError
from ops.warehouse import apply, connected_warehouse
from schemas.codec import encode
from schemas.records import CheckoutConverted, OrderLineSnapshot, OrderSnapshot, ShipTo
from schemas.registry import EVENTS
from schemas.warehouse_tables import TABLES
from streams.facts import MARKETPLACE, facts_of
from streams.topics import ANALYTICS

AGENT: Final = ("worker", "--agents", ANALYTICS)
BARE_ROWS: Final = 1_000  #: of one append
DAYS: Final = 90
POLL_S: Final = 0.02
TIMEOUT_S: Final = 300.0
WORKER, BARE = "facts: worker", "facts: bare client"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. `copies`: of each row, for the dashboards."""

    rounds: int
    checkouts: int
    fresh: int
    copies: int
    dashboards: int


FULL: Final = Size(rounds=3, checkouts=5_000, fresh=50, copies=33, dashboards=5)
QUICK: Final = Size(rounds=1, checkouts=200, fresh=5, copies=2, dashboards=1)


async def run(plan: Plan) -> list[Result]:
    """The worker and the bare client in turns, then freshness, then dashboards over what has piled up and copies."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with site("postgres", "kafka", "redis", "bigquery") as found:
        store = connected_warehouse(found.settings)
        try:
            await apply(store)
            vendor = new_id()
            process = found.process("worker", *AGENT)
            process.start()
            await process.ready()
            relay = found.process("relay", "relay")
            try:
                for n in range(size.rounds):
                    events = [checkout(vendor, number) for number in range(size.checkouts)]
                    rounds.add(WORKER, await _worker_pace(found, store, events), "rows/s")
                    rounds.add(
                        BARE, await _bare_pace(store, [checkout(vendor, n) for n in range(len(events))]), "rows/s"
                    )
                    plan.say(f"facts: round {n + 1}: {rounds.last(WORKER):,.0f} rows/s, bare {rounds.last(BARE):,.0f}")
                relay.start()
                await relay.ready()
                delays = await _freshness(found, store, size.fresh)
            finally:
                await relay.stop()
                await process.stop()
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                rounds.add(f"facts: freshness {name}", percentile(delays, share) * 1000, "ms")
            rows = await _fill(store, size.copies)
            await _dashboards(store, vendor, size.dashboards, rounds)
        finally:
            store.close()
    note = f"over {rows:,} rows of the emulator"
    return [
        rounds.result(WORKER, note="12 partitions, positions in Postgres, each row once"),
        rounds.result(WORKER, against=BARE),
        rounds.result(BARE, note=f"one stream, {BARE_ROWS:,} rows an append"),
        *(rounds.result(f"facts: freshness {name}", note="commit → found by a query") for name in ("p50", "p99")),
        rounds.result("facts: marketplace dashboard", note=note),
        rounds.result("facts: ads dashboard", note=note),
    ]


def checkout(vendor: UUID, number: int) -> CheckoutConverted:
    """A checkout of one order with three lines."""
    group, buyer, now = new_id(), UUID(int=number % 500), datetime.now(UTC) - timedelta(days=number % DAYS)
    line = OrderLineSnapshot(
        line_item_id=new_id(), cart_item_id=new_id(), product_id=UUID(int=number % 97), title="Blue Dream",
        category="flower", quantity=2, unit_price_cents=1_000, line_subtotal_cents=2_000, line_total_cents=1_900,
        status="pending",
    )  # fmt: skip
    order = OrderSnapshot(
        order_id=new_id(), number=f"PS-{number}", checkout_group_id=group, cart_id=new_id(), buyer_store_id=buyer,
        vendor_store_id=vendor, status="pending", currency="USD", subtotal_cents=6_000, discounts_cents=300,
        shipping_cents=0, total_cents=5_700, payment_method="cash", payment_intent_id=new_id(), payment_status="unpaid",
        ship_to=ShipTo(city="Portland", state="OR", postal_code=f"97{number % 300:03}", country="US"), created_at=now,
        nudge_at=now, expires_at=now, lines=[replace(line, line_item_id=new_id()) for _ in range(3)],
    )  # fmt: skip
    return CheckoutConverted(
        event_id=group, occurred_at=now, actor="bench", checkout_group_id=group, cart_id=order.cart_id,
        buyer_store_id=buyer, currency="USD", total_cents=order.total_cents, orders=[order],
    )  # fmt: skip


async def _count(store: BigQuery) -> int:
    [row] = await store.query("SELECT COUNT(*) AS n FROM {marketplace_events}")
    return int(row["n"])


async def _worker_pace(found: BenchSite, store: BigQuery, events: Sequence[CheckoutConverted]) -> float:
    """Rows a second, from the first that is there to the last."""
    before = await _count(store)
    producer = AIOKafkaProducer(bootstrap_servers=found.brokers, acks="all", linger_ms=5)
    await producer.start()
    event = EVENTS["checkout_converted"]
    for one in events:
        await producer.send(event.topic.name, encode(one), key=event.key(one).encode())
    await producer.stop()
    deadline, began, first, there = time.monotonic() + TIMEOUT_S, 0.0, 0, 0
    while there < len(events):
        await asyncio.sleep(POLL_S)
        there, now = await _count(store) - before, time.monotonic()
        if there and not first:
            began, first = now, there
        if now > deadline:
            raise StackError(f"facts: {there:,} of {len(events):,} rows after {TIMEOUT_S:.0f} s")
    elapsed = time.monotonic() - began
    return (there - first) / elapsed if there > first else there / max(elapsed, POLL_S)


async def _bare_pace(store: BigQuery, events: Sequence[CheckoutConverted]) -> float:
    stream, began = await store.open_stream(MARKETPLACE), time.monotonic()
    written = {"ingested_at": datetime.now(UTC)}
    for begin in range(0, len(events), BARE_ROWS):
        facts = [fact for event in events[begin : begin + BARE_ROWS] for fact in facts_of(event, {})]
        rows = [encoder(MARKETPLACE).encode(fact.row | written) for fact in facts]
        await store.append(MARKETPLACE, stream, rows, offset=begin)
    return len(events) / (time.monotonic() - began)


async def _freshness(found: BenchSite, store: BigQuery, count: int) -> list[float]:
    """Seconds from a commit until a query finds the order, one after the other."""
    engine = make_engine(found.settings.sqlalchemy_url, pool_size=1, application="bench")
    delays = []
    for number in range(count):
        event = checkout(new_id(), number)
        async with make_sessions(engine).begin() as tx:
            await outbox.append(tx, event)
        began = time.monotonic()
        row_id = f"order_created:{event.orders[0].order_id}"
        while not await store.present(MARKETPLACE, [row_id]):
            if time.monotonic() - began > TIMEOUT_S:
                raise StackError(f"facts: {row_id} is not there after {TIMEOUT_S:.0f} s")
        delays.append(time.monotonic() - began)
    await engine.dispose()
    return delays


async def _fill(store: BigQuery, copies: int) -> int:
    """Copy what is there, each copy an order of its own; how many rows there are then."""
    names = [column.name for column in TABLES[MARKETPLACE].columns]
    own = ("row_id", "order_id")
    values = [f"CONCAT(e.{name}, '-', CAST(n AS STRING))" if name in own else f"e.{name}" for name in names]
    source = "{marketplace_events} AS e, UNNEST(GENERATE_ARRAY(1, @copies)) AS n"
    sql = f"INSERT INTO {{marketplace_events}} ({', '.join(names)}) SELECT {', '.join(values)} FROM {source}"
    await store.query(sql, copies=copies)
    return await _count(store)


async def _dashboards(store: BigQuery, vendor: UUID, count: int, rounds: Rounds) -> None:
    today = datetime.now(UTC).date()
    frame = Timeframe(today - timedelta(days=29), today)
    asked: dict[str, Callable[[], Awaitable[object]]] = {
        "facts: marketplace dashboard": lambda: reads.marketplace(store, vendor, frame, Interval.DAY),
        "facts: ads dashboard": lambda: reads.advertising(store, vendor, frame),
    }
    for _ in range(count):
        for name, ask in asked.items():
            began = time.monotonic()
            await ask()
            rounds.add(name, (time.monotonic() - began) * 1000, "ms")

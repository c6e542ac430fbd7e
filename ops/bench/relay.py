"""The relay against Debezium on Kafka Connect (poll interval 10 ms): rows a second, and commit → consumer latency.

Both read the same table of the same Postgres and write to the same broker, in turns. Throughput: rows are inserted
while the relay is connected, and the clock runs from the first insert until the broker has the last record. Latency:
single-row transactions at a fixed rate, from the commit's answer to the record in a consumer's hands.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import click
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console

from models.outbox import lane_of
from ops.bench.results import Plan, Result, Rounds, percentile, to_json, to_table
from ops.bench.site import BenchSite, site
from ops.debezium.connector import NAME, debezium
from ops.stack.errors import StackError
from ops.stack.paths import DataDir
from schemas.registry import PARTITIONS

OURS: Final = "relay"
THEIRS: Final = "debezium"
TOPIC: Final = "packstream.catalog"
PAYLOAD: Final = bytes(250)
KEYS: Final = 5000
INSERTED_AT_ONCE: Final = 2000
TIMEOUT_S: Final = 240.0
POLL_S: Final = 0.01
CONNECT_JVM: Final = "-Xms512m -Xmx512m"  #: the local stack's is small; here it must not be what bounds

INSERT: Final = """
INSERT INTO outbox_events (id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at)
SELECT id, 'catalog', key, 'ad_changed', $4, lane, '{"schema": "bench"}', clock_timestamp()
FROM unnest($1::uuid[], $2::text[], $3::smallint[]) AS r (id, key, lane)
"""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    rows: int
    latency_rows_per_s: int
    latency_s: float


FULL: Final = Size(rounds=3, rows=100_000, latency_rows_per_s=500, latency_s=10)
QUICK: Final = Size(rounds=1, rows=5_000, latency_rows_per_s=100, latency_s=2)


async def run(plan: Plan) -> list[Result]:
    """Ours and Debezium in turns."""
    size, rounds = QUICK if plan.quick else FULL, Rounds()
    async with site("postgres", "kafka") as found:
        for n in range(size.rounds):
            for name in (OURS, THEIRS):
                async with _started(name, found, n):
                    await _measure(name, found, size, rounds)
                plan.say(f"relay: round {n + 1} of {size.rounds}: {name}: {rounds.last(name):,.0f} rows/s")
    return _results(rounds, size)


def _results(rounds: Rounds, size: Size) -> list[Result]:
    p50, p99 = "latency p50", "latency p99"
    pace = f"{size.latency_rows_per_s} single-row commits/s"
    return [
        rounds.result(OURS, against=THEIRS, note=f"{size.rows:,} rows inserted while connected"),
        rounds.result(THEIRS, note="poll.interval.ms=10"),
        rounds.result(f"{OURS}: {p50}", against=f"{THEIRS}: {p50}", note=pace),
        rounds.result(f"{OURS}: {p99}", against=f"{THEIRS}: {p99}", note=pace),
        rounds.result(f"{THEIRS}: {p50}", note=pace),
        rounds.result(f"{THEIRS}: {p99}", note=pace),
    ]


@asynccontextmanager
async def _started(name: str, found: BenchSite, n: int) -> AsyncIterator[None]:
    """One of the two at work on an empty outbox."""
    await _empty(found)
    if name == OURS:
        process = found.process(f"relay-{n}", "relay", environment={"AD_TICK_S": "30"})
        process.start()
        try:
            await process.ready()
            yield
        finally:
            await process.stop()
        return
    addresses = found.addresses
    with _connect_for_benches():
        async with debezium(
            DataDir.at(found.root / "connect"),
            found.brokers,
            owner_url=addresses["DATABASE_URL"],
            cdc_url=addresses["DATABASE_CDC_URL"],
            name=f"{NAME}-{n}",
        ):
            yield


@contextmanager
def _connect_for_benches() -> Iterator[None]:
    before = os.environ.get("CONNECT_JVM_OPTS")
    os.environ["CONNECT_JVM_OPTS"] = before or CONNECT_JVM
    try:
        yield
    finally:
        if before is None:
            del os.environ["CONNECT_JVM_OPTS"]


async def _empty(found: BenchSite) -> None:
    db = await asyncpg.connect(found.addresses["DATABASE_URL"])
    await db.execute("TRUNCATE outbox_events, outbox_archive, outbox_failures")
    await db.execute("VACUUM ANALYZE outbox_events")
    await db.close()


async def _measure(name: str, found: BenchSite, size: Size, rounds: Rounds) -> None:
    db = await asyncpg.connect(found.addresses["DATABASE_URL"])
    places = [TopicPartition(TOPIC, n) for n in range(PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=found.brokers, enable_auto_commit=False, auto_offset_reset="latest")
    await consumer.start()
    try:
        consumer.assign(places)
        await _rows_per_s(db, consumer, places, size.rows // 10)  # warms up both sides: classes, plans, caches
        rounds.add(name, await _rows_per_s(db, consumer, places, size.rows), "rows/s")
        latencies = await _latencies(db, consumer, places, size)
        rounds.add(f"{name}: latency p50", percentile(latencies, 0.50) * 1000, "ms")
        rounds.add(f"{name}: latency p99", percentile(latencies, 0.99) * 1000, "ms")
    finally:
        await consumer.stop()
        await db.close()


async def _rows_per_s(db: Any, consumer: AIOKafkaConsumer, places: list[TopicPartition], rows: int) -> float:
    """From the first insert until the broker has all of them."""
    keys = [str(uuid.uuid4()) for _ in range(KEYS)]
    lanes = [lane_of(key) for key in keys]
    before = sum((await consumer.end_offsets(places)).values())
    began = time.monotonic()
    inserting = asyncio.create_task(_insert(db, keys, lanes, rows))
    while sum((await consumer.end_offsets(places)).values()) - before < rows:
        if time.monotonic() - began > TIMEOUT_S:
            raise StackError(f"relay: not all of {rows:,} rows arrived within {TIMEOUT_S:.0f} s")
        await asyncio.sleep(POLL_S)
    took_s = time.monotonic() - began
    await inserting
    return rows / took_s


async def _insert(db: Any, keys: list[str], lanes: list[int], rows: int) -> None:
    for begin in range(0, rows, INSERTED_AT_ONCE):
        numbers = [n % KEYS for n in range(begin, min(rows, begin + INSERTED_AT_ONCE))]
        ids = [uuid.uuid4() for _ in numbers]
        await db.execute(INSERT, ids, [keys[n] for n in numbers], [lanes[n] for n in numbers], PAYLOAD)


async def _latencies(db: Any, consumer: AIOKafkaConsumer, places: list[TopicPartition], size: Size) -> list[float]:
    """Seconds from the commit's answer to the consumer, single rows at a fixed rate, without the first second."""
    await consumer.seek_to_end(*places)
    for place in places:
        await consumer.position(place)
    count = int(size.latency_rows_per_s * size.latency_s)
    committed: dict[bytes, float] = {}
    seen: dict[bytes, float] = {}
    writing = asyncio.create_task(_write_steadily(db, committed, count, 1 / size.latency_rows_per_s))
    deadline = time.monotonic() + TIMEOUT_S
    while len(seen) < count:
        if time.monotonic() > deadline:
            raise StackError(f"relay: {len(seen)} of {count} rows arrived within {TIMEOUT_S:.0f} s")
        batches = await consumer.getmany(timeout_ms=500)
        now = time.monotonic()
        for records in batches.values():
            for record in records:
                seen.setdefault(dict(record.headers)["id"], now)
    await writing
    warm = size.latency_rows_per_s
    return [max(0.0, seen[event_id] - at_s) for event_id, at_s in list(committed.items())[warm:]]


async def _write_steadily(db: Any, committed: dict[bytes, float], count: int, every_s: float) -> None:
    keys = [str(uuid.uuid4()) for _ in range(KEYS)]
    began = time.monotonic()
    for n in range(count):
        event_id, key = uuid.uuid4(), keys[n % KEYS]
        await db.execute(INSERT, [event_id], [key], [lane_of(key)], PAYLOAD)
        committed[str(event_id).encode()] = time.monotonic()
        await asyncio.sleep(max(0.0, began + (n + 1) * every_s - time.monotonic()))


@click.command()
@click.option("--quick", is_flag=True, help="Only show that it works.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(quick: bool, as_json: bool) -> None:
    """The relay against Debezium."""
    results = asyncio.run(run(Plan(quick, lambda line: click.echo(line, err=True))))
    if as_json:
        click.echo(json.dumps(to_json(results)))
    else:
        Console(width=160).print(to_table(results))


if __name__ == "__main__":
    main()

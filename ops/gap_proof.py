"""The proof that nothing is missing: Postgres → Kafka → warehouse, with a watermark for each topic.

Every event that was committed before the watermark has its record in Kafka and all its rows in the warehouse, unless
the analytics agent has it as a dead letter. What is behind the agent's position and is not there is a gap; what is
before it only holds the watermark back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from agents import kafka
from models import outbox_proof
from models.ads import reads as ads
from models.analytics import positions
from models.analytics.gateway import BigQuery
from models.database import SessionFactory, make_engine, make_sessions
from models.outbox_proof import Committed
from ops.kafka_read import read_topic
from ops.settings import Settings
from ops.warehouse import connected_warehouse
from schemas.codec import UndecodableError, decode
from schemas.records import Record
from schemas.registry import TOPICS, Topic
from streams.facts import RefusedError, facts_of, needs_spend
from streams.topics import ANALYTICS

PROVED: Final = (TOPICS["orders"], TOPICS["ads.rollups"])
MISSING_MAX: Final = 100  #: named in a report; the rest is counted

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that has to be there and is not. `key`: an event in Kafka, a row in the warehouse."""

    level: str
    key: str
    event_id: str
    committed_at: str


@dataclass(slots=True)
class TopicProof:
    """One topic. `pending`: events that the agent has still to come to; `letters`: that it could not take."""

    topic: str
    ok: bool
    watermark: str
    committed: int = 0
    in_kafka: int = 0
    in_warehouse: int = 0
    rows: int = 0
    pending: int = 0
    letters: int = 0
    parked: int = 0
    gaps: int = 0
    missing: list[Gap] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Sent:
    """An event as Kafka has it, at its first place."""

    record: Record
    partition: int
    offset: int
    rows: set[tuple[str, str]] = field(default_factory=set)


async def prove(settings: Settings, *, progress: Progress | None = None) -> list[TopicProof]:
    """A proof of each topic that the warehouse is fed from."""
    engine = make_engine(settings.sqlalchemy_url, pool_size=2, application="packstream-reconcile")
    store = connected_warehouse(settings)
    try:
        sessions = make_sessions(engine)
        return [await _prove(settings, sessions, store, topic, progress or (lambda _: None)) for topic in PROVED]
    finally:
        store.close()
        await engine.dispose()


async def _prove(
    settings: Settings, sessions: SessionFactory, store: BigQuery, topic: Topic, progress: Progress
) -> TopicProof:
    async with sessions.begin() as tx:  # the bound first: what is committed after it does not matter
        until = await outbox_proof.settled_until(tx, topic.aggregatetype, wall=datetime.now(UTC))
    async with sessions.begin() as tx:
        committed = await outbox_proof.published(tx, topic.aggregatetype, before=until)
        letters = await outbox_proof.lettered(tx, ANALYTICS, topic.name)
        applied = await positions.next_offsets(tx, topic.name)
        parked = await outbox_proof.parked(tx, topic.name)
    sent = await _sent(settings, topic, progress)
    await _expect_rows(sessions, sent.values())
    wanted = {row for event in committed if event.event_id in sent for row in sent[event.event_id].rows}
    there = await _there(store, wanted)
    proof = TopicProof(topic.name, ok=True, watermark="", committed=len(committed), letters=len(letters), parked=parked)
    proof.rows = len(wanted)
    bound = until
    for event in committed:
        if event.event_id in letters:
            continue
        if not _judge(proof, event, sent.get(event.event_id), there, applied):
            bound = min(bound, event.created_at)
    proof.ok = proof.gaps == 0 and parked == 0
    proof.watermark = bound.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return proof


def _judge(
    proof: TopicProof,
    event: Committed,
    sent: Sent | None,
    there: set[tuple[str, str]],
    applied: dict[int, int],
) -> bool:
    """Whether the event is proved present everywhere; the proof counts it, and names what is missing."""
    if sent is None:
        _gap(proof, "kafka", str(event.event_id), event)
        return False
    proof.in_kafka += 1
    lacking = sent.rows - there
    if not lacking:
        proof.in_warehouse += 1
        return True
    if sent.offset >= applied.get(sent.partition, 0):
        proof.pending += 1
        return False
    for _, row_id in sorted(lacking):
        _gap(proof, "warehouse", row_id, event)
    return False


def _gap(proof: TopicProof, level: str, key: str, event: Committed) -> None:
    proof.gaps += 1
    if len(proof.missing) < MISSING_MAX:
        proof.missing.append(Gap(level, key, str(event.event_id), event.created_at.isoformat()))


async def _sent(settings: Settings, topic: Topic, progress: Progress) -> dict[UUID, Sent]:
    """The topic's events, each where it came first."""
    found: dict[UUID, Sent] = {}
    async for batch in read_topic(kafka.connection(settings), topic.name):
        for message in batch:
            try:
                record = decode(message.value)
            except UndecodableError:
                continue
            found.setdefault(record.event_id, Sent(record, message.partition, message.offset))
        progress(len(batch))
        await asyncio.sleep(0)
    return found


async def _expect_rows(sessions: SessionFactory, sent: Iterable[Sent]) -> None:
    """The rows that each event makes; of one that is refused none."""
    events = list(sent)
    wanted = {day for one in events if (day := needs_spend(one.record)) is not None}
    async with sessions.begin() as tx:
        spend = await ads.day_totals(tx, wanted) if wanted else {}
    for one in events:
        try:
            one.rows = {(fact.table, fact.row_id) for fact in facts_of(one.record, spend)}
        except RefusedError:
            continue


async def _there(store: BigQuery, wanted: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    by_table: dict[str, list[str]] = {}
    for table, row_id in wanted:
        by_table.setdefault(table, []).append(row_id)
    return {(table, row_id) for table, ids in by_table.items() for row_id in await store.present(table, ids)}

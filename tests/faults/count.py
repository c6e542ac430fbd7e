"""Counting at the end: what the answers said, the topic, Redis, the rollups and the charges must be one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from uuid import UUID

from agents.kafka import connection
from models.ads.gateway import day_key
from models.ads.rules import day_number, shard_of
from ops.kafka_read import read_topic
from ops.reconcile import reconcile_day
from schemas.ad_columns import CLICK, MalformedBatchError, unpack
from schemas.codec import UndecodableError, decode_dict
from streams.topics import AD_EVENTS
from tests.faults.load import Market, Tally
from tests.faults.system import GRACE_S, SHARDS, System, until

Totals = tuple[int, int, int]
"""Impressions, clicks, spend in micros."""


@dataclass
class OnTopic:
    """The events of one day that the topic has, each once."""

    events: set[bytes] = field(default_factory=set)
    ads: dict[UUID, Totals] = field(default_factory=dict)
    repeats: int = 0


@dataclass
class Count:
    """What was found."""

    day: date
    accepted: int
    unknown: int
    on_topic: int
    repeats: int
    impressions: int
    clicks: int
    spend_micros: int
    drained_s: float
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.day}: accepted={self.accepted} unknown={self.unknown} on topic={self.on_topic}"
            f" (repeats {self.repeats}) impressions={self.impressions} clicks={self.clicks}"
            f" spend={self.spend_micros} drained in {self.drained_s:.1f} s; wrong: {len(self.wrong)}"
        )


async def read_events(system: System, day: date, known: Iterable[UUID]) -> OnTopic:
    """Count the topic in the plainest way."""
    found, ads = OnTopic(), set(known)
    async for batch in read_topic(connection(system.settings), AD_EVENTS):
        for record in batch:
            try:
                columns = unpack(decode_dict(record.value)[1])
            except (UndecodableError, MalformedBatchError, KeyError, TypeError):
                continue
            rows = zip(columns.jti, columns.ad, columns.kind, columns.iat_s, columns.cost_micros, strict=True)
            for jti, ad, kind, iat_s, cost in rows:
                ad_id = UUID(bytes=columns.ads[ad])
                if datetime.fromtimestamp(iat_s, UTC).date() != day or ad_id not in ads:
                    continue
                if jti in found.events:
                    found.repeats += 1
                    continue
                found.events.add(jti)
                impressions, clicks, spend = found.ads.get(ad_id, (0, 0, 0))
                found.ads[ad_id] = (impressions + (kind != CLICK), clicks + (kind == CLICK), spend + cost)
    return found


async def count_day(market: Market, tally: Tally, day: date, *, patience_s: float = 60.0) -> Count:
    """Let everything drain, hold Redis against the topic, close the day and hold the rest against it."""
    system = market.system
    drained_s = await system.outbox_drained()
    topic = await read_events(system, day, market.budgets_micros)
    wrong = _answers(tally, topic, day) + await _live(system, topic, day, patience_s)
    await close(market, day, patience_s)
    # What Redis has of the day must stand after closing too: a stale owner may have moved it meanwhile.
    wrong += await _live(system, topic, day, 5.0)
    wrong += await _rollups(system, topic, day) + await _charges(market, topic, day) + _budgets(market, topic)
    reconciliation = await reconcile_day(system.settings, day)
    wrong += [f"reconcile: {difference}" for difference in reconciliation.differences]
    if not reconciliation.closed:
        wrong.append("reconcile: the day is open")
    values = list(topic.ads.values())
    return Count(
        day=day,
        accepted=len(tally.accepted),
        unknown=len(tally.unknown),
        on_topic=len(topic.events),
        repeats=topic.repeats,
        impressions=sum(i for i, _, _ in values),
        clicks=sum(c for _, c, _ in values),
        spend_micros=sum(s for _, _, s in values),
        drained_s=drained_s,
        wrong=wrong,
    )


async def close(market: Market, day: date, patience_s: float) -> None:
    """Move the clock to where the day closes, and wait until all shards have closed it and it is charged."""
    system = market.system
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, seconds=GRACE_S + 1)
    if await system.now() < end:
        await market.move_clock(end)

    async def closed() -> bool:
        return bool(await system.value("SELECT count(*) FROM ad_days WHERE day = $1 AND charged_at IS NOT NULL", day))

    await until(f"{day} is closed", closed, timeout_s=patience_s)


def _answers(tally: Tally, topic: OnTopic, day: date) -> list[str]:
    """accepted ⊆ topic ⊆ accepted + unknown, event by event."""
    of_day = {jti for jti, event in tally.sent.items() if event.day == day}
    lost = (tally.accepted & of_day) - topic.events
    strange = topic.events - of_day
    wrong = [f"accepted, but not on the topic: {UUID(bytes=jti)}" for jti in sorted(lost)]
    return wrong + [f"on the topic, but never sent: {UUID(bytes=jti)}" for jti in sorted(strange)]


async def in_redis(system: System, ads: Iterable[UUID], day: date) -> dict[UUID, Totals]:
    """The live counters."""
    names = list(ads)
    keys = [day_key(shard_of(ad_id, SHARDS), day_number(day), ad_id.bytes) for ad_id in names]
    answers = await system.redis_all([("HMGET", key, "impressions", "clicks", "settled") for key in keys])
    return {
        ad_id: (int(values[0]), int(values[1]), int(values[2]))
        for ad_id, values in zip(names, answers, strict=True)
        if values[0] is not None
    }


async def _live(system: System, topic: OnTopic, day: date, patience_s: float) -> list[str]:
    """Redis against the topic, once it has had time to get there."""

    async def equal() -> bool:
        return await in_redis(system, topic.ads, day) == topic.ads

    try:
        await until("Redis has what the topic has", equal, timeout_s=patience_s)
    except AssertionError:
        return _differing("redis", topic.ads, await in_redis(system, topic.ads, day))
    return []


async def _rollups(system: System, topic: OnTopic, day: date) -> list[str]:
    sql = "SELECT ad_id, impressions, clicks, spend_micros FROM ad_daily_rollups WHERE day = $1"
    found = {row[0]: (row[1], row[2], row[3]) for row in await system.rows(sql, day)}
    return _differing("rollup", topic.ads, found)


async def _charges(market: Market, topic: OnTopic, day: date) -> list[str]:
    spend: dict[UUID, int] = {}
    for ad_id, (_, _, micros) in topic.ads.items():
        store_id = market.stores[ad_id]
        spend[store_id] = spend.get(store_id, 0) + micros
    due = {
        store_id: (micros, int((Decimal(micros) / 10_000).to_integral_value(ROUND_HALF_EVEN)))
        for store_id, micros in spend.items()
        if micros
    }
    sql = "SELECT store_id, spend_micros, amount_cents FROM usage_charges WHERE for_date = $1"
    found = {row[0]: (row[1], row[2]) for row in await market.system.rows(sql, day)}
    return _differing("charge", due, found)


def _budgets(market: Market, topic: OnTopic) -> list[str]:
    return [
        f"over budget by {spend - market.budgets_micros[ad_id]} micros: {ad_id}"
        for ad_id, (_, _, spend) in topic.ads.items()
        if spend > market.budgets_micros[ad_id]
    ]


def _differing(level: str, expected: Mapping[UUID, object], found: Mapping[UUID, object]) -> list[str]:
    return [
        f"{level} of {key}: expected {expected.get(key)}, found {found.get(key)}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]

"""A topic full of ad events, as the collector packs and the relay sends them, and what must come out of it.

Ads are uniform. A token is used a few seconds after it was issued (exponential, 2 s on average), so that about a
seventh of the records has tokens of two minutes. Repeats: 2 % of the records come twice (a relay that died after
producing), and every tenth record holds 20 events of an earlier one (clients that sent twice while Redis was away).
Every fifth record is followed by a tick: far more than a second apart, so that progress can be read from watermarks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaProducer

from models.ads.rules import shard_of
from models.database import new_id
from ops.bench.ad_rows import COST_MICROS
from schemas.ad_columns import CLICK, IMPRESSION, AdEvent, pack
from schemas.codec import encode
from schemas.records import AdEvents
from streams.topics import AD_EVENTS

RECORD_EVENTS: Final = 200
TTL_S: Final = 1800
SKEW_S: Final = 5
DELAY_S: Final = 2.0
CLICK_SHARE: Final = 0.05
REPEATED_RECORD_SHARE: Final = 0.02
REPEATS_EVERY: Final = 10  #: records
REPEATED_EVENTS: Final = 20
TICK_EVERY: Final = 5  #: records of a shard
SPAN_S: Final = 600  #: logical time from the first to the last event
ACTOR: Final = "bench"


@dataclass
class Filling:
    """What was sent."""

    events: int = 0  #: repeats included
    records: int = 0
    distinct: int = 0
    counts: dict[bytes, list[int]] = field(default_factory=dict)  #: ad id → impressions, clicks, micros
    until_tick: dict[int, dict[int, int]] = field(default_factory=dict)  #: shard → tick (µs) → events sent before it

    @property
    def duplicates(self) -> int:
        return self.events - self.distinct

    def count(self, event: AdEvent) -> None:
        """Take an event that is no repeat."""
        found = self.counts.setdefault(event.ad_id, [0, 0, 0])
        found[event.kind] += 1
        found[2] += event.cost_micros
        self.distinct += 1


class _Shard:
    """The stream of one shard."""

    def __init__(self, number: int, ads: Sequence[bytes], start_s: int, rng: random.Random, filling: Filling) -> None:
        self.number, self._ads, self._rng, self._filling = number, ads, rng, filling
        self._start_s = start_s
        self._sent = self._records = 0
        self._last: list[AdEvent] = []
        filling.until_tick[number] = {}

    def records(self, share: float) -> Iterator[AdEvents]:
        """The next record, at `share` of the logical time, with what follows it."""
        events = self._fresh(self._start_s + share * SPAN_S)
        self._records += 1
        if self._last and self._records % REPEATS_EVERY == 0:
            events[:REPEATED_EVENTS] = self._last[:REPEATED_EVENTS]
            fresh = events[REPEATED_EVENTS:]
        else:
            fresh = events
        for event in fresh:
            self._filling.count(event)
        self._last = fresh
        record = self._packed(events)
        for _ in range(2 if self._rng.random() < REPEATED_RECORD_SHARE else 1):
            self._sent += len(events)
            self._filling.events += len(events)
            yield record
        if self._records % TICK_EVERY == 0:
            yield self.tick(share)

    def tick(self, share: float) -> AdEvents:
        """The shard's watermark at `share` of the logical time."""
        at_us = int((self._start_s + share * SPAN_S) * 1_000_000)
        self._filling.until_tick[self.number][at_us] = self._sent
        now = datetime.now(UTC)
        return AdEvents(event_id=new_id(), occurred_at=now, actor=ACTOR, shard=self.number, tick_us=at_us)

    def _fresh(self, now_s: float) -> list[AdEvent]:
        rng, ids = self._rng, self._rng.randbytes(16 * RECORD_EVENTS)
        events = []
        for n, ad_id in enumerate(rng.choices(self._ads, k=RECORD_EVENTS)):
            iat_s = int(now_s - rng.expovariate(1 / DELAY_S))
            click = rng.random() < CLICK_SHARE
            kind, cost = (CLICK, 0) if click else (IMPRESSION, COST_MICROS)
            events.append(AdEvent(ids[16 * n : 16 * n + 16], ad_id, kind, iat_s, iat_s + TTL_S, cost))
        return events

    def _packed(self, events: Sequence[AdEvent]) -> AdEvents:
        return pack(events, event_id=new_id(), shard=self.number, occurred_at=datetime.now(UTC), actor=ACTOR)


async def fill(brokers: str, ads: Sequence[UUID], *, events: int, shards: int, start_s: int, seed: int = 7) -> Filling:
    """Send about `events` events of the day that `start_s` lies in; what was sent."""
    filling, rng = Filling(), random.Random(seed)
    by_shard: dict[int, list[bytes]] = {}
    for ad_id in ads:
        by_shard.setdefault(shard_of(ad_id, shards), []).append(ad_id.bytes)
    streams = [_Shard(number, found, start_s, rng, filling) for number, found in sorted(by_shard.items())]
    rounds = max(2, events // (RECORD_EVENTS * len(streams)))
    async with producer(brokers) as sender:
        for n in range(rounds):
            for stream in streams:
                for record in stream.records(n / rounds):
                    await sender.send(AD_EVENTS, encode(record), key=str(record.shard).encode())
                    filling.records += 1
        for stream in streams:
            await sender.send(AD_EVENTS, encode(stream.tick(1.0)), key=str(stream.number).encode())
    return filling


def producer(brokers: str) -> AIOKafkaProducer:
    """As the relay sends: every replica acknowledges, idempotent, not in transactions."""
    return AIOKafkaProducer(bootstrap_servers=brokers, acks="all", enable_idempotence=True, linger_ms=5)

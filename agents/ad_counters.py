"""The `ad_counters` agent: decode → fold → apply.

Its state is one table (streams/counters.py says what is in it); its effects are dead letters, adjustments, counters in
Redis, gate epochs and day closures, all idempotent, applied after the batch is durable and before it is acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from agents.ad_days import DayCloser
from agents.ad_gate import GateKeeper
from agents.runtime.effects import letter_of
from agents.runtime.store import StateReader
from models import dead_letters
from models.ads import closing
from models.ads.closing import LateEvent
from models.ads.gateway import CounterSink
from models.ads.rules import day_from_number
from models.database import SessionFactory
from models.dead_letters import Letter
from models.errors import Unavailable
from schemas.ad_columns import Columns, MalformedBatchError, unpack
from schemas.codec import UndecodableError, decode_dict
from streams.counters import Counters, ShardShown, Shown
from streams.topics import AD_COUNTERS, AD_EVENTS
from streams.watermarks import Grace

log = structlog.get_logger(__name__)

RETRY_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  #: between tries of an effect; the last repeats
TRANSIENT: Final = (Unavailable, DBAPIError, PoolTimeoutError, OSError)  #: anything else ends the process

ACCEPTED = Counter("packstream_ad_events_counted_total", "ad events counted")
DUPLICATES = Counter("packstream_ad_events_duplicate_total", "ad events seen before")
LATE = Counter("packstream_ad_events_late_total", "ad events for a closed day: alarm", ["reason"])
BAD = Counter("packstream_ad_records_dead_total", "records that went to the dead letters", ["reason"])


@dataclass(slots=True)
class BatchShown:
    """What a batch has to bring outside."""

    shown: Shown
    letters: list[Letter] = field(default_factory=list)


class AdCounters:
    """The fold of `agents.runtime.bulk.BulkFold` for ad events."""

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        sink: CounterSink,
        grace: Grace,
        shards: int,
        now: Callable[[], datetime],
    ) -> None:
        self._sessions, self._sink, self._grace, self._shards, self._now = sessions, sink, grace, shards, now
        self._known: set[bytes] = set()
        self._decoded: dict[tuple[int, int], Columns | Letter] = {}
        self._gates: dict[tuple[int, int], GateKeeper] = {}
        self._closers: dict[tuple[int, int], DayCloser] = {}

    # -- pure -------------------------------------------------------------------------------------------------------

    def open(self, partition: int, table: StateReader) -> Counters:
        """The partition's state; whatever was known about its shards' gates and days is read anew."""
        counters = Counters(self._grace, get=table.get, scan=table.scan, scan_range=table.scan_range)
        self._gates = {key: gate for key, gate in self._gates.items() if key[0] != partition}
        self._closers = {key: closer for key, closer in self._closers.items() if key[0] != partition}
        self._decoded = {key: found for key, found in self._decoded.items() if key[0] != partition}
        return counters

    def fold(self, state: Counters, messages: Sequence[Any]) -> tuple[dict[bytes, bytes | None], BatchShown]:
        """Count what decodes; letters for what does not."""
        records, letters = self._split(messages)
        changes, shown = state.fold(records, self._known)
        by_offset = {message.offset: message for message in messages}
        letters += [self._unknown(by_offset[offset], ads) for offset, ads in shown.unknown_ads]
        return changes, BatchShown(shown, letters)

    def repeat(self, state: Counters, messages: Sequence[Any], *, last: bool) -> BatchShown:
        """Show again what these records touched, and what was wrong with them."""
        records, letters = self._split(messages)
        by_offset = {message.offset: message for message in messages}
        for offset, columns in records:
            if unknown := {ad_id for ad_id in columns.ads if ad_id not in self._known}:
                letters.append(self._unknown(by_offset[offset], unknown))
        return BatchShown(state.repeat(records, last=last), letters)

    def _split(self, messages: Sequence[Any]) -> tuple[list[tuple[int, Columns]], list[Letter]]:
        records: list[tuple[int, Columns]] = []
        letters: list[Letter] = []
        for message in messages:
            found = self._decoded.pop((message.partition, message.offset), None) or decode(message)
            if isinstance(found, Columns):
                records.append((message.offset, found))
            else:
                letters.append(found)
        return records, letters

    def _unknown(self, message: Any, ads: set[bytes]) -> Letter:
        names = ", ".join(sorted(str(UUID(bytes=ad_id)) for ad_id in ads))
        return letter_of(
            AD_COUNTERS, message, "unknown_ad", f"no such ads: {names}; the record's other events are counted"
        )

    # -- the two ends -----------------------------------------------------------------------------------------------

    async def prepare(self, messages: Sequence[Any]) -> None:
        """Decode, and ask Postgres about ads that were never met before."""
        unmet: set[bytes] = set()
        for message in messages:
            found = self._decoded[message.partition, message.offset] = decode(message)
            if isinstance(found, Columns) and not self._known.issuperset(found.ads):
                unmet.update(ad_id for ad_id in found.ads if ad_id not in self._known)
        if unmet:
            await self._retry("known_ads", lambda: self._learn(unmet))

    async def show(self, partition: int, state: Counters, shown: Sequence[BatchShown]) -> None:
        """Dead letters and adjustments, then Redis, then gates and days."""
        for batch in shown:
            self._count(batch)
            if batch.letters or batch.shown.late:
                await self._retry("keep_bad", partial(self._keep_bad, partition, batch))
        state.late_kept()
        for batch in shown:
            for number, part in batch.shown.shards.items():
                await self._retry("publish", partial(self._publish, partition, state, number, part))

    async def _publish(self, partition: int, state: Counters, shard: int, part: ShardShown) -> None:
        days = [day.values() for day in part.days]
        mark = await self._sink.publish(shard, watermark_us=part.watermark_us, ticked=part.ticked, days=days)
        if part.watermark_us is None:
            return
        await self._gate(partition, shard).follow(
            mark,
            watermark_us=part.watermark_us,
            days=lambda: (day.values() for day in state.of_shard(shard)),
        )
        await self._closer(partition, shard).follow(state)

    def _gate(self, partition: int, shard: int) -> GateKeeper:
        found = self._gates.get((partition, shard))
        if found is None:
            found = self._gates[partition, shard] = GateKeeper(
                shard, sink=self._sink, sessions=self._sessions, grace=self._grace, now=self._now
            )
        return found

    def _closer(self, partition: int, shard: int) -> DayCloser:
        found = self._closers.get((partition, shard))
        if found is None:
            found = self._closers[partition, shard] = DayCloser(
                shard, shards=self._shards, sessions=self._sessions, now=self._now
            )
        return found

    async def _learn(self, ads: set[bytes]) -> None:
        async with self._sessions() as tx:
            known = await closing.known_ads(tx, [UUID(bytes=ad_id) for ad_id in ads])
        self._known.update(ad_id.bytes for ad_id in known)

    async def _keep_bad(self, partition: int, batch: BatchShown) -> None:
        late = [
            LateEvent(
                UUID(bytes=e.jti),
                UUID(bytes=e.ad_id),
                day_from_number(e.day),
                e.kind,
                e.cost_micros,
                e.reason,
                partition,
                e.offset,
            )
            for e in batch.shown.late
        ]
        async with self._sessions.begin() as tx:
            await dead_letters.park(tx, batch.letters, wall=datetime.now(UTC))
            await closing.record_late(tx, late, now=self._now())

    @staticmethod
    def _count(batch: BatchShown) -> None:
        ACCEPTED.inc(batch.shown.accepted)
        DUPLICATES.inc(batch.shown.duplicates)
        for late in batch.shown.late:
            LATE.labels(late.reason).inc()
            log.error("ad_event_late", event_id=str(UUID(bytes=late.jti)), reason=late.reason, offset=late.offset)
        for letter in batch.letters:
            BAD.labels(letter.reason).inc()
            log.error("ad_record_dead", partition=letter.partition, offset=letter.offset, reason=letter.reason)

    @staticmethod
    async def _retry(what: str, effect: Callable[[], Awaitable[None]]) -> None:
        """Until it works: the batch is durable and stays unacknowledged, so nothing is lost by waiting."""
        tries = 0
        while True:
            try:
                return await effect()
            except TRANSIENT as exc:
                log.warning("effect_retried", effect=what, tries=tries, error=repr(exc))
                await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
                tries += 1


def decode(message: Any) -> Columns | Letter:
    """A record's columns, or the letter that says what is wrong with it."""
    try:
        event_type, fields = decode_dict(message.value)
        if event_type != "ad_events":
            return letter_of(AD_COUNTERS, message, "unexpected_type", f"{event_type} does not belong on {AD_EVENTS}")
        return unpack(fields)
    except UndecodableError as exc:
        return letter_of(AD_COUNTERS, message, exc.reason, str(exc))
    except MalformedBatchError as exc:
        return letter_of(AD_COUNTERS, message, "malformed_batch", str(exc))

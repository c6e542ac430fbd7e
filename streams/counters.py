"""Folds ad events into counters per ad and day: each event once, whatever is repeated, whenever. Pure.

Table keys of a partition, all prefixed by the shard so that each can be scanned on its own:

    c <shard> <day> <ad id>       impressions, clicks, spend_micros, settled per open served minute
    s <shard> <bucket> <offset>   ids seen, packed (streams/seen.py)
    w <shard>                     the watermark (streams/watermarks.py)
    x <offset>                    late events of a batch, until they are known to be kept outside
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from schemas.ad_columns import Columns
from streams.ad_day import AdDay
from streams.seen import Seen, bucket_prefix, mark_key, shard_prefix
from streams.watermarks import COUNTERS_KEPT_DAYS, DAY_S, MINUTE_S, NEVER, Grace, Watermark

_DAY_PREFIX = struct.Struct(">sHI")
_SHARD_KEY = struct.Struct(">sH")
_LATE_KEY = struct.Struct(">sQ")
_LATE = struct.Struct("<16s16sIBI?Q")
DAY_CLOSED: Final = "day_closed"
TOO_LATE: Final = "too_late"  #: whether it is a repeat can no longer be told
PRUNED_MAX: Final = 2_000  #: table entries that one batch deletes at most

Known = set[bytes] | frozenset[bytes]
Get = Callable[[bytes], bytes | None]
Scan = Callable[[bytes], Iterable[tuple[bytes, bytes]]]
ScanRange = Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]


class Late(NamedTuple):
    """An event that cannot be counted any more."""

    jti: bytes
    ad_id: bytes
    day: int
    kind: int
    cost_micros: int
    reason: str  #: DAY_CLOSED or TOO_LATE
    offset: int


def pack_late(late: Iterable[Late]) -> bytes:
    """Late events as a table's value."""
    return b"".join([_LATE.pack(*event[:5], event.reason == DAY_CLOSED, event.offset) for event in late])


def unpack_late(packed: bytes) -> list[Late]:
    """From a table's value."""
    return [
        Late(jti, ad_id, day, kind, cost, DAY_CLOSED if day_closed else TOO_LATE, offset)
        for jti, ad_id, day, kind, cost, day_closed, offset in _LATE.iter_unpack(packed)
    ]


@dataclass(slots=True)
class ShardShown:
    """What a batch changed on one shard."""

    watermark_us: int | None = None
    ticked: bool = False
    days: list[AdDay] = field(default_factory=list)


@dataclass(slots=True)
class Shown:
    """What a batch has to show once it is durable."""

    shards: dict[int, ShardShown] = field(default_factory=dict)
    late: list[Late] = field(default_factory=list)
    unknown_ads: list[tuple[int, set[bytes]]] = field(default_factory=list)  #: (offset, ad ids nobody knows)
    accepted: int = 0
    duplicates: int = 0

    def shard(self, shard: int) -> ShardShown:
        found = self.shards.get(shard)
        if found is None:
            found = self.shards[shard] = ShardShown()
        return found


class Shard:
    """One shard's state in memory."""

    def __init__(self, number: int, grace: Grace, get: Get, scan: Scan) -> None:
        self.number = number
        self._get = get
        stored = get(_SHARD_KEY.pack(b"w", number))
        self.watermark = Watermark.unpack(grace, stored) if stored else Watermark(grace)
        self.seen = Seen(number, scan)
        self.days: dict[int, dict[bytes, AdDay]] = {}

    @property
    def watermark_key(self) -> bytes:
        return _SHARD_KEY.pack(b"w", self.number)

    def day(self, day: int, ad_id: bytes) -> AdDay:
        """The counters of an ad and day, from memory or the table."""
        return self.of_day(day).get(ad_id) or self.load(day, ad_id)

    def of_day(self, day: int) -> dict[bytes, AdDay]:
        """The day's counters that are in memory, by ad."""
        found = self.days.get(day)
        if found is None:
            found = self.days[day] = {}
        return found

    def load(self, day: int, ad_id: bytes) -> AdDay:
        """The counters of an ad and day that are not in memory, from the table."""
        found = AdDay(self.number, day, ad_id)
        stored = self._get(found.key)
        if stored:
            found = AdDay.unpack(found.key, stored)
        self.of_day(day)[ad_id] = found
        return found


class Counters:
    """One partition's state: it holds the shards whose key leads there."""

    def __init__(self, grace: Grace, *, get: Get, scan: Scan, scan_range: ScanRange) -> None:
        self._grace = grace
        self._get, self._scan, self._scan_range = get, scan, scan_range
        self.shards: dict[int, Shard] = {}
        for key, _ in scan(b"w"):
            self.shard(_SHARD_KEY.unpack(key)[1])
        self._owed: dict[bytes, list[Late]] = {key: unpack_late(packed) for key, packed in scan(b"x")}
        self._paid: list[bytes] = []

    def shard(self, number: int) -> Shard:
        """The shard's state, made when it is met for the first time."""
        found = self.shards.get(number)
        if found is None:
            found = self.shards[number] = Shard(number, self._grace, self._get, self._scan)
        return found

    def fold(self, records: Sequence[tuple[int, Columns]], known: Known) -> tuple[dict[bytes, bytes | None], Shown]:
        """Count records ``(offset, columns)`` in order; new table values and what to show.

        `known` holds the ids of ads that exist; events of others are left out, not marked, and named.
        """
        changes: dict[bytes, bytes | None] = dict.fromkeys(self._paid)
        self._paid.clear()
        shown = Shown()
        dirty: list[AdDay] = []
        for offset, columns in records:
            shard = self.shard(columns.shard)
            if columns.tick_us is not None:
                self._tick(shard, columns.tick_us, shown)
            if columns.kind:
                _Batch(shard, offset, columns, known, changes, shown, dirty).count()
        for day in dirty:
            day.dirty = False
            changes[day.key] = day.pack(self.shards[day.shard].watermark.open_minute)
            shown.shard(day.shard).days.append(day)
        for number, part in shown.shards.items():
            if part.ticked:
                shard = self.shards[number]
                changes[shard.watermark_key] = shard.watermark.pack()
                self._prune(shard, changes)
        if shown.late:
            key = _LATE_KEY.pack(b"x", records[-1][0])
            changes[key], self._owed[key] = pack_late(shown.late), shown.late
        return changes, shown

    def repeat(self, records: Iterable[tuple[int, Columns]], *, last: bool) -> Shown:
        """The present values of whatever `records`, which are contained already, had touched.

        The watermark only with the `last` of them: it closes minutes, so every counter before it must be shown first.
        """
        shown = Shown(late=[late for part in self._owed.values() for late in part])
        for _, columns in records:
            shard = self.shard(columns.shard)
            part = shown.shard(columns.shard)
            touched = {(iat // DAY_S, columns.ads[ad]) for iat, ad in zip(columns.iat_s, columns.ad, strict=True)}
            days = [shard.day(day, ad_id) for day, ad_id in touched]
            part.days += [day for day in days if day.impressions or day.clicks]
        for number, shard in self.shards.items() if last else ():
            if shard.watermark.until_us != NEVER:
                part = shown.shard(number)
                part.watermark_us, part.ticked = shard.watermark.until_us, True
        return shown

    def late_kept(self) -> None:
        """All late events that were shown so far are kept outside: the table may let go of them."""
        self._paid += self._owed
        self._owed.clear()

    def of_shard(self, number: int, day: int | None = None) -> Iterator[AdDay]:
        """All counters of a shard, or of one of its days, from the table."""
        prefix = _SHARD_KEY.pack(b"c", number) if day is None else _DAY_PREFIX.pack(b"c", number, day)
        for key, value in self._scan(prefix):
            yield AdDay.unpack(key, value)

    def _tick(self, shard: Shard, tick_us: int, shown: Shown) -> None:
        shard.watermark.advance(tick_us)
        part = shown.shard(shard.number)
        part.watermark_us, part.ticked = shard.watermark.until_us, True

    def _prune(self, shard: Shard, changes: dict[bytes, bytes | None]) -> None:
        """Let go of marks and counters that are past use, a bounded number at a time."""
        watermark, number = shard.watermark, shard.number
        shard.seen.freeze(watermark.live_bucket)
        room = PRUNED_MAX
        spans = (
            (shard_prefix(number), bucket_prefix(number, max(0, watermark.oldest_bucket))),
            (
                _SHARD_KEY.pack(b"c", number),
                _DAY_PREFIX.pack(b"c", number, max(0, watermark.closed_day - COUNTERS_KEPT_DAYS)),
            ),
        )
        for start, stop in spans:
            for key, _ in self._scan_range(start, stop):
                if room == 0:
                    return
                room -= 1
                changes[key] = None
        closed = watermark.closed_day
        for old in [day for day in shard.days if day <= closed]:
            del shard.days[old]


class _Batch:
    """Counting one record's events."""

    __slots__ = ("changes", "columns", "dirty", "known", "offset", "shard", "shown")

    def __init__(
        self,
        shard: Shard,
        offset: int,
        columns: Columns,
        known: Known,
        changes: dict[bytes, bytes | None],
        shown: Shown,
        dirty: list[AdDay],
    ) -> None:
        self.shard, self.offset, self.columns = shard, offset, columns
        self.known, self.changes, self.shown, self.dirty = known, changes, shown, dirty

    def count(self) -> None:
        """Whole columns at once where nothing is special; event by event where something is."""
        columns, watermark = self.columns, self.shard.watermark
        day = min(columns.iat_s) // DAY_S
        ordinary = (
            day == max(columns.iat_s) // DAY_S
            and day > watermark.closed_day
            and min(columns.exp_s) // MINUTE_S >= watermark.oldest_bucket
            and self.known.issuperset(columns.ads)
            and len(set(columns.jti)) == len(columns.jti)
        )
        if ordinary:
            self._add_all(day, self._mark_all())
        else:
            self._one_by_one()

    def _mark_all(self) -> set[bytes]:
        """Mark the new ids; those that are repeats."""
        repeats: set[bytes] = set()
        for bucket, ids in self._ids_by_bucket():
            seen = self.shard.seen.bucket(bucket, self.shard.watermark.live_bucket)
            known = seen.intersection(ids)
            new = [jti for jti in ids if jti not in known] if known else ids
            if new:
                seen.update(new)
                self.changes[mark_key(self.shard.number, bucket, self.offset)] = b"".join(new)
            repeats |= known
        return repeats

    def _ids_by_bucket(self) -> Iterable[tuple[int, Sequence[bytes]]]:
        columns = self.columns
        first, last = min(columns.exp_s) // MINUTE_S, max(columns.exp_s) // MINUTE_S
        if first == last:
            return ((first, columns.jti),)
        buckets: dict[int, list[bytes]] = {}
        for jti, exp_s in zip(columns.jti, columns.exp_s, strict=True):
            buckets.setdefault(exp_s // MINUTE_S, []).append(jti)
        return buckets.items()

    def _add_all(self, day: int, repeats: set[bytes]) -> None:
        """Count all events, which are of `day`, but for the repeats."""
        columns, shard = self.columns, self.shard
        self.shown.duplicates += len(repeats)
        self.shown.accepted += len(columns.kind) - len(repeats)
        if len(repeats) == len(columns.kind):
            return
        of_day = shard.of_day(day)
        days = [of_day.get(ad_id) or shard.load(day, ad_id) for ad_id in columns.ads]
        self._touch(days)
        rows = zip(columns.jti, columns.ad, columns.kind, columns.iat_s, columns.cost_micros, strict=True)
        for jti, ad, kind, iat_s, cost in rows:
            if repeats and jti in repeats:
                continue
            found = days[ad]
            if kind:
                found.clicks += 1
            else:
                found.impressions += 1
            if cost:
                found.spend_micros += cost
                minute, minutes = iat_s // MINUTE_S, found.minutes
                minutes[minute] = minutes.get(minute, 0) + cost

    def _touch(self, days: Iterable[AdDay]) -> None:
        for found in days:
            if not found.dirty:
                found.dirty = True
                self.dirty.append(found)

    def _one_by_one(self) -> None:
        marks: dict[int, list[bytes]] = {}
        unknown = {ad_id for ad_id in self.columns.ads if ad_id not in self.known}
        if unknown:
            self.shown.unknown_ads.append((self.offset, unknown))
        columns = self.columns
        for jti, ad, kind, iat_s, exp_s, cost in zip(
            columns.jti, columns.ad, columns.kind, columns.iat_s, columns.exp_s, columns.cost_micros, strict=True
        ):
            ad_id = columns.ads[ad]
            if ad_id not in unknown and self._is_countable(jti, ad_id, kind, iat_s, exp_s, cost):
                marks.setdefault(exp_s // MINUTE_S, []).append(jti)
                found = self.shard.day(iat_s // DAY_S, ad_id)
                self._touch((found,))
                _add(found, kind, iat_s, cost)
                self.shown.accepted += 1
        for bucket, ids in marks.items():
            self.changes[mark_key(self.shard.number, bucket, self.offset)] = b"".join(ids)

    def _is_countable(self, jti: bytes, ad_id: bytes, kind: int, iat_s: int, exp_s: int, cost: int) -> bool:
        """Whether the event is new and in time; it is marked as seen then."""
        watermark, bucket = self.shard.watermark, exp_s // MINUTE_S
        kept = bucket >= watermark.oldest_bucket
        if kept:
            seen = self.shard.seen.bucket(bucket, watermark.live_bucket)
            if jti in seen:
                self.shown.duplicates += 1
                return False
        closed = iat_s // DAY_S <= watermark.closed_day
        if closed or not kept:
            reason = DAY_CLOSED if closed else TOO_LATE
            self.shown.late.append(Late(jti, ad_id, iat_s // DAY_S, kind, cost, reason, self.offset))
            return False
        seen.add(jti)
        return True


def _add(day: AdDay, kind: int, iat_s: int, cost: int) -> None:
    if kind:
        day.clicks += 1
    else:
        day.impressions += 1
    if cost:
        day.spend_micros += cost
        minute = iat_s // MINUTE_S
        day.minutes[minute] = day.minutes.get(minute, 0) + cost

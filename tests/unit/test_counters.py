"""Counters: whatever is batched, repeated or delivered again after a crash, each event counts once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.ad_columns import Columns
from streams.counters import Counters, Late, Shown, pack_late, unpack_late
from streams.recount import Recount
from streams.watermarks import DAY_S, MICROS, Grace

GRACE = Grace(1800, 5)
START_S = 20_000 * DAY_S + 6 * 3600
SHARDS = (3, 7)
ADS = {shard: tuple(bytes([shard, n]) * 8 for n in range(6)) for shard in SHARDS}
KNOWN = frozenset(ad for ads in ADS.values() for ad in ads[:5])  #: each shard's last ad is unknown
STALE = 40  #: events from this number on are of a day that closed long ago

Record = tuple[int, Columns]


class Table:
    """What RocksDB is to the fold."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(k, v) for k, v in sorted(self.values.items()) if k.startswith(prefix)])

    def scan_range(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(k, v) for k, v in sorted(self.values.items()) if start <= k < stop])

    def apply(self, changes: dict[bytes, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value

    def open(self) -> Counters:
        return Counters(GRACE, get=self.get, scan=self.scan, scan_range=self.scan_range)


@dataclass
class Outside:
    """Redis and Postgres, as far as they matter here."""

    days: dict[tuple[int, int, bytes], tuple[int, int, int]] = field(default_factory=dict)
    late: dict[bytes, Late] = field(default_factory=dict)
    accepted: int = 0

    def show(self, shown: Shown, counters: Counters) -> None:
        self.late.update((late.jti, late) for late in shown.late)
        counters.late_kept()
        for shard, part in shown.shards.items():
            for day in part.days:
                values = (day.impressions, day.clicks, day.spend_micros)
                key = (shard, day.day, day.ad_id)
                if sum(self.days.get(key, (0, 0, 0))[:2]) < sum(values[:2]):
                    self.days[key] = values
            if part.watermark_us is not None:  # minutes close by it: all that it covers must be here by now
                assert all(
                    self.days.get((shard, day.day, day.ad_id)) == (day.impressions, day.clicks, day.spend_micros)
                    for day in counters.of_shard(shard)
                )


@dataclass(frozen=True)
class Step:
    """A tick so many seconds after the last one, or a record of events by number; or both."""

    shard: int
    tick_s: int | None
    events: tuple[int, ...]


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(SHARDS),
        st.none() | st.sampled_from((1, 30, 90, 600, 2400, 9000, DAY_S)),
        st.lists(st.integers(0, 50), max_size=6).map(tuple),
    ),
    max_size=25,
)


def records_of(plan: list[Step]) -> list[Record]:
    """The topic: an event comes in time when it comes for the first time, and at any time when it is repeated."""
    now_s, made, records = dict.fromkeys(SHARDS, START_S), {}, []
    for offset, step in enumerate(plan):
        tick_us = None
        if step.tick_s is not None:
            now_s[step.shard] += step.tick_s
            tick_us = now_s[step.shard] * MICROS
        rows = []
        for number in step.events:
            key = (step.shard, number)
            if key not in made:
                iat_s = now_s[step.shard] - number * 40 - (3 * DAY_S if number >= STALE else 0)
                made[key] = (bytes([step.shard, number]) * 8, number, iat_s)
            rows.append(made[key])
        every = ADS[step.shard]
        ads = tuple(dict.fromkeys(every[number % 6] for _, number, _ in rows))
        records.append(
            (
                offset,
                Columns(
                    shard=step.shard,
                    tick_us=tick_us,
                    ads=ads,
                    jti=tuple(jti for jti, _, _ in rows),
                    ad=tuple(ads.index(every[n % 6]) for _, n, _ in rows),
                    kind=bytes(n % 4 == 0 for _, n, _ in rows),
                    iat_s=tuple(iat_s for _, _, iat_s in rows),
                    exp_s=tuple(iat_s + GRACE.token_ttl_s for _, _, iat_s in rows),
                    cost_micros=tuple(0 if n % 4 == 0 else 100 + n for _, n, _ in rows),
                ),
            )
        )
    return records


def deliver(records: list[Record], data: st.DataObject) -> tuple[Table, Outside]:
    """Feed the fold as the runtime does, in batches of any size, with crashes at any point."""
    table, outside = Table(), Outside()
    counters, done, committed = table.open(), 0, 0
    while done < len(records):
        batch = records[done : done + data.draw(st.integers(1, 5))]
        changes, shown = counters.fold(batch, KNOWN)
        fate = data.draw(st.sampled_from(("well", "well", "lost", "durable", "shown")))
        if fate != "lost":
            table.apply(changes)
            done += len(batch)
            outside.accepted += shown.accepted
        if fate in ("well", "shown"):
            outside.show(shown, counters)
        if fate == "well":
            committed = data.draw(st.integers(committed, done))
            continue
        counters = table.open()
        while committed < done:
            piece = records[committed : min(done, committed + data.draw(st.integers(1, 4)))]
            committed += len(piece)
            outside.show(counters.repeat(piece, last=committed == done), counters)
    return table, outside


def recounted(records: list[Record]) -> tuple[dict[tuple[int, bytes], tuple[int, int, int]], set[bytes], set[bytes]]:
    """The oracle's totals by day and ad, its late events, its counted ones."""
    totals, late, counted = {}, set[bytes](), set[bytes]()
    for day in {iat_s // DAY_S for _, columns in records for iat_s in columns.iat_s}:
        recount = Recount(day, GRACE, KNOWN)
        for _, columns in records:
            recount.add(columns)
        totals.update({(day, ad): (t.impressions, t.clicks, t.spend_micros) for ad, t in recount.ads.items()})
        late |= recount.late
        counted |= recount.counted
    return totals, late, counted


@settings(max_examples=300, deadline=None)
@given(steps, st.data())
def test_any_batching_and_redelivery_counts_each_event_once(plan: list[Step], data: st.DataObject) -> None:
    records = records_of(plan)
    _, outside = deliver(records, data)
    totals, late, counted = recounted(records)
    assert {(day, ad): values for (_, day, ad), values in outside.days.items()} == totals
    assert outside.accepted == len(counted)
    assert late <= outside.late.keys() <= late | counted  # a repeat too old to be told from a new event is named too


@settings(max_examples=200, deadline=None)
@given(steps, st.data())
def test_the_table_is_the_same_however_it_was_written(plan: list[Step], data: st.DataObject) -> None:
    records = records_of(plan)
    crashed, _ = deliver(records, data)
    plain = Table()
    counters = plain.open()
    for record in records:
        changes, _ = counters.fold([record], KNOWN)
        plain.apply(changes)
    for prefix in (b"c", b"w"):
        assert _without_closed_minutes(crashed, prefix) == _without_closed_minutes(plain, prefix)


def _without_closed_minutes(table: Table, prefix: bytes) -> dict[bytes, bytes]:
    """Counters and watermarks; the open minutes of an ad are let go only when it is written."""
    return {key: value[:24] for key, value in table.scan(prefix)}


def test_a_late_event_is_named_again_until_it_is_known_to_be_kept() -> None:
    table = Table()
    counters = table.open()
    plan = [Step(3, 1, ()), Step(3, None, (STALE + 2,)), Step(3, 1, (1,))]
    records = records_of(plan)
    changes, shown = counters.fold(records[:2], KNOWN)
    table.apply(changes)
    assert [late.reason for late in shown.late] == ["day_closed"]

    again = table.open()  # a crash before it was kept
    assert again.repeat(records[:2], last=True).late == shown.late
    again.late_kept()
    assert again.repeat(records[:2], last=True).late == []
    changes, _ = again.fold(records[2:], KNOWN)
    table.apply(changes)
    assert table.open().repeat(records, last=True).late == []


def test_late_events_survive_packing() -> None:
    late = [
        Late(b"j" * 16, b"a" * 16, 20_000, 1, 4_000_000_000, "day_closed", 1 << 40),
        Late(b"k" * 16, b"b" * 16, 20_001, 0, 0, "too_late", 0),
    ]
    assert unpack_late(pack_late(late)) == late


def test_a_watermark_is_shown_only_with_the_last_of_what_is_repeated() -> None:
    table = Table()
    counters = table.open()
    records = records_of([Step(3, 1, (0, 1)), Step(3, None, (2, 3)), Step(3, 9000, ())])
    table.apply(counters.fold(records, KNOWN)[0])
    again = table.open()
    assert [part.watermark_us for part in again.repeat(records[:2], last=False).shards.values()] == [None]
    assert again.repeat(records[2:], last=True).shards[3].watermark_us == (START_S + 9001) * MICROS

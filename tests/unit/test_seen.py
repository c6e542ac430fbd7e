"""Marks of seen events: exact, whichever minutes are in memory, and gone when they are past use."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.seen import THAWED_MAX, Seen, bucket_prefix, mark_key, split_ids
from tests.unit.test_counters import GRACE, KNOWN, SHARDS, Step, Table, records_of

SHARD = 3


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_an_id_is_found_in_its_minute_through_every_freeze_and_thaw(seed: int) -> None:
    rng, table, truth, live = random.Random(seed), Table(), {}, 100
    seen = Seen(SHARD, table.scan)
    for offset in range(60):
        changes: dict[bytes, bytes | None] = {}
        for _ in range(rng.randrange(4)):
            bucket = live + rng.randrange(-12, 4)
            marks = seen.bucket(bucket, live)
            assert marks == truth.setdefault(bucket, set())
            fresh = {rng.randbytes(16) for _ in range(rng.randrange(1, 3))}
            marks |= fresh
            truth[bucket] |= fresh
            key = mark_key(SHARD, bucket, offset)
            changes[key] = (changes.get(key) or b"") + b"".join(fresh)
        table.apply(changes)  # the batch is durable
        live += rng.randrange(3)
        seen.freeze(live)
        assert len(seen._thawed) <= THAWED_MAX
        assert all(bucket >= live for bucket in seen._live)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=300))
def test_packed_ids_come_back(ids: list[bytes]) -> None:
    assert list(split_ids(b"".join(ids))) == ids


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**63), st.integers(0, 2**63))
def test_marks_of_a_minute_lie_together_and_in_the_order_of_minutes(bucket: int, a: int, b: int) -> None:
    assert mark_key(SHARD, bucket, a).startswith(bucket_prefix(SHARD, bucket))
    assert mark_key(SHARD, bucket, a) < mark_key(SHARD, bucket + 1, b)
    assert not mark_key(SHARD + 1, bucket, a).startswith(bucket_prefix(SHARD, bucket))


def test_marks_are_pruned_two_hours_past_their_tokens_end_and_not_a_minute_before() -> None:
    table = Table()
    counters = table.open()
    marks = [bucket_prefix(shard, 0)[:3] for shard in SHARDS]
    plan = [Step(3, 1, (0, 1)), Step(3, 1800 + 7200 - 60, ()), Step(3, 180, ())]
    first, before, after = records_of(plan)
    table.apply(counters.fold([first], KNOWN)[0])
    assert len(list(table.scan(marks[0]))) > 0
    table.apply(counters.fold([before], KNOWN)[0])
    assert len(list(table.scan(marks[0]))) > 0
    table.apply(counters.fold([after], KNOWN)[0])
    assert list(table.scan(marks[0])) == []
    assert GRACE.token_ttl_s == 1800

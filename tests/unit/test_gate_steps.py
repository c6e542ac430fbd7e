"""What the owner of a shard does about its gate, for everything that Postgres and Redis may say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from streams.gate import MARGIN_S, GateRecord, GateStep, next_step, reopens_at
from streams.watermarks import Grace

GRACE = Grace(1800, 5)
LOST = datetime(2026, 11, 24, 12, tzinfo=UTC)
EPOCHS = st.sampled_from([UUID(int=1), UUID(int=2)])
RUNS = st.sampled_from(["a" * 40, "b" * 40])
SECONDS = st.integers(-4000, 4000)


@given(st.none() | EPOCHS.map(str), st.none() | RUNS, RUNS, SECONDS)
def test_a_brand_new_system_opens_at_once(epoch: str | None, run_id: str | None, server: str, seconds: int) -> None:
    watermark = LOST + timedelta(seconds=seconds)
    step = next_step(None, epoch=epoch, run_id=run_id, server_run_id=server, watermark=watermark, grace=GRACE)
    assert step is GateStep.OPEN


@given(EPOCHS, RUNS, st.none() | EPOCHS.map(str), st.none() | RUNS, RUNS, SECONDS)
def test_a_lost_gate_opens_only_when_all_that_was_reserved_has_expired(
    known: UUID, known_run: str, epoch: str | None, run_id: str | None, server: str, seconds: int
) -> None:
    record, watermark = GateRecord(known, known_run, LOST), LOST + timedelta(seconds=seconds)
    step = next_step(record, epoch=epoch, run_id=run_id, server_run_id=server, watermark=watermark, grace=GRACE)
    expired = seconds >= MARGIN_S + GRACE.token_ttl_s + GRACE.skew_s
    assert step is (GateStep.REOPEN if expired else GateStep.NOTHING)
    assert reopens_at(LOST, GRACE) == LOST + timedelta(seconds=60 + 1800 + 5)


@given(EPOCHS, RUNS, st.none() | EPOCHS.map(str), st.none() | RUNS, RUNS, SECONDS)
def test_an_open_gate_is_lost_as_soon_as_redis_is_not_the_one_that_opened_it(
    known: UUID, known_run: str, epoch: str | None, run_id: str | None, server: str, seconds: int
) -> None:
    record, watermark = GateRecord(known, known_run, None), LOST + timedelta(seconds=seconds)
    step = next_step(record, epoch=epoch, run_id=run_id, server_run_id=server, watermark=watermark, grace=GRACE)
    intact = (epoch, run_id, server) == (str(known), known_run, known_run)
    assert step is (GateStep.NOTHING if intact else GateStep.MARK_LOST)

"""Shapes of health and operations."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, StringConstraints

from schemas.http.common import Body, Shape, Time

DeadLetterState = Literal["parked", "replayed", "discarded"]


class Health(Shape):
    status: Literal["ok"]


class SetClock(Body):
    """`null`: back to the wall clock, once that is later."""

    now: Time | None


class ClockOut(Shape):
    now: datetime


class OutboxOut(Shape):
    """`oldest_ms` is the wall time that the oldest unpublished row has waited."""

    pending: int
    oldest_ms: int
    parked_aggregates: int


class PartitionOut(Shape):
    """`applied_offset`: of the last record whose effect is durable, -1 before the first. `updated_at`: wall time."""

    partition: int
    applied_offset: int
    end_offset: int
    lag: int
    worker: str
    updated_at: datetime


class AgentOut(Shape):
    """`lag`: records that all partitions together have still to apply. An old `updated_at`: no worker has them."""

    agent: str
    topic: str
    lag: int
    updated_at: datetime
    partitions: list[PartitionOut]


class GateOut(Shape):
    shard: int
    state: str
    opened_at: datetime
    lost_at: datetime | None
    ticked_until: datetime | None


class DayOut(Shape):
    day: date
    shards_closed: int
    charged_at: datetime | None
    reconciled_at: datetime | None


class NewestReport(Shape):
    """The newest day that was reconciled; `differences` is how many there are."""

    day: date
    ok: bool
    closed: bool
    differences: int
    reconciled_at: datetime


class Overview(Shape):
    """The state of the streams in one look. `emails`, by status: those `unknown` may have been sent, or not."""

    now: datetime
    relay: OutboxOut
    agents: list[AgentOut]
    dead_letters: dict[str, int]
    emails: dict[str, int]
    gate: list[GateOut]
    days: list[DayOut]
    reconciliation: NewestReport | None


class DeadLetterOut(Shape):
    """A record that nobody could publish or process. `payload` is hexadecimal, `decoded` its fields if it has any.

    In a list, `payload` is null where it is large.
    """

    id: UUID
    source: str
    topic: str
    partition: int
    offset: int
    key: str
    event_id: UUID | None
    event_type: str | None
    reason: str
    error: str
    attempts: int
    status: DeadLetterState
    payload: str | None
    decoded: dict[str, Any] | None = None
    created_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    decision_reason: str | None


class Discard(Body):
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class ReconciliationOut(Shape):
    """The day's last report. While the day is open, the rollup's fields are null."""

    model_config = ConfigDict(extra="allow")

    day: date
    ok: bool
    closed: bool
    accepted: int
    impressions: int | None
    clicks: int | None
    spend_micros: int | None
    adjustments: int
    differences: list[dict[str, Any]]

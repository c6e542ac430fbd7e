"""Shapes of health and operations."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from schemas.http.common import Body, Shape, Time


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


class Overview(Shape):
    """The state of the streams in one look."""

    now: datetime
    relay: OutboxOut
    dead_letters: dict[str, int]
    gate: list[GateOut]
    days: list[DayOut]


class DeadLetterOut(Shape):
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
    status: Literal["parked", "replayed", "discarded"]
    payload: str
    created_at: datetime


class Discard(Body):
    reason: str

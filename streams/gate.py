"""When a shard's gate opens, closes and opens again. Pure; the agent that owns the shard acts on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from streams.watermarks import Grace

MARGIN_S = 60  #: how far apart the clocks may be of whoever reserved and whoever found the loss


@dataclass(frozen=True, slots=True)
class GateRecord:
    """What Postgres says of a shard's gate."""

    epoch: UUID
    run_id: str
    lost_at: datetime | None  #: logical; None: open


class GateStep(StrEnum):
    """What the owner has to do."""

    NOTHING = "nothing"
    OPEN = "open"  #: a brand-new system: nothing was ever reserved
    MARK_LOST = "mark_lost"  #: Redis does not hold the epoch that Postgres knows
    REOPEN = "reopen"  #: all that was reserved before the loss has expired


def reopens_at(lost_at: datetime, grace: Grace) -> datetime:
    """The watermark from which no token of before the loss can be counted any more."""
    return lost_at + timedelta(seconds=MARGIN_S + grace.seconds)


def next_step(
    record: GateRecord | None,
    *,
    epoch: str | None,
    run_id: str | None,
    server_run_id: str,
    watermark: datetime,
    grace: Grace,
) -> GateStep:
    """`epoch` and `run_id`: what the gate in Redis holds; `server_run_id`: of the server that answered."""
    if record is None:
        return GateStep.OPEN
    if record.lost_at is not None:
        return GateStep.REOPEN if watermark >= reopens_at(record.lost_at, grace) else GateStep.NOTHING
    intact = epoch == str(record.epoch) and run_id == server_run_id == record.run_id
    return GateStep.NOTHING if intact else GateStep.MARK_LOST

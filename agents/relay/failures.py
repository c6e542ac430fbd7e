"""What happens to rows that were refused: tried again ever more rarely, then a dead letter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from agents.relay.publish import Refused
from models.database import new_id
from models.outbox_commands import Connection, Refusal, park, record_failures
from schemas.registry import TOPIC_PREFIX

BACKOFF_S: Final = 0.2
BACKOFF_MAX_S: Final = 10.0


def retry_delay_s(attempts: int) -> float:
    """Time to wait after the given number of attempts: 0.2 s, doubled each time, 10 s at most."""
    return float(min(BACKOFF_MAX_S, BACKOFF_S * 2 ** min(attempts - 1, 16)))


def refusal(seq: int, attempts: int, refused: Refused, *, wall: datetime) -> Refusal:
    """The note of a row's refused attempt, its next one counted from `wall`."""
    due = wall + timedelta(seconds=retry_delay_s(attempts))
    return Refusal(seq, attempts, refused.error, refused.reason, due)


async def settle(db: Connection, refusals: Sequence[Refusal], *, attempts_max: int) -> list[Refusal]:
    """Note refused rows, and park those that used up their attempts; returns these."""
    if not refusals:
        return []
    await record_failures(db, refusals)
    spent = [item for item in refusals if item.attempts >= attempts_max]
    if spent:
        await park(db, spent, [new_id() for _ in spent], topic_prefix=TOPIC_PREFIX)
    return spent

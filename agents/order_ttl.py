"""The `order_ttl` agent: keeps a timer for each order that waits for its vendor (streams/timers.py says how).

Events write the table, here; what is due is done by the ticker (order_ticker.py), whose commands lead to events. A
record that cannot be folded becomes a dead letter and is skipped: as standings only move on, no later record of its key
has to wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from agents.outages import patiently
from agents.runtime.effects import letter_of, replayed_letter
from agents.runtime.store import StateReader
from models import dead_letter_commands, dead_letters
from models.database import SessionFactory
from models.dead_letters import Letter
from models.orders import reads
from schemas.codec import UndecodableError, decode
from schemas.records import Record
from schemas.registry import EVENTS
from streams.timers import Changes, Standing, Timers, told
from streams.topics import ORDER_TTL, ORDERS

log = structlog.get_logger(__name__)

RECORDS: Final = Counter("packstream_order_ttl_records_total", "records of orders folded into timers")
BAD: Final = Counter("packstream_order_ttl_dead_total", "records of orders that went to the dead letters", ["reason"])


@dataclass(frozen=True, slots=True)
class Shown:
    """What a batch has to bring outside."""

    letters: list[Letter] = field(default_factory=list)
    replayed: list[UUID] = field(default_factory=list)  #: letters whose replay was folded


@dataclass(frozen=True, slots=True)
class Told:
    """What a record says of orders."""

    orders: list[tuple[bytes, Standing]]
    record: Record


class OrderTtl:
    """The fold of `agents.runtime.bulk.BulkFold` for deadlines of orders."""

    def __init__(self, *, sessions: SessionFactory) -> None:
        self._sessions = sessions
        self._unknown: set[bytes] = set()  #: orders that Postgres did not have when it was asked last
        self._read: dict[tuple[int, int], Told | Letter] = {}  #: by partition and offset, until it is folded

    def open(self, partition: int, table: StateReader) -> Timers:
        """The partition's timers, all to be taken when due: some for the second time, which leads to nothing."""
        self._read = {place: found for place, found in self._read.items() if place[0] != partition}
        return Timers(get=table.get, scan_range=table.scan_range)

    async def prepare(self, messages: Sequence[Any]) -> None:
        """Ask Postgres which of the orders there are."""
        ids: set[bytes] = set()
        for message in messages:
            told_here = self._read[message.partition, message.offset] = read(message)
            if isinstance(told_here, Told):
                ids.update(order_id for order_id, _ in told_here.orders)
        found = await patiently("known_orders", partial(self._known, ids))
        self._unknown = (self._unknown | ids) - found

    def fold(self, state: Timers, messages: Sequence[Any]) -> tuple[Changes, Shown]:
        """Set and drop timers by what decodes and is known; letters for what is not."""
        news, shown = self._split(messages)
        return state.fold(news), shown

    def repeat(self, state: Timers, messages: Sequence[Any], *, last: bool) -> Shown:
        """Show again what was wrong with these records."""
        return self._split(messages)[1]

    async def show(self, partition: int, state: Timers, shown: Sequence[Shown]) -> None:
        """Keep the dead letters, and settle those whose replay went well."""
        for batch in shown:
            if batch.letters or batch.replayed:
                await patiently("keep_bad", partial(self._keep, batch))

    def _split(self, messages: Sequence[Any]) -> tuple[list[tuple[bytes, Standing]], Shown]:
        news: list[tuple[bytes, Standing]] = []
        shown = Shown()
        for message in messages:
            found = self._checked(message)
            replay_of = replayed_letter(message)
            if isinstance(found, Letter):
                shown.letters.append(found)
                continue
            news += found.orders
            if replay_of is not None:
                shown.replayed.append(replay_of)
        RECORDS.inc(len(messages))
        return news, shown

    def _checked(self, message: Any) -> Told | Letter:
        found = self._read.pop((message.partition, message.offset), None) or read(message)
        if isinstance(found, Letter):
            return found
        if unknown := sorted(str(UUID(bytes=order_id)) for order_id, _ in found.orders if order_id in self._unknown):
            return letter_of(ORDER_TTL, message, "unknown_order", f"no such orders: {', '.join(unknown)}", found.record)
        return found

    async def _known(self, ids: set[bytes]) -> set[bytes]:
        async with self._sessions() as tx:
            return {order_id.bytes for order_id in await reads.known(tx, [UUID(bytes=one) for one in ids])}

    async def _keep(self, batch: Shown) -> None:
        wall = datetime.now(UTC)
        async with self._sessions.begin() as tx:
            letters = [letter for letter in batch.letters if await _is_ours(tx, letter.replay_of)]
            await dead_letters.park(tx, letters, wall=wall)
            for letter_id in batch.replayed:
                if await _is_ours(tx, letter_id):
                    await dead_letter_commands.settle(tx, letter_id, wall=wall)
        for letter in letters:
            BAD.labels(letter.reason).inc()
            log.error("order_record_dead", partition=letter.partition, offset=letter.offset, reason=letter.reason)


async def _is_ours(tx: AsyncSession, replay_of: UUID | None) -> bool:
    """False of a record that is the replay of another agent's letter: here it was dealt with when it first came."""
    return replay_of is None or await dead_letters.source_of(tx, replay_of) in (ORDER_TTL, None)


def read(message: Any) -> Told | Letter:
    """What a record says, or the letter that says what is wrong with it."""
    try:
        record = decode(message.value)
    except UndecodableError as exc:
        return letter_of(ORDER_TTL, message, exc.reason, str(exc))
    if EVENTS[record.event_type].topic.name != ORDERS:
        error = f"{record.event_type} does not belong on {ORDERS}"
        return letter_of(ORDER_TTL, message, "unexpected_type", error, record)
    return Told(told(record), record)

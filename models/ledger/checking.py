"""Checking the whole ledger against itself, its seals, and the orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, cast, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.ledger.replay import Days, Fault, FaultCode, Standing, Written, order_faults
from models.ledger.rules import Entry, Posting
from models.ledger.tables import LedgerEvent, LedgerPosting, LedgerSeal
from models.orders.reads import Order, PaymentIntent
from models.orders.rules import IntentStatus, OrderStatus

BATCH: Final = 5_000
FAULTS_MAX: Final = 100  #: beyond that many, it is enough to know that there are more

_EVENTS: Final = LedgerEvent.__table__
_FIELDS: Final = [column.name for column in _EVENTS.columns if column.name != "hash"]


@dataclass
class Check:
    """What was found. `balances` are the accounts' sums; `sealed_until` and `seal` are the newest seal's."""

    orders: int = 0
    events: int = 0
    seals: int = 0
    sealed_until: date | None = None
    seal: bytes | None = None
    balances: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults

    def note(self, faults: Sequence[Fault]) -> None:
        """Keep the first FAULTS_MAX."""
        self.faults.extend(faults[: FAULTS_MAX - len(self.faults)])


async def one_moment(tx: AsyncSession) -> None:
    """Let a transaction that has not begun see everything as it is at one moment, and change nothing."""
    await tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))


async def check(tx: AsyncSession, *, progress: Callable[[int], None] = lambda events: None) -> Check:
    """Replay all of the ledger; `progress` hears of events that were read. Give it a transaction of `one_moment`."""
    found, days = Check(), Days()
    async for events in batches(tx):
        standings = await _standings(tx, {event.entry.order_id for event in events})
        for order_id, group in groupby(events, key=lambda event: event.entry.order_id):
            its = list(group)
            found.note(list(order_faults(its, standings.get(order_id))))
            found.orders += 1
            for event in its:
                days.add(event)
                for account, cents in event.entry.postings:
                    found.balances[account] += cents
        found.events += len(events)
        progress(len(events))
    await _check_seals(tx, found, days)
    found.note(await _orphans(tx))
    found.note(await _not_booked(tx))
    return found


async def noted_faults(tx: AsyncSession, noted: Mapping[date, str]) -> list[Fault]:
    """Seals, noted elsewhere as hashes in hexadecimal, that are not (any more) those of their days."""
    seals = {
        seal.day: seal.hash.hex() for seal in await tx.scalars(select(LedgerSeal).where(LedgerSeal.day.in_(noted)))
    }
    return [
        Fault(FaultCode.BROKEN_SEAL, "the seal that was noted elsewhere is another", day=day)
        for day, hash_ in noted.items()
        if seals.get(day) != hash_
    ]


async def count(tx: AsyncSession) -> int:
    """How many events there are."""
    return int(await tx.scalar(select(func.count()).select_from(LedgerEvent)) or 0)


async def _check_seals(tx: AsyncSession, found: Check, days: Days) -> None:
    seals = (await tx.scalars(select(LedgerSeal).order_by(LedgerSeal.day))).all()
    found.seals = len(seals)
    if seals:
        found.sealed_until, found.seal = seals[-1].day, seals[-1].hash
    found.note(list(days.faults(seals)))


async def batches(tx: AsyncSession) -> AsyncIterator[list[Written]]:
    """All events by order and sequence; those of an order are in one batch."""
    after: tuple[UUID, int] | None = None
    held: list[Written] = []
    while True:
        rows = await _rows(tx, after)
        if len(rows) < BATCH:
            yield held + rows
            return
        after = (rows[-1].entry.order_id, rows[-1].entry.sequence)
        whole = held + rows
        held = [event for event in whole if event.entry.order_id == after[0]]
        yield whole[: len(whole) - len(held)]


async def _rows(tx: AsyncSession, after: tuple[UUID, int] | None) -> list[Written]:
    query = select(_EVENTS).order_by(LedgerEvent.order_id, LedgerEvent.sequence).limit(BATCH)
    if after is not None:
        query = query.where(tuple_(LedgerEvent.order_id, LedgerEvent.sequence) > after)
    rows = (await tx.execute(query)).all()
    postings = await _postings(tx, [row.id for row in rows])
    return [_written(row, tuple(postings.get(row.id, ()))) for row in rows]


def _written(row: Any, postings: tuple[Posting, ...]) -> Written:
    return Written(Entry(**{name: getattr(row, name) for name in _FIELDS}, postings=postings), row.hash)


async def _postings(tx: AsyncSession, event_ids: Sequence[UUID]) -> dict[UUID, list[Posting]]:
    query = select(LedgerPosting.event_id, LedgerPosting.account, LedgerPosting.amount_cents)
    mine = LedgerPosting.event_id == any_(cast(list(event_ids), ARRAY(Uuid())))
    found: dict[UUID, list[Posting]] = {}
    for event_id, account, cents in await tx.execute(query.where(mine)):
        found.setdefault(event_id, []).append(Posting(account, cents))
    return found


async def _standings(tx: AsyncSession, order_ids: set[UUID]) -> dict[UUID, Standing]:
    query = (
        select(
            Order.id,
            Order.status,
            Order.total_cents,
            Order.payment_method,
            PaymentIntent.status,
            PaymentIntent.amount_cents,
        )
        .join(PaymentIntent, PaymentIntent.order_id == Order.id)
        .where(Order.id == any_(cast(list(order_ids), ARRAY(Uuid()))))
    )
    return {row[0]: Standing(*row[1:]) for row in await tx.execute(query)}


async def _orphans(tx: AsyncSession) -> list[Fault]:
    """Postings whose event is gone."""
    query = select(LedgerPosting.event_id).where(~select(1).where(LedgerEvent.id == LedgerPosting.event_id).exists())
    gone = await tx.scalars(query.distinct().limit(FAULTS_MAX))
    return [Fault(FaultCode.ORPHAN, "the event of these postings is gone", event_id=event_id) for event_id in gone]


async def _not_booked(tx: AsyncSession) -> list[Fault]:
    """Orders that are said to be settled, and of which the ledger knows nothing."""
    booked = select(1).where(LedgerEvent.order_id == Order.id).exists()
    said = PaymentIntent.status.in_([IntentStatus.SETTLED, IntentStatus.PAID]) | (Order.status == OrderStatus.CLOSED)
    query = select(Order.id, Order.status, PaymentIntent.status)
    query = query.join(PaymentIntent, PaymentIntent.order_id == Order.id).where(said, ~booked)
    return [
        Fault(FaultCode.DISAGREES, f"the order is {status}, its intent {intent}: nothing is booked", order_id=order_id)
        for order_id, status, intent in await tx.execute(query.order_by(Order.id).limit(FAULTS_MAX))
    ]

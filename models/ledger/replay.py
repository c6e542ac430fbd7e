"""Replaying the ledger: what is wrong with the events of an order, with the seals, with what orders say. Pure.

A fault names the row it was found at. One change may show at several places; the first is where it was made, or, where
rows are gone, the first that shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from models.ledger.rules import (
    DAY,
    GENESIS,
    SETTLEMENTS,
    Entry,
    EventType,
    digest,
    seal_digest,
)
from models.orders.rules import IntentStatus, OrderStatus, PaymentMethod


class FaultCode(StrEnum):
    GAP = "gap"  #: rows of an order are missing, or too many
    CHANGED = "changed"  #: a row or its postings are not what was hashed
    BROKEN_CHAIN = "broken_chain"  #: the hash of the order's event before it is another
    UNBALANCED = "unbalanced"  #: postings that do not sum to zero, or do not move the amount
    ORPHAN = "orphan"  #: postings of an event that is gone
    BROKEN_SEAL = "broken_seal"  #: a day is not what was sealed, or the seals do not follow each other
    DISAGREES = "disagrees"  #: an order or its intent says otherwise


class Fault(NamedTuple):
    """What is wrong, and with which row: an event, a seal, or an order."""

    code: FaultCode
    detail: str
    order_id: UUID | None = None
    event_id: UUID | None = None
    sequence: int | None = None
    day: date | None = None


class Written(NamedTuple):
    """A row of the ledger: the entry, and the hash that was kept with it."""

    entry: Entry
    hash: bytes


class Standing(NamedTuple):
    """What the order and its intent say."""

    status: str
    total_cents: int
    method: str
    intent_status: str
    intent_cents: int


class Seal(Protocol):
    """A day's seal."""

    @property
    def day(self) -> date: ...
    @property
    def events(self) -> int: ...
    @property
    def events_hash(self) -> bytes: ...
    @property
    def prev_hash(self) -> bytes: ...
    @property
    def hash(self) -> bytes: ...
    @property
    def sealed_at(self) -> datetime: ...


# Order and intent, by how many events an order has.
EXPECTED: Final[Mapping[int, tuple[str, str]]] = {
    1: (OrderStatus.DELIVERED, IntentStatus.SETTLED),
    2: (OrderStatus.CLOSED, IntentStatus.PAID),
}

# -- an order ---------------------------------------------------------------------------------------------------------


def order_faults(events: Sequence[Written], standing: Standing | None) -> Iterator[Fault]:
    """What is wrong with the events of one order, in sequence; `standing` is None where there is no such order."""
    broken = False
    for fault in _chain_faults(events):
        broken = True
        yield fault
    if not broken:  # what a broken chain says of money is of no use
        yield from _money_faults([event.entry for event in events], standing)


def _chain_faults(events: Sequence[Written]) -> Iterator[Fault]:
    sequence, prev_hash = 1, GENESIS
    for entry, kept in events:
        if entry.sequence != sequence:
            yield _at(entry, FaultCode.GAP, f"event {sequence} of the order is missing")
        elif digest(entry) != kept:
            yield _at(entry, FaultCode.CHANGED, "the row or its postings are not what was hashed")
        elif entry.prev_hash != prev_hash:
            yield _at(entry, FaultCode.BROKEN_CHAIN, "it does not follow the event before it")
        yield from _posting_faults(entry)
        sequence, prev_hash = entry.sequence + 1, kept


def _posting_faults(entry: Entry) -> Iterator[Fault]:
    amounts = [posting.amount_cents for posting in entry.postings]
    if len(amounts) < 2 or sum(amounts) != 0:
        yield _at(entry, FaultCode.UNBALANCED, f"its {len(amounts)} postings sum to {sum(amounts)}")
    elif sum(max(0, amount) for amount in amounts) != entry.amount_cents:
        yield _at(entry, FaultCode.UNBALANCED, f"its postings do not move its {entry.amount_cents} cents")


def _money_faults(entries: Sequence[Entry], standing: Standing | None) -> Iterator[Fault]:
    last = entries[-1]
    if standing is None:
        yield _at(last, FaultCode.DISAGREES, "there is no such order")
        return
    wanted = [SETTLEMENTS[PaymentMethod(standing.method)], EventType.VENDOR_PAYOUT][: len(entries)]
    found = [entry.type for entry in entries]
    if found != wanted:
        yield _at(last, FaultCode.DISAGREES, f"the order is paid by {standing.method}, its events are {found}")
        return
    for entry in entries:
        if {entry.amount_cents} != {standing.total_cents, standing.intent_cents}:
            said = f"the order says {standing.total_cents}, its intent {standing.intent_cents}"
            yield _at(entry, FaultCode.DISAGREES, f"{entry.amount_cents} cents were booked; {said}")
    if (standing.status, standing.intent_status) != EXPECTED[len(entries)]:
        said = f"the order is {standing.status}, its intent {standing.intent_status}"
        yield _at(last, FaultCode.DISAGREES, f"{said}; the ledger's last event is {last.type}")


def _at(entry: Entry, code: FaultCode, detail: str) -> Fault:
    return Fault(code, detail, entry.order_id, entry.id, entry.sequence, entry.day)


# -- days -------------------------------------------------------------------------------------------------------------


class Running(Protocol):
    """A hash that is being computed."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class Days:
    """What is booked on each day; events are added by order and sequence."""

    def __init__(self) -> None:
        self._events: dict[date, int] = {}
        self._hashes: dict[date, Running] = {}

    def add(self, event: Written) -> None:
        day = event.entry.day
        self._events[day] = self._events.get(day, 0) + 1
        self._hashes.setdefault(day, sha256()).update(event.hash)

    def faults(self, seals: Sequence[Seal]) -> Iterator[Fault]:
        """What is wrong with the seals, which are in the order of their days, and the days they seal."""
        prev_hash, expected = GENESIS, min(self._events, default=None)
        for seal in seals:
            if expected is not None and seal.day != expected:
                yield Fault(FaultCode.BROKEN_SEAL, f"the seal of {expected} is missing", day=expected)
            elif seal.prev_hash != prev_hash:
                yield Fault(FaultCode.BROKEN_SEAL, "it does not follow the seal before it", day=seal.day)
            if seal_digest(seal.day, seal.events, seal.events_hash, seal.prev_hash, seal.sealed_at) != seal.hash:
                yield Fault(FaultCode.BROKEN_SEAL, "the seal is not what was hashed", day=seal.day)
            yield from self._day_faults(seal)
            prev_hash, expected = seal.hash, seal.day + DAY

    def _day_faults(self, seal: Seal) -> Iterator[Fault]:
        events = self._events.get(seal.day, 0)
        if events != seal.events:
            yield Fault(FaultCode.BROKEN_SEAL, f"{seal.events} events were sealed, there are {events}", day=seal.day)
        elif self._hashes.get(seal.day, sha256()).digest() != seal.events_hash:
            yield Fault(FaultCode.BROKEN_SEAL, "its events are not those that were sealed", day=seal.day)

"""The books: what is posted for which event, and what binds the events of an order and the days together. Pure.

An event moves its amount between accounts: postings above zero are debits, below zero credits, and their sum is zero.
Cash or a bank transfer comes in for a delivered order and is owed to its vendor; the payout pays that, less the
platform's fee. Both events are of the order's total.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Final, NamedTuple
from uuid import UUID

from models.orders.rules import PaymentMethod

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY: Final = timedelta(days=1)
GENESIS: Final = bytes(32)  #: before an order's first event, and before the first seal


class EventType(StrEnum):
    CASH_COLLECTED = "cash_collected"
    ACH_SETTLED = "ach_settled"
    VENDOR_PAYOUT = "vendor_payout"


class Account(StrEnum):
    CASH = "cash"  #: what agents have collected and was not paid out
    BANK = "bank"  #: the same of bank transfers
    VENDOR_PAYABLE = "vendor_payable"  #: what is owed to vendors: a credit
    PLATFORM_FEES = "platform_fees"  #: what the platform has earned: a credit


SETTLEMENTS: Final = {
    PaymentMethod.CASH: EventType.CASH_COLLECTED,
    PaymentMethod.ACH: EventType.ACH_SETTLED,
}
HELD_IN: Final = {PaymentMethod.CASH: Account.CASH, PaymentMethod.ACH: Account.BANK}


class Posting(NamedTuple):
    account: str
    amount_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An event as it is hashed: all of it, with its postings and the hash of the order's event before it."""

    id: UUID
    order_id: UUID
    sequence: int  #: within the order, from 1, without a gap
    type: str
    amount_cents: int
    currency: str
    buyer_store_id: UUID
    vendor_store_id: UUID
    occurred_at: datetime
    day: date  #: on which it is booked
    actor: str
    postings: tuple[Posting, ...]
    prev_hash: bytes


def settlement(method: PaymentMethod, amount_cents: int) -> tuple[Posting, ...]:
    """The buyer has paid: we hold the amount, and owe it to the vendor."""
    return Posting(HELD_IN[method], amount_cents), Posting(Account.VENDOR_PAYABLE, -amount_cents)


def payout(method: PaymentMethod, amount_cents: int, fee_cents: int) -> tuple[Posting, ...]:
    """The vendor has been paid the amount less the fee: we owe nothing any more, and the fee is ours."""
    owed = Posting(Account.VENDOR_PAYABLE, amount_cents)
    paid = Posting(HELD_IN[method], fee_cents - amount_cents)
    return (owed, paid, Posting(Account.PLATFORM_FEES, -fee_cents)) if fee_cents else (owed, paid)


def fee_of(amount_cents: int, fee_bp: int) -> int:
    """The platform's part, rounded half to even."""
    return round(Fraction(amount_cents * fee_bp, 10_000))


def booking_day(occurred_at: datetime, last_sealed: date | None) -> date:
    """The UTC day of an event, or, where that is sealed, the first that is not."""
    day = occurred_at.astimezone(UTC).date()
    return day if last_sealed is None else max(day, last_sealed + DAY)


# -- hashes -----------------------------------------------------------------------------------------------------------


def digest(entry: Entry) -> bytes:
    """SHA-256 over the entry's canonical bytes: a JSON array of its fields, times in microseconds, postings sorted."""
    fields = [
        str(entry.id),
        str(entry.order_id),
        entry.sequence,
        entry.type,
        entry.amount_cents,
        entry.currency,
        str(entry.buyer_store_id),
        str(entry.vendor_store_id),
        _microseconds(entry.occurred_at),
        entry.day.isoformat(),
        entry.actor,
        sorted([str(account), amount] for account, amount in entry.postings),
        entry.prev_hash.hex(),
    ]
    return hashlib.sha256(json.dumps(fields, separators=(",", ":")).encode()).digest()


def events_digest(hashes: Iterable[bytes]) -> bytes:
    """SHA-256 over the hashes of a day's events, by order and sequence."""
    return hashlib.sha256(b"".join(hashes)).digest()


def seal_digest(day: date, events: int, events_hash: bytes, prev_hash: bytes, sealed_at: datetime) -> bytes:
    """SHA-256 over what a seal says of its day, when it was made, and the seal before it."""
    said = [day.isoformat(), events, events_hash.hex(), prev_hash.hex(), _microseconds(sealed_at)]
    return hashlib.sha256(json.dumps(said, separators=(",", ":")).encode()).digest()


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)

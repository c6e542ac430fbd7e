"""The books' arithmetic: postings balance whatever the amounts, a digest has everything in it, days follow seals."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ledger.replay import FaultCode, Standing, Written, order_faults
from models.ledger.rules import (
    GENESIS,
    Entry,
    EventType,
    Posting,
    booking_day,
    digest,
    fee_of,
    payout,
    settlement,
)
from models.orders.rules import PaymentMethod

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
TODAY = NOON.date()
CENTS = st.integers(0, 10**12)
METHODS = st.sampled_from(PaymentMethod)


def entry(**changes: Any) -> Entry:
    made = Entry(
        id=UUID(int=1), order_id=UUID(int=2), sequence=1, type=EventType.CASH_COLLECTED, amount_cents=1_000,
        currency="USD", buyer_store_id=UUID(int=3), vendor_store_id=UUID(int=4), occurred_at=NOON, day=TODAY,
        actor="user:5", postings=settlement(PaymentMethod.CASH, 1_000), prev_hash=GENESIS,
    )  # fmt: skip
    return replace(made, **changes)


@given(METHODS, CENTS, st.integers(0, 10_000))
def test_postings_balance_and_both_events_leave_nothing_but_the_fee(
    method: PaymentMethod, cents: int, fee_bp: int
) -> None:
    fee_cents = fee_of(cents, fee_bp)
    balances: dict[str, int] = {}
    for postings in (settlement(method, cents), payout(method, cents, fee_cents)):
        assert sum(posting.amount_cents for posting in postings) == 0
        assert sum(max(0, posting.amount_cents) for posting in postings) == cents
        assert len({posting.account for posting in postings}) == len(postings) >= 2
        for account, amount in postings:
            balances[account] = balances.get(account, 0) + amount
    assert 0 <= fee_cents <= cents
    assert {amount for amount in balances.values() if amount} == {fee_cents, -fee_cents} - {0}


@pytest.mark.parametrize(("cents", "fee_bp", "fee"), [(50, 100, 0), (150, 100, 2), (250, 100, 2), (1_000, 137, 14)])
def test_a_fee_is_rounded_half_to_even(cents: int, fee_bp: int, fee: int) -> None:
    assert fee_of(cents, fee_bp) == fee


def test_whatever_differs_gives_another_digest() -> None:
    other = entry(
        id=UUID(int=9), order_id=UUID(int=9), sequence=2, type=EventType.ACH_SETTLED, amount_cents=1_001,
        currency="EUR", buyer_store_id=UUID(int=9), vendor_store_id=UUID(int=9),
        occurred_at=NOON + timedelta(microseconds=1), day=TODAY + timedelta(days=1), actor="user:6",
        postings=(Posting("cash", 1_000), Posting("bank", -1_000)), prev_hash=bytes([1]) + bytes(31),
    )  # fmt: skip
    digests = {digest(replace(entry(), **{one.name: getattr(other, one.name)})) for one in fields(Entry)}
    assert len(digests | {digest(entry())}) == len(fields(Entry)) + 1
    assert digest(entry(postings=entry().postings[::-1])) == digest(entry())


def test_a_late_event_is_booked_on_the_first_day_that_is_not_sealed() -> None:
    for sealed, day in ((None, TODAY), (date(2027, 2, 28), TODAY), (TODAY, date(2027, 3, 2))):
        assert booking_day(NOON, sealed) == day
    assert booking_day(NOON, date(2027, 5, 31)) == date(2027, 6, 1)


def test_of_a_broken_chain_nothing_more_is_said_than_where_it_is() -> None:
    first = entry()
    second = entry(sequence=3, type=EventType.VENDOR_PAYOUT, prev_hash=digest(first))
    written = [Written(first, digest(first)), Written(second, digest(second))]
    standing = Standing("pending", 1, "ach", "unpaid", 1)
    assert [(fault.code, fault.sequence) for fault in order_faults(written, standing)] == [(FaultCode.GAP, 3)]

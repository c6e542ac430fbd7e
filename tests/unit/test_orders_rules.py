"""An order's life as one table, what lines amount to, and its money against a sum of its own."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import RateLimited, StateConflict
from models.orders.rules import (
    FALLEN,
    HOLDING,
    LineStatus,
    OrderAction,
    OrderStatus,
    Totals,
    Verdict,
    check_line,
    check_nudge,
    deadlines,
    decision,
    is_decided,
    is_done,
    next_status,
    stays_decided,
)

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
# As API.md has it: from, to.
LIFE = {
    "pending": {"accepted", "partially_accepted", "rejected", "canceled", "expired"},
    "accepted": {"ready_for_dispatch", "canceled"},
    "partially_accepted": {"ready_for_dispatch", "canceled"},
    "ready_for_dispatch": {"in_transit", "canceled"},
    "in_transit": {"delivered"},
    "delivered": {"closed"},
    "closed": set(),
    "rejected": set(),
    "canceled": set(),
    "expired": set(),
}


class Line(NamedTuple):
    line_subtotal_cents: int
    line_total_cents: int


lines = st.lists(
    st.integers(0, 100_000).flatmap(lambda subtotal: st.tuples(st.just(subtotal), st.integers(0, subtotal))),
    min_size=1,
    max_size=8,
).map(lambda pairs: [Line(*pair) for pair in pairs])


def test_an_order_moves_as_the_contract_says_and_no_other_way() -> None:
    moves: dict[str, set[str]] = {status.value: set() for status in OrderStatus}
    for status in OrderStatus:
        for action in OrderAction:
            with suppress(StateConflict):
                moves[status].add(next_status(status, action).value)
    assert {status: after - {status} for status, after in moves.items()} == LIFE


def test_an_order_holds_stock_until_it_falls_or_is_picked_up() -> None:
    assert {status for status in OrderStatus if "canceled" in LIFE[status]} == HOLDING
    assert {OrderStatus.REJECTED, OrderStatus.CANCELED, OrderStatus.EXPIRED} == FALLEN
    assert {status for status in OrderStatus if is_done(status, OrderAction.CANCEL)} == {OrderStatus.CANCELED}


def test_a_decision_is_repeated_where_it_led() -> None:
    accepted = {OrderStatus.ACCEPTED, OrderStatus.PARTIALLY_ACCEPTED}
    assert {status for status in OrderStatus if is_decided(status, Verdict.ACCEPT)} == accepted
    assert {status for status in OrderStatus if is_decided(status, Verdict.REJECT)} == {OrderStatus.REJECTED}
    assert {status for status in OrderStatus if stays_decided(status)} == accepted | {
        OrderStatus.PENDING,
        OrderStatus.REJECTED,
    }


@given(st.lists(st.sampled_from(LineStatus), min_size=1))
def test_an_order_is_decided_with_its_last_line(statuses: list[LineStatus]) -> None:
    counted = {status: statuses.count(status) for status in LineStatus}
    if counted[LineStatus.PENDING]:
        expected = OrderAction.DECIDE_LINES
    elif counted[LineStatus.ACCEPTED] == len(statuses):
        expected = OrderAction.ACCEPT
    else:
        expected = OrderAction.ACCEPT_PARTLY if counted[LineStatus.ACCEPTED] else OrderAction.REJECT
    assert decision(statuses) is expected


def test_a_line_is_decided_once() -> None:
    check_line(LineStatus.PENDING, OrderStatus.PENDING)
    for decided in (LineStatus.ACCEPTED, LineStatus.REJECTED):
        with pytest.raises(StateConflict, match="pending"):
            check_line(decided, OrderStatus.PENDING)


@given(lines, st.integers(0, 400_000), st.integers(0, 5_000), st.data())
def test_rejected_lines_take_exactly_their_totals_off(
    ordered: list[Line], promo: int, shipping: int, data: st.DataObject
) -> None:
    """Summed anew from the lines that stay: the promo takes off what it took, and never more than there is."""
    rejected = data.draw(st.lists(st.sampled_from(range(len(ordered))), unique=True))
    subtotal, goods = sum(line.line_subtotal_cents for line in ordered), sum(line.line_total_cents for line in ordered)
    taken = min(promo, goods)
    whole = Totals(subtotal, subtotal - goods + taken, shipping)

    left = whole.without(ordered[place] for place in rejected)

    staying = [line for place, line in enumerate(ordered) if place not in rejected]
    worth = max(0, sum(line.line_total_cents for line in staying) - taken)
    assert left.total_cents == worth + shipping
    assert left.subtotal_cents == sum(line.line_subtotal_cents for line in staying)
    assert left.discounts_cents == left.subtotal_cents - worth
    assert 0 <= left.discounts_cents <= left.subtotal_cents

    one_by_one = whole
    for place in rejected:
        one_by_one = one_by_one.without([ordered[place]])
    assert one_by_one == left


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_a_vendor_is_nudged_before_its_order_expires(ttl_s: int, nudge_s: int) -> None:
    nudge_at, expires_at = deadlines(NOON, ttl_s=ttl_s, nudge_s=nudge_s)
    assert expires_at - NOON == timedelta(seconds=ttl_s)
    assert nudge_at == min(expires_at, NOON + timedelta(seconds=nudge_s))


def test_a_nudge_waits_for_the_hour_to_be_over() -> None:
    check_nudge(None, NOON)
    check_nudge(NOON, NOON + timedelta(hours=1))
    for since, wait_s in (
        (timedelta(0), 3_600),
        (timedelta(minutes=59, seconds=59.5), 1),
        (-timedelta(hours=1), 7_200),
    ):
        with pytest.raises(RateLimited) as refused:
            check_nudge(NOON, NOON + since)
        assert refused.value.retry_after_s == wait_s

"""The demo's book of orders: where each has to stand in the end, and that it notices what is not so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops.demo.courses import (
    Course,
    Errand,
    LedgerSums,
    Line,
    OrderBook,
    OrderState,
    StoredOrders,
    Till,
    balances_of,
    check_orders,
    errand_of,
    events_of,
    fee_of,
    shelves_of,
    summary,
)

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
NEXT_DAY = NOON + timedelta(hours=24)
SHELVES = {"a": 100, "b": 100}
LINES = (Line("1", "a", 2, 1_000), Line("2", "b", 3, 4_001))


def errand(course: Course, id_: str = "o", *, method: str = "cash") -> Errand:
    return Errand(id_, NOON, course, method, LINES)


@pytest.mark.parametrize(
    ("course", "after", "state"),
    [
        (Course.PAID, 24, OrderState("closed", 5_001, "paid", False)),
        (Course.PARTLY, 24, OrderState("closed", 4_001, "paid", False)),
        (Course.DUE, 24, OrderState("delivered", 5_001, "settled", False)),
        (Course.REJECTED, 24, OrderState("rejected", 0, "canceled", False)),
        (Course.CANCELED, 24, OrderState("canceled", 5_001, "canceled", False)),
        (Course.ACCEPTED, 24, OrderState("accepted", 5_001, "unpaid", False)),
        (Course.IGNORED, 24, OrderState("expired", 5_001, "canceled", False)),
        (Course.IGNORED, 12, OrderState("pending", 5_001, "unpaid", True)),
        (Course.IGNORED, 11, OrderState("pending", 5_001, "unpaid", False)),
    ],
)
def test_where_an_order_has_to_stand(course: Course, after: int, state: OrderState) -> None:
    assert errand(course).state(NOON + timedelta(hours=after)) == state


def test_orders_of_the_first_day_go_all_ways_and_others_are_accepted_or_ignored() -> None:
    def courses(day: datetime) -> set[Course]:
        order = {"id": "o", "payment_method": "cash", "total_cents": 1}
        item = {"id": "l", "product_id": "a", "quantity": 1, "line_total_cents": 1}
        return {
            errand_of({**order, "total_cents": n, "line_items": [item] * 2}, day, first_day=NOON.date()).course
            for n in range(500)
        }

    assert courses(NOON) == set(Course) - {Course.ACCEPTED}
    assert courses(NEXT_DAY) == {Course.ACCEPTED, Course.IGNORED}


def book() -> OrderBook:
    """One order of each course, all answered as they should be."""
    errands = [errand(course, course.value, method="ach" if course is Course.PARTLY else "cash") for course in Course]
    fees = fee_of(5_001) + fee_of(4_001)
    till = Till(paid_out=9_002 - fees, fees=fees, orders_paid=2)
    till.collected.update(cash=5_001 + 5_001, ach=4_001)
    return OrderBook(errands, till)


def stored() -> StoredOrders:
    ours = book()
    return StoredOrders(
        now=NEXT_DAY,
        states={one.id: one.state(NEXT_DAY) for one in ours.errands},
        shelves={"a": (96, 2), "b": (91, 3)},
        ledger=LedgerSums(
            (), 5, {"cash": 125 + 5_001, "bank": 100, "vendor_payable": -5_001, "platform_fees": -225}
        ),
        told=events_of(ours, NEXT_DAY),
    )  # fmt: skip


def test_a_whole_day_adds_up() -> None:
    assert (fee_of(5_001), fee_of(4_001)) == (125, 100)
    assert check_orders(book(), stored(), SHELVES) == []
    assert shelves_of(book(), SHELVES, NEXT_DAY) == {"a": (96, 2), "b": (91, 3)}
    assert sum(balances_of(book()).values()) == 0
    assert events_of(book(), NEXT_DAY) == {
        "order_expired": 1, "order_decided": 7, "order_canceled": 1, "order_ready_for_dispatch": 3,
        "order_assigned": 3, "order_in_transit": 3, "order_delivered": 3, "cash_collected": 2, "ach_settled": 1,
        "order_paid": 2,
    }  # fmt: skip
    told = summary(book(), stored())
    assert (told.collected_cents, told.paid_out_cents, told.fee_cents, told.due_cents) == (14_003, 8_777, 225, 5_001)


@pytest.mark.parametrize(
    ("spoil", "level"),
    [
        (lambda rows: replace(rows, states={}), "order"),
        (lambda rows: replace(rows, states=rows.states | {"paid": OrderState("closed", 1, "paid", False)}), "order"),
        (lambda rows: replace(rows, states=rows.states | {"more": OrderState("closed", 1, "paid", False)}), "order"),
        (lambda rows: replace(rows, shelves={"a": (96, 2), "b": (91, 4)}), "shelves"),
        (lambda rows: replace(rows, told=rows.told | {"order_expired": 2}), "events"),
        (lambda rows: replace(rows, told=rows.told | {"order_nudged": 1}), "events"),
        (lambda rows: replace(rows, ledger=rows.ledger._replace(faults=["gap"])), "ledger check"),
        (lambda rows: replace(rows, ledger=rows.ledger._replace(balances={"cash": 1})), "ledger"),
    ],
)
def test_what_is_not_as_it_should_be_is_noticed(spoil: Callable[[StoredOrders], StoredOrders], level: str) -> None:
    assert level in {one.level for one in check_orders(book(), spoil(stored()), SHELVES)}


def test_money_that_is_missing_from_the_till_is_noticed() -> None:
    short = book()
    short.till.paid_out -= 1
    assert [one.level for one in check_orders(short, stored(), SHELVES)] == ["collected = paid out + fees + due"]

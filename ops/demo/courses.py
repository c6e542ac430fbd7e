"""What becomes of the demo's orders: who decides what, and where each order has to stand in the end. Pure.

On the first day orders go all the way from decision to payout, some of them another way; on the other days vendors
only accept. Some vendors do not answer at all: those orders are nudged and expire by the clock.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final, NamedTuple

from ops.demo.books import Difference, both_ways

FEE_BP: Final = 250  #: the platform's part of a payout, in the demo
NUDGE_AFTER: Final = timedelta(hours=12)
EXPIRES_AFTER: Final = timedelta(hours=24)
CENTS: Final = {"cash": "cash_collected", "ach": "ach_settled"}


class Course(StrEnum):
    PAID = "paid"  #: accepted, delivered, settled, paid out
    PARTLY = "partly"  #: the same, after one line was rejected
    DUE = "due"  #: as far as settled; its payout is still due
    REJECTED = "rejected"
    CANCELED = "canceled"  #: by the buyer, once it was accepted
    IGNORED = "ignored"
    ACCEPTED = "accepted"


# Of sixteen orders of the first day, and of any other.
FIRST_DAY: Final = (
    *(Course.PAID,) * 9,
    *(Course.PARTLY,) * 2,
    Course.DUE,
    Course.REJECTED,
    Course.CANCELED,
    *(Course.IGNORED,) * 2,
)
OTHER_DAYS: Final = (*(Course.ACCEPTED,) * 15, Course.IGNORED)
DELIVERED: Final = frozenset({Course.PAID, Course.PARTLY, Course.DUE})


class OrderState(NamedTuple):
    """Where an order stands."""

    status: str
    total_cents: int
    payment: str  #: the intent's status
    nudged: bool


@dataclass(frozen=True, slots=True)
class Line:
    id: str
    product_id: str
    quantity: int
    total_cents: int


@dataclass(frozen=True, slots=True)
class Errand:
    """An order with what is to become of it; `lines` as they were placed."""

    id: str
    placed_at: datetime
    course: Course
    method: str  #: cash or ach
    lines: Sequence[Line]

    @property
    def refused_line(self) -> Line | None:
        """The line that the vendor rejects beside accepting the others."""
        return self.lines[0] if self.course is Course.PARTLY else None

    @property
    def kept_lines(self) -> Sequence[Line]:
        return self.lines[1:] if self.course is Course.PARTLY else self.lines

    @property
    def total_cents(self) -> int:
        """Of the order in the end: a rejected line is not in it."""
        return 0 if self.course is Course.REJECTED else sum(line.total_cents for line in self.kept_lines)

    def nudged(self, now: datetime) -> bool:
        """Whether it waits, and its vendor was asked. One that has expired may have been: the clock moves in leaps."""
        return self.course is Course.IGNORED and self.placed_at + NUDGE_AFTER <= now < self.placed_at + EXPIRES_AFTER

    def expired(self, now: datetime) -> bool:
        return self.course is Course.IGNORED and self.placed_at + EXPIRES_AFTER <= now

    def state(self, now: datetime) -> OrderState:
        """Where it has to stand when all is done and the clock shows `now`."""
        status, payment = {
            Course.PAID: ("closed", "paid"),
            Course.PARTLY: ("closed", "paid"),
            Course.DUE: ("delivered", "settled"),
            Course.REJECTED: ("rejected", "canceled"),
            Course.CANCELED: ("canceled", "canceled"),
            Course.ACCEPTED: ("accepted", "unpaid"),
            Course.IGNORED: ("expired", "canceled") if self.expired(now) else ("pending", "unpaid"),
        }[self.course]
        return OrderState(status, self.total_cents, payment, self.nudged(now))


def errand_of(order: Mapping[str, Any], placed_at: datetime, *, first_day: date) -> Errand:
    """What is to become of an order, as the checkout answered it: by its number, the same in every run."""
    lines = [
        Line(line["id"], line["product_id"], line["quantity"], line["line_total_cents"]) for line in order["line_items"]
    ]
    dice = zlib.crc32(f"{placed_at.isoformat()} {len(lines)} {order['total_cents']}".encode())
    course = FIRST_DAY[dice % 16] if placed_at.date() == first_day else OTHER_DAYS[dice % 16]
    if course is Course.PARTLY and len(lines) < 2:
        course = Course.PAID
    return Errand(order["id"], placed_at, course, order["payment_method"], lines)


def fee_of(cents: int) -> int:
    """The platform's part, half to even."""
    return round(Fraction(cents * FEE_BP, 10_000))


@dataclass(slots=True)
class Till:
    """What the answers said of money: cents."""

    collected: Counter[str] = field(default_factory=Counter)  #: by method
    paid_out: int = 0
    fees: int = 0
    orders_paid: int = 0


@dataclass(slots=True)
class OrderBook:
    """Every order that was placed, and what was answered about it."""

    errands: list[Errand] = field(default_factory=list)
    till: Till = field(default_factory=Till)
    failures: list[str] = field(default_factory=list)


class LedgerSums(NamedTuple):
    """What the ledger has: the check of `packstream ledger check`, and its accounts."""

    faults: Sequence[str]
    events: int
    balances: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StoredOrders:
    """What Postgres has of orders, shelves, money and events when all is settled."""

    now: datetime  #: the logical clock
    states: Mapping[str, OrderState]
    shelves: Mapping[str, tuple[int, int]]  #: by product: on hand, reserved
    ledger: LedgerSums
    told: Mapping[str, int]  #: events of orders, by type


def check_orders(book: OrderBook, stored: StoredOrders, shelves: Mapping[str, int]) -> list[Difference]:
    """Orders, shelves, events and money against our own books, in both directions; `shelves` as they were filled."""
    due = {errand.id: _as_nudged(errand.state(stored.now), stored.states.get(errand.id)) for errand in book.errands}
    told = {**events_of(book, stored.now), **_nudges(stored)}
    return [
        *(Difference("orders after checkout", failure, "an answer", None) for failure in book.failures),
        *both_ways("order", due, stored.states),
        *both_ways("shelves", shelves_of(book, shelves, stored.now), stored.shelves),
        *both_ways("events", told, stored.told),
        *(Difference("ledger check", fault, "whole books", "a fault") for fault in stored.ledger.faults),
        *both_ways("ledger", balances_of(book), {k: v for k, v in stored.ledger.balances.items() if v}),
        *_till(book),
    ]


def _as_nudged(due: OrderState, found: OrderState | None) -> OrderState:
    """An expired order may have been nudged before, or not."""
    return due._replace(nudged=found.nudged) if found and due.status == "expired" else due


def _nudges(stored: StoredOrders) -> dict[str, int]:
    """As many events as there are orders that say so."""
    count = sum(state.nudged for state in stored.states.values())
    return {"order_nudged": count} if count else {}


def shelves_of(book: OrderBook, filled: Mapping[str, int], now: datetime) -> dict[str, tuple[int, int]]:
    """By product: what has not left, and what open orders hold of it."""
    gone, held = Counter[str](), Counter[str]()
    for errand in book.errands:
        if errand.course in DELIVERED:
            gone.update({line.product_id: line.quantity for line in errand.kept_lines})
        elif errand.course is Course.ACCEPTED or (errand.course is Course.IGNORED and not errand.expired(now)):
            held.update({line.product_id: line.quantity for line in errand.lines})
    return {product: (units - gone[product], held[product]) for product, units in filled.items()}


def events_of(book: OrderBook, now: datetime) -> dict[str, int]:
    """How many of each type must have been told, nudges apart."""
    found = Counter[str]()
    for errand in book.errands:
        course = errand.course
        if course is Course.IGNORED:
            found.update(order_expired=errand.expired(now))
        else:
            found.update(order_decided=1 + (course is Course.PARTLY), order_canceled=course is Course.CANCELED)
        if course in DELIVERED:
            found.update(order_ready_for_dispatch=1, order_assigned=1, order_in_transit=1, order_delivered=1)
            found.update({CENTS[errand.method]: 1, "order_paid": course is not Course.DUE})
    return {kind: count for kind, count in found.items() if count}


def balances_of(book: OrderBook) -> dict[str, int]:
    """The ledger's accounts as they have to be: debits above zero."""
    found = Counter[str]()
    for errand in book.errands:
        if errand.course not in DELIVERED:
            continue
        held, total = {"cash": "cash", "ach": "bank"}[errand.method], errand.total_cents
        if errand.course is Course.DUE:
            found.update({held: total, "vendor_payable": -total})
        else:
            found.update({held: fee_of(total), "platform_fees": -fee_of(total)})
    return {account: cents for account, cents in found.items() if cents}


def _till(book: OrderBook) -> Iterable[Difference]:
    """Collected = paid to vendors + fees + still due, by the answers alone."""
    due = sum(errand.total_cents for errand in book.errands if errand.course is Course.DUE)
    collected, spent = book.till.collected.total(), book.till.paid_out + book.till.fees + due
    if collected != spent:
        yield Difference("collected = paid out + fees + due", "cents", collected, spent)


@dataclass(frozen=True, slots=True)
class OrdersSummary:
    """For the report: orders by outcome, and the books in cents."""

    outcomes: dict[str, int]
    nudged: int
    collected_cents: int
    paid_out_cents: int
    fee_cents: int
    due_cents: int
    ledger_events: int


def summary(book: OrderBook, stored: StoredOrders) -> OrdersSummary:
    """By the system's orders and ledger, not by our books."""
    balances = stored.ledger.balances
    paid = [state for state in stored.states.values() if state.payment == "paid"]
    settled = [state for state in stored.states.values() if state.payment == "settled"]
    fees = -balances.get("platform_fees", 0)
    return OrdersSummary(
        outcomes=dict(sorted(Counter(state.status for state in stored.states.values()).items())),
        nudged=sum(state.nudged for state in stored.states.values()),
        collected_cents=sum(state.total_cents for state in (*paid, *settled)),
        paid_out_cents=sum(state.total_cents for state in paid) - fees,
        fee_cents=fees,
        due_cents=-balances.get("vendor_payable", 0),
        ledger_events=stored.ledger.events,
    )

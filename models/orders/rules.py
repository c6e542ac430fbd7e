"""Orders: their life in one table, what a decision on lines means, and the money of an order. Pure, in integer cents.

pending → accepted | partially_accepted | rejected | canceled | expired; accepted and partially_accepted →
ready_for_dispatch → in_transit → delivered → closed. A buyer may cancel until the order is in transit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from models.errors import RateLimited, StateConflict

NUDGE_EVERY: Final = timedelta(hours=1)


class OrderStatus(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    PARTIALLY_ACCEPTED = "partially_accepted"
    REJECTED = "rejected"
    CANCELED = "canceled"
    EXPIRED = "expired"
    READY_FOR_DISPATCH = "ready_for_dispatch"
    IN_TRANSIT = "in_transit"
    DELIVERED = "delivered"
    CLOSED = "closed"


class OrderAction(StrEnum):
    """What may be done to an order. Some leave its status as it is, and yet are not possible in every one."""

    ACCEPT = "accept"  #: every line is accepted
    ACCEPT_PARTLY = "accept_partly"  #: every line is decided, some are accepted
    REJECT = "reject"  #: every line is rejected
    DECIDE_LINES = "decide_lines"  #: some lines stay undecided
    NUDGE = "nudge"
    CANCEL = "cancel"
    EXPIRE = "expire"
    RETRY = "retry"  #: makes another order
    FULFIL = "fulfil"
    ASSIGN = "assign"
    PICK_UP = "pick_up"
    DELIVER = "deliver"
    SETTLE = "settle"  #: cash collected, or the ACH transfer settled
    CONFIRM_PAID = "confirm_paid"  #: the vendor says so; it moves no money
    PAY = "pay"  #: the payout is confirmed


class LineStatus(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Verdict(StrEnum):
    """What a vendor says to an order or to a line."""

    ACCEPT = "accept"
    REJECT = "reject"


class IntentStatus(StrEnum):
    UNPAID = "unpaid"
    SETTLED = "settled"
    PAID = "paid"
    CANCELED = "canceled"


class PaymentMethod(StrEnum):
    CASH = "cash"
    ACH = "ach"


class RejectionReason(StrEnum):
    """Why checkout (or a retry) could not take a line, or a vendor's every line."""

    INSUFFICIENT_STOCK = "insufficient_stock"
    PRODUCT_UNAVAILABLE = "product_unavailable"
    VENDOR_NOT_ELIGIBLE = "vendor_not_eligible"


_S, _A = OrderStatus, OrderAction

TRANSITIONS: Final[Mapping[tuple[OrderStatus, OrderAction], OrderStatus]] = {
    (_S.PENDING, _A.ACCEPT): _S.ACCEPTED,
    (_S.PENDING, _A.ACCEPT_PARTLY): _S.PARTIALLY_ACCEPTED,
    (_S.PENDING, _A.REJECT): _S.REJECTED,
    (_S.PENDING, _A.DECIDE_LINES): _S.PENDING,
    (_S.PENDING, _A.NUDGE): _S.PENDING,
    (_S.PENDING, _A.EXPIRE): _S.EXPIRED,
    (_S.PENDING, _A.CANCEL): _S.CANCELED,
    (_S.ACCEPTED, _A.CANCEL): _S.CANCELED,
    (_S.PARTIALLY_ACCEPTED, _A.CANCEL): _S.CANCELED,
    (_S.READY_FOR_DISPATCH, _A.CANCEL): _S.CANCELED,
    (_S.EXPIRED, _A.RETRY): _S.EXPIRED,
    (_S.ACCEPTED, _A.FULFIL): _S.READY_FOR_DISPATCH,
    (_S.PARTIALLY_ACCEPTED, _A.FULFIL): _S.READY_FOR_DISPATCH,
    (_S.READY_FOR_DISPATCH, _A.ASSIGN): _S.READY_FOR_DISPATCH,
    (_S.READY_FOR_DISPATCH, _A.PICK_UP): _S.IN_TRANSIT,
    (_S.IN_TRANSIT, _A.DELIVER): _S.DELIVERED,
    (_S.DELIVERED, _A.SETTLE): _S.DELIVERED,
    (_S.DELIVERED, _A.CONFIRM_PAID): _S.DELIVERED,
    (_S.CLOSED, _A.CONFIRM_PAID): _S.CLOSED,
    (_S.DELIVERED, _A.PAY): _S.CLOSED,
}
# Where an action has led, for one that is asked for again. Those that leave the status alone are not told by it.
TARGETS: Final[Mapping[OrderAction, frozenset[OrderStatus]]] = {
    action: frozenset(after for (before, done), after in TRANSITIONS.items() if done is action and before is not after)
    for action in OrderAction
}

# Reached, these end an order: its intent is canceled and its stock given back.
FALLEN: Final = frozenset({_S.REJECTED, _S.CANCELED, _S.EXPIRED})
# Between checkout and pickup an order holds stock for each line that is not rejected.
HOLDING: Final = frozenset({_S.PENDING, _S.ACCEPTED, _S.PARTIALLY_ACCEPTED, _S.READY_FOR_DISPATCH})


def next_status(current: OrderStatus, action: OrderAction) -> OrderStatus:
    """The status that `action` leads to; StateConflict where the order's state forbids it."""
    try:
        return TRANSITIONS[current, action]
    except KeyError:
        raise StateConflict(current=current, action=action) from None


def is_done(current: OrderStatus, action: OrderAction) -> bool:
    """Whether the order is where `action` leads: whoever asks for it again gets the same answer."""
    return current in TARGETS[action]


def decision(lines: Collection[LineStatus]) -> OrderAction:
    """What the states of an order's lines amount to. One that checkout rejected counts like one the vendor did."""
    if LineStatus.PENDING in lines:
        return OrderAction.DECIDE_LINES
    if LineStatus.ACCEPTED not in lines:
        return OrderAction.REJECT
    return OrderAction.ACCEPT_PARTLY if LineStatus.REJECTED in lines else OrderAction.ACCEPT


def is_decided(current: OrderStatus, verdict: Verdict) -> bool:
    """Whether the order is where the verdict has led; an order of which lines are rejected is still one accepted."""
    if verdict is Verdict.REJECT:
        return is_done(current, OrderAction.REJECT)
    return is_done(current, OrderAction.ACCEPT) or is_done(current, OrderAction.ACCEPT_PARTLY)


def stays_decided(current: OrderStatus) -> bool:
    """Whether decisions on lines may be asked for again: from the first on, until the order moves on."""
    return current is OrderStatus.PENDING or any(is_decided(current, verdict) for verdict in Verdict)


def check_line(current: LineStatus, order: OrderStatus) -> None:
    """A line is decided once: StateConflict for one that was decided otherwise."""
    if current is not LineStatus.PENDING:
        raise StateConflict(current=order, action=f"another decision on a line that is {current}")


def check_nudge(nudged_at: datetime | None, now: datetime) -> None:
    """RateLimited within NUDGE_EVERY of the last nudge, whoever gave it, the clock included."""
    if nudged_at is not None and now < nudged_at + NUDGE_EVERY:
        wait = nudged_at + NUDGE_EVERY - now
        raise RateLimited("the vendor was nudged within the hour", retry_after_s=-(-wait // timedelta(seconds=1)))


def deadlines(placed_at: datetime, *, ttl_s: int, nudge_s: int) -> tuple[datetime, datetime]:
    """When the vendor is nudged, and when the order expires: never the other way round."""
    return placed_at + timedelta(seconds=min(nudge_s, ttl_s)), placed_at + timedelta(seconds=ttl_s)


# -- money ------------------------------------------------------------------------------------------------------------


class Priced(Protocol):
    """A line of a cart or an order."""

    @property
    def line_subtotal_cents(self) -> int: ...
    @property
    def line_total_cents(self) -> int: ...


class Totals(NamedTuple):
    """An order's money: `total_cents` is `subtotal - discounts + shipping`."""

    subtotal_cents: int
    discounts_cents: int  #: volume and promo
    shipping_cents: int

    @property
    def goods_cents(self) -> int:
        """What the lines cost, without shipping."""
        return self.subtotal_cents - self.discounts_cents

    @property
    def total_cents(self) -> int:
        return self.goods_cents + self.shipping_cents

    def without(self, rejected: Iterable[Priced]) -> Totals:
        """The totals once these lines are rejected, whether at once or one after the other.

        Each takes exactly its `line_total_cents` off the goods, which never fall below zero: the promo keeps its
        amount, though there be less left than it takes off. Shipping stays.
        """
        lines = list(rejected)
        subtotal = self.subtotal_cents - sum(line.line_subtotal_cents for line in lines)
        goods = max(0, self.goods_cents - sum(line.line_total_cents for line in lines))
        return Totals(subtotal, subtotal - goods, self.shipping_cents)


def order_number(placed_at: datetime, serial: int) -> str:
    """How people name an order: the UTC day it was placed on, and a serial number of all orders."""
    return f"PS-{placed_at:%y%m%d}-{serial:06d}"

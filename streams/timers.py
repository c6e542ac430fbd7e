"""Orders' deadlines as timers: what an order's events mean for them, and which are due. Pure.

Table keys of a partition:

    o <order id>                        the order's standing: its stage, and both deadlines
    t <deadline> <kind> <order id>      a timer; the deadline is big-endian, so the table's order is the index

Deadlines are whole seconds since 1970, rounded up: nothing is due early. Events write the table; timers only command,
and what they lead to comes back as an event. A standing only ever moves on, so an event that is repeated, or comes
after a newer one, changes nothing: a settled order keeps its standing until its deadline has passed. An event that is
repeated even later brings back a timer that is due at once, and leads to nothing; such a timer is reported as spent,
and the next fold drops it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import islice
from typing import Final, NamedTuple

from schemas.records import CheckoutConverted, OrderSnapshot, Record

Get = Callable[[bytes], bytes | None]
ScanRange = Callable[[bytes, bytes], Iterable[tuple[bytes, bytes]]]
Changes = dict[bytes, bytes | None]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)
PENDING: Final = "pending"  #: the one status in which an order waits for its vendor
SPENT_DROPPED_MAX: Final = 2_000  #: by one fold
DEADLINE_S_MAX: Final = (1 << 63) - 1
_STANDING = struct.Struct(">BQQ")
_TIMER = struct.Struct(">sQB16s")
_TIMERS_AT = struct.Struct(">sQ")


class Stage(IntEnum):
    """How far an order has come, as far as its deadlines go."""

    WAITING = 0
    NUDGED = 1  #: by the buyer or by the clock; it may still expire
    SETTLED = 2  #: neither nudged nor expired any more


class Kind(IntEnum):
    EXPIRE = 0
    NUDGE = 1
    FORGET = 2  #: what is kept of a settled order is not needed any more


class Timer(NamedTuple):
    """Something to do about an order from a time on."""

    deadline_s: int
    kind: Kind
    order_id: bytes

    @property
    def key(self) -> bytes:
        return _TIMER.pack(b"t", self.deadline_s, self.kind, self.order_id)

    @classmethod
    def of_key(cls, key: bytes) -> Timer:
        _, deadline_s, kind, order_id = _TIMER.unpack(key)
        return cls(deadline_s, Kind(kind), order_id)


class Standing(NamedTuple):
    """What the table keeps of an order."""

    stage: Stage
    nudge_s: int
    expire_s: int

    def joined(self, other: Standing) -> Standing:
        """What both say together: the later of each. So neither order nor repetition of events matters."""
        return Standing(
            max(self.stage, other.stage), max(self.nudge_s, other.nudge_s), max(self.expire_s, other.expire_s)
        )

    def timers(self, order_id: bytes) -> set[Timer]:
        """The timers that go with it. An order that is to be nudged only when it expires is not nudged."""
        if self.stage is Stage.SETTLED:
            return {Timer(self.expire_s, Kind.FORGET, order_id)}
        found = {Timer(self.expire_s, Kind.EXPIRE, order_id)}
        if self.stage is Stage.WAITING and self.nudge_s < self.expire_s:
            found.add(Timer(self.nudge_s, Kind.NUDGE, order_id))
        return found

    def after(self, kind: Kind) -> Standing | None:
        """What is left once a timer of its own is spent."""
        return self._replace(stage=Stage.NUDGED) if kind is Kind.NUDGE else None

    def pack(self) -> bytes:
        return _STANDING.pack(*self)

    @classmethod
    def unpack(cls, packed: bytes) -> Standing:
        stage, nudge_s, expire_s = _STANDING.unpack(packed)
        return cls(Stage(stage), nudge_s, expire_s)


def standing_key(order_id: bytes) -> bytes:
    """The table's key for an order."""
    return b"o" + order_id


def told(event: Record) -> list[tuple[bytes, Standing]]:
    """What an event of the orders topic says of the orders in it: whatever its type, they are in it as they became."""
    snapshots: list[OrderSnapshot] = event.orders if isinstance(event, CheckoutConverted) else [event.order]  # type: ignore[attr-defined]
    return [(order.order_id.bytes, standing_of(order)) for order in snapshots]


def standing_of(order: OrderSnapshot) -> Standing:
    """An order's standing as a snapshot tells it."""
    waiting = Stage.WAITING if order.nudged_at is None else Stage.NUDGED
    stage = waiting if order.status == PENDING else Stage.SETTLED
    return Standing(stage, _second_from(order.nudge_at), _second_from(order.expires_at))


def _second_from(at: datetime) -> int:
    """The first whole second at or after a time."""
    return max(0, -((EPOCH - at) // SECOND))


class Timers:
    """One partition's timers: folded from events, taken when due."""

    def __init__(self, *, get: Get, scan_range: ScanRange) -> None:
        self._get, self._scan_range = get, scan_range
        self._low = _TIMERS_AT.pack(b"t", 0)  #: no timer of the table before it is still to be taken
        self._again: dict[Timer, int] = {}  #: to be taken though they lie before it, and not before which second
        self._spent: dict[Timer, None] = {}
        self.pending: Counter[Kind] = Counter(timer.kind for timer in self._between(self._low, DEADLINE_S_MAX))

    def fold(self, news: Iterable[tuple[bytes, Standing]]) -> Changes:
        """Take in what events say of orders, by id, and drop what is spent; what that changes in the table."""
        changes: Changes = {}
        for timer in list(islice(self._spent, SPENT_DROPPED_MAX)):
            del self._spent[timer]
            before = self._standing(timer.order_id, changes)
            if before is not None and timer in before.timers(timer.order_id):
                self._change(timer.order_id, before, before.after(timer.kind), changes)
        for order_id, said in news:
            before = self._standing(order_id, changes)
            self._change(order_id, before, said if before is None else before.joined(said), changes)
        return changes

    def due(self, now_s: float, limit: int) -> list[Timer]:
        """Take the timers that are due, at most `limit`, those that were put back first, then by their deadlines.

        None is taken again, unless by another object of this class: one that leads to an event is dropped by it, one
        that leads to nothing is to be reported as `spent`, and `put_back` is for what could not be done now.
        """
        now_s = int(now_s)
        taken = list(islice((timer for timer, from_s in self._again.items() if from_s <= now_s), limit))
        for timer in taken:
            del self._again[timer]
        fresh = list(islice(self._between(self._low, now_s + 1), limit - len(taken)))
        if len(taken) + len(fresh) < limit:
            self._low = max(self._low, _TIMERS_AT.pack(b"t", now_s + 1))
        elif fresh:
            self._low = fresh[-1].key + b"\0"
        return taken + fresh

    def spent(self, timers: Iterable[Timer]) -> None:
        """These led to nothing: their orders are no longer what they were for. The next fold drops them."""
        self._spent.update(dict.fromkeys(timers))

    def put_back(self, timers: Iterable[Timer], *, from_s: float) -> None:
        """These are to be taken again, but not before a second from now on."""
        self._again.update(dict.fromkeys(timers, int(from_s)))

    def _standing(self, order_id: bytes, changes: Changes) -> Standing | None:
        key = standing_key(order_id)
        packed = changes[key] if key in changes else self._get(key)
        return None if packed is None else Standing.unpack(packed)

    def _change(self, order_id: bytes, before: Standing | None, after: Standing | None, changes: Changes) -> None:
        if before == after:
            return
        changes[standing_key(order_id)] = None if after is None else after.pack()
        had = before.timers(order_id) if before else set()
        has = after.timers(order_id) if after else set()
        for timer in had - has:
            changes[timer.key] = None
            self.pending[timer.kind] -= 1
            self._again.pop(timer, None)
        for timer in has - had:
            changes[timer.key] = b""
            self.pending[timer.kind] += 1
            if timer.key < self._low:
                self._again[timer] = 0

    def _between(self, start: bytes, stop_s: int) -> Iterator[Timer]:
        stop = _TIMERS_AT.pack(b"t", stop_s)
        if start < stop:
            for key, _ in self._scan_range(start, stop):
                yield Timer.of_key(key)

"""Timers of orders: whatever is repeated, late, or lost in a crash, each fires in its time, and leaves nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import CheckoutConverted, OrderDecided, OrderSnapshot, Record, ShipTo
from streams.timers import Changes, Kind, Stage, Standing, Timer, Timers, standing_of, told

START = datetime(2027, 3, 1, 12, tzinfo=UTC)
START_S = int(START.timestamp())
ORDERS = [UUID(int=n).bytes for n in range(1, 9)]
LIMIT = 3  #: timers taken at once


class Table:
    """What RocksDB is to the fold."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def scan_range(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter([(k, v) for k, v in sorted(self.values.items()) if start <= k < stop])

    def apply(self, changes: Changes) -> None:
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value

    def open(self) -> Timers:
        return Timers(get=self.values.get, scan_range=self.scan_range)


def snapshot(
    order_id: UUID = UUID(int=1), status: str = "pending", *, nudged: bool = False, **deadlines: timedelta
) -> OrderSnapshot:
    """An order placed at START."""
    return OrderSnapshot(
        order_id=order_id,
        number="PS-1",
        checkout_group_id=UUID(int=7),
        cart_id=UUID(int=8),
        buyer_store_id=UUID(int=9),
        vendor_store_id=UUID(int=10),
        status=status,
        currency="USD",
        subtotal_cents=1,
        discounts_cents=0,
        shipping_cents=0,
        total_cents=1,
        payment_method="cash",
        payment_intent_id=UUID(int=11),
        payment_status="unpaid",
        ship_to=ShipTo(city="Portland", state="OR", postal_code="97201", country="US"),
        created_at=START,
        nudge_at=START + deadlines.get("nudge", timedelta(hours=12)),
        expires_at=START + deadlines.get("expire", timedelta(hours=24)),
        lines=[],
        nudged_at=START if nudged else None,
    )


def checkout(*orders: OrderSnapshot) -> Record:
    return CheckoutConverted(
        event_id=UUID(int=7),
        occurred_at=START,
        actor="test",
        checkout_group_id=UUID(int=7),
        cart_id=UUID(int=8),
        buyer_store_id=UUID(int=9),
        currency="USD",
        total_cents=1,
        orders=list(orders),
    )


def decided(order: OrderSnapshot) -> Record:
    return OrderDecided(
        event_id=UUID(int=12),
        occurred_at=START,
        actor="test",
        checkout_group_id=UUID(int=7),
        order=order,
        decided_lines=[],
    )


# -- what events mean -------------------------------------------------------------------------------------------------


def test_a_checkout_sets_both_deadlines_of_each_of_its_orders() -> None:
    orders = [snapshot(UUID(int=1)), snapshot(UUID(int=2))]
    table = Table()
    table.apply(table.open().fold(told(checkout(*orders))))
    timers = [Timer.of_key(key) for key in sorted(table.values) if key.startswith(b"t")]
    half, end = START_S + 12 * 3600, START_S + 24 * 3600
    ids = [order.order_id.bytes for order in orders]
    assert timers == [Timer(half, Kind.NUDGE, one) for one in ids] + [Timer(end, Kind.EXPIRE, one) for one in ids]


def test_an_order_that_is_decided_in_part_still_waits_and_one_that_is_nudged_only_expires() -> None:
    assert standing_of(snapshot()).stage is Stage.WAITING
    assert standing_of(snapshot(nudged=True)).stage is Stage.NUDGED
    (partly,) = told(decided(snapshot(nudged=True)))
    assert {timer.kind for timer in partly[1].timers(partly[0])} == {Kind.EXPIRE}


def test_every_status_but_pending_settles() -> None:
    for status in ("accepted", "partially_accepted", "rejected", "canceled", "expired", "in_transit", "closed"):
        (found,) = told(decided(snapshot(status=status)))
        assert {timer.kind for timer in found[1].timers(found[0])} == {Kind.FORGET}


def test_an_order_is_not_nudged_in_the_second_in_which_it_expires() -> None:
    standing = standing_of(snapshot(nudge=timedelta(hours=24)))
    assert {timer.kind for timer in standing.timers(ORDERS[0])} == {Kind.EXPIRE}


@given(st.integers(0, 3_000_000))
def test_a_deadline_within_a_second_is_due_at_its_end_never_before(micros: int) -> None:
    order = snapshot(nudge=timedelta(0), expire=timedelta(microseconds=micros))
    due_s = standing_of(order).expire_s
    assert timedelta(0) <= datetime.fromtimestamp(due_s, UTC) - order.expires_at < timedelta(seconds=1)


def test_a_repeated_checkout_after_the_decision_brings_no_timer_back() -> None:
    table = Table()
    placed, settled = told(checkout(snapshot())), told(decided(snapshot(status="accepted")))
    for news in (placed, settled, placed):
        table.apply(table.open().fold(news))
    kinds = [Timer.of_key(key).kind for key in table.values if key.startswith(b"t")]
    assert kinds == [Kind.FORGET]


# -- against a naive oracle -------------------------------------------------------------------------------------------

News = tuple[bytes, Standing]


def standings(rng: random.Random) -> dict[bytes, list[Standing]]:
    """What will be told of each order, in the order in which it happens."""
    found = {}
    for order_id in ORDERS:
        nudge_s = START_S + rng.randrange(20)
        expire_s = nudge_s + rng.randrange(20)
        stages = sorted(rng.sample(list(Stage), rng.randrange(1, 4)))
        found[order_id] = [Standing(stage, nudge_s, expire_s) for stage in stages]
    return found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_neither_order_nor_repetition_nor_batches_matter(seed: int) -> None:
    rng = random.Random(seed)
    once = [(order_id, one) for order_id, said in standings(rng).items() for one in said]
    latest = dict(once)
    messy = [*once, *rng.choices(once, k=10)]
    rng.shuffle(messy)
    table, timers = Table(), Table().open()
    timers = table.open()
    while messy:
        cut = rng.randrange(1, 6)
        table.apply(timers.fold(messy[:cut]))
        messy = messy[cut:]
        if rng.random() < 0.3:
            timers = table.open()
    wanted = {timer.key for order_id, standing in latest.items() for timer in standing.timers(order_id)}
    assert {key for key in table.values if key.startswith(b"t")} == wanted
    assert sum(timers.pending.values()) == len(wanted)
    assert +timers.pending == +table.open().pending


@dataclass
class Authority:
    """Postgres: the orders' rows, and the events that changes of them lead to."""

    rows: dict[bytes, Standing] = field(default_factory=dict)
    outbox: list[News] = field(default_factory=list)
    did: list[tuple[int, Kind, bytes]] = field(default_factory=list)

    def place(self, order_id: bytes, nudge_s: int, expire_s: int) -> None:
        self._write(order_id, Standing(Stage.WAITING, nudge_s, expire_s))

    def settle(self, order_id: bytes) -> None:
        """The vendor decides, if it is not too late."""
        row = self.rows[order_id]
        if row.stage is not Stage.SETTLED:
            self._write(order_id, row._replace(stage=Stage.SETTLED))

    def command(self, kind: Kind, order_id: bytes, now_s: int) -> str:
        row = self.rows[order_id]
        if row.stage is Stage.SETTLED or (kind is Kind.NUDGE and (row.stage is Stage.NUDGED or row.expire_s <= now_s)):
            return "spent"
        if now_s < (row.nudge_s if kind is Kind.NUDGE else row.expire_s):
            return "waiting"
        self.did.append((now_s, kind, order_id))
        self._write(order_id, row._replace(stage=Stage.NUDGED if kind is Kind.NUDGE else Stage.SETTLED))
        return "done"

    def _write(self, order_id: bytes, row: Standing) -> None:
        self.rows[order_id] = row
        self.outbox.append((order_id, row))


class System:
    """The fold and the ticker around one partition; a crash loses all but the table and the authority."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.table, self.authority = rng, Table(), Authority()
        self.timers, self.now_s, self.read = self.table.open(), START_S, 0

    def fold(self) -> None:
        """Some of what is in the topic; at times from an earlier place on, and at times the batch is lost."""
        start = self.rng.randrange(self.read + 1) if self.rng.random() < 0.2 else self.read
        stop = min(len(self.authority.outbox), start + self.rng.randrange(1, 8))
        changes = self.timers.fold(self.authority.outbox[start:stop])
        if self.rng.random() < 0.1:
            self.timers = self.table.open()
            return
        self.table.apply(changes)
        self.read = max(self.read, stop)

    def tick(self, *, calm: bool = False) -> None:
        """Fire; at times the process dies before or after a command, or a row is locked."""
        for timer in self.timers.due(self.now_s, LIMIT):
            chance = 1.0 if calm else self.rng.random()
            if timer.kind is Kind.FORGET:
                self.timers.spent([timer])
            elif chance < 0.1:
                self.timers = self.table.open()
                return
            elif chance < 0.2:
                self.timers.put_back([timer], from_s=self.now_s + 1)
            else:
                self.command(timer)
                if chance < 0.3:
                    self.timers = self.table.open()
                    return

    def command(self, timer: Timer) -> None:
        outcome = self.authority.command(timer.kind, timer.order_id, self.now_s)
        assert outcome != "waiting", "fired before its deadline"
        if outcome == "spent":
            self.timers.spent([timer])

    def drain(self) -> None:
        """Nothing fails any more: all that is in the topic is folded, all that is due is fired, time goes by."""
        for _ in range(120):
            self.table.apply(self.timers.fold(self.authority.outbox[self.read :]))
            self.read = len(self.authority.outbox)
            self.tick(calm=True)
            self.now_s += 1


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32))
def test_each_deadline_leads_to_one_command_in_its_time_and_the_table_ends_empty(seed: int) -> None:
    rng = random.Random(seed)
    system = System(rng)
    for order_id in ORDERS:
        nudge_s = START_S + rng.randrange(20)
        system.authority.place(order_id, nudge_s, nudge_s + rng.randrange(20))
    for _ in range(60):
        step = rng.random()
        if step < 0.4:
            system.fold()
        elif step < 0.7:
            system.tick()
        elif step < 0.9:
            system.now_s += rng.randrange(3)
        else:
            system.authority.settle(rng.choice(ORDERS))
    system.drain()
    did = [(kind, order_id) for _, kind, order_id in system.authority.did]
    assert len(did) == len(set(did)), "done twice"
    assert all(row.stage is Stage.SETTLED for row in system.authority.rows.values())
    assert system.table.values == {}, "something is left of orders that are over"
    assert +system.timers.pending == {}


def test_nothing_is_taken_before_it_is_due_and_nothing_twice() -> None:
    table = Table()
    timers = table.open()
    table.apply(timers.fold([(one, Standing(Stage.NUDGED, START_S, START_S + n)) for n, one in enumerate(ORDERS)]))
    taken: list[Timer] = []
    for now_s in range(START_S, START_S + 10):
        found = timers.due(now_s + 0.9, 100)
        assert [timer.deadline_s for timer in found] == [now_s] * (now_s < START_S + len(ORDERS))
        taken += found
    assert len(taken) == len(set(taken)) == len(ORDERS)


def test_a_timer_that_comes_past_its_time_is_taken_at_once() -> None:
    table = Table()
    timers = table.open()
    assert timers.due(START_S + 100, LIMIT) == []
    table.apply(timers.fold([(ORDERS[0], Standing(Stage.NUDGED, START_S, START_S + 5))]))
    assert timers.due(START_S + 100, LIMIT) == [Timer(START_S + 5, Kind.EXPIRE, ORDERS[0])]


def test_a_timer_found_spent_after_its_order_was_settled_leaves_what_the_order_keeps() -> None:
    table = Table()
    timers = table.open()
    waiting = Standing(Stage.NUDGED, START_S, START_S + 5)
    table.apply(timers.fold([(ORDERS[0], waiting)]))
    (taken,) = timers.due(START_S + 5, LIMIT)
    table.apply(timers.fold([(ORDERS[0], waiting._replace(stage=Stage.SETTLED))]))
    timers.spent([taken])
    assert timers.fold([]) == {}
    assert len(table.values) == 2

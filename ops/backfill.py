"""`packstream backfill analytics`: the warehouse's rows made again from Postgres, with the ids that the stream gives.

Only rows that the warehouse lacks are written. Beside the live stream: a page is looked up and written while none of
the agent's batches is, and its rows are announced in Postgres; the agent, when it meets an announced row, asks the
warehouse before it writes. It goes on where it was interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from agents.warehouse_writer import WarehouseWriter
from models.ads import closing
from models.ads import reads as ads
from models.analytics import positions
from models.analytics.gateway import BigQuery
from models.analytics.positions import Place
from models.billing import reads as billing
from models.database import SessionFactory, make_engine, make_sessions
from models.errors import Unavailable
from models.orders import reads as orders
from models.orders.history import Turn, turns
from ops.settings import Settings
from ops.warehouse import connected_warehouse
from streams import facts
from streams.facts import BACKFILL, PAID, SETTLED, Fact, Origin

ORDERS_AT_ONCE: Final = 200
PLACE: Final = "backfill"  #: in place of a topic
TRIES: Final = 8
PAUSE_S: Final = 0.25  #: doubled from try to try
ORIGIN: Final = Origin(BACKFILL)

T = TypeVar("T")

Progress = Callable[[int], None]
"""Called with the number of orders, and of stores' days, just done."""


@dataclass(slots=True)
class Report:
    """What a run did. `present`: rows that were there already."""

    resumed: bool = False
    orders: int = 0
    store_days: int = 0
    rows: int = 0
    present: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.refused


async def backfill(settings: Settings, *, restart: bool = False, progress: Progress | None = None) -> Report:
    """Write what is missing of all orders and closed days. Unavailable when a part stays away."""
    engine = make_engine(settings.sqlalchemy_url, pool_size=3, application="packstream-backfill")
    store = connected_warehouse(settings)
    try:
        run = Run(store, make_sessions(engine), progress or (lambda _: None))
        return await run.all(restart=restart)
    finally:
        store.close()
        await engine.dispose()


class Run:
    """One run, the only one: a second takes the place over, and the first ends with SucceededError."""

    def __init__(self, store: BigQuery, sessions: SessionFactory, progress: Progress) -> None:
        self._store, self._sessions, self._progress = store, sessions, progress
        self._writer = WarehouseWriter(store, sessions, patiently)
        self._place = Place(PLACE, 0, 0, 0, 0)
        self.report = Report()

    async def all(self, *, restart: bool) -> Report:
        """Orders first, then days, from where the last run was interrupted."""
        async with self._sessions.begin() as tx:
            self._place, unended = await positions.take_over(tx, PLACE, 0, first_offset=0, wall=datetime.now(UTC))
            if restart:
                await positions.forget_progress(tx)
            cursors = await positions.progress(tx)
        await self._end_streams([*unended, *(stream.name for stream in self._place.streams.values())])
        self.report.resumed = bool(cursors)
        if "days" not in cursors:
            await self._orders(UUID(cursors["orders"]) if "orders" in cursors else None)
        await self._days(date.fromisoformat(cursors["days"]) if cursors.get("days") else None)
        async with self._sessions.begin() as tx:
            await positions.forget_progress(tx)
        return self.report

    async def _end_streams(self, streams: Iterable[str]) -> None:
        """Those of the run before: what it wrote into them it did not note."""
        for stream in streams:
            await patiently(partial(self._store.end_stream, stream), 0)
        self._place.streams = {}
        async with self._sessions.begin() as tx:
            await positions.forget_streams(tx, self._place, wall=datetime.now(UTC))

    async def _orders(self, after: UUID | None) -> None:
        while True:
            async with self._sessions.begin() as tx:
                page = await orders.all_orders(tx, after=after, limit=ORDERS_AT_ONCE)
                found = [fact for order in page for turn in turns(order) for fact in facts_of_turn(turn)]
            if not page:
                await self._keep("days", "")
                return
            await self._write(found)
            after = page[-1].id
            await self._keep("orders", str(after))
            self.report.orders += len(page)
            self._progress(len(page))

    async def _days(self, after: date | None) -> None:
        async with self._sessions.begin() as tx:
            days = await closing.charged_days(tx, after=after)
        for day in days:
            async with self._sessions.begin() as tx:
                spent = await ads.totals_of_day(tx, day)
                charges = await billing.ad_charges(tx, day)
            found: list[Fact] = []
            for store_id, totals in spent.items():
                found += facts.rolled_up(store_id, day, totals, ORIGIN)
                if store_id in charges:
                    charge = charges[store_id]
                    found += facts.charged(store_id, day, charge.id, charge.amount_cents, totals, ORIGIN)
            await self._write(found)
            await self._keep("days", day.isoformat())
            self.report.store_days += len(spent)
            self._progress(len(spent))

    async def _keep(self, section: str, cursor: str) -> None:
        async with self._sessions.begin() as tx:
            await positions.keep_progress(tx, section, cursor, wall=datetime.now(UTC))

    async def _write(self, found: list[Fact]) -> None:
        if lacking := await self._lacking(found):
            async with self._sessions.begin() as apart:
                await positions.keep_apart(apart, backfill=True)
                lacking = await self._lacking(lacking)
                await self._announce(lacking)
                refused = await self._writer.write(self._place, lacking, doubtful=False, generation=0)
            self.report.refused |= refused
            self.report.rows += len(lacking) - len(refused)
        self.report.present += len(found) - len(lacking)

    async def _lacking(self, found: Iterable[Fact]) -> list[Fact]:
        by_table: dict[str, list[Fact]] = {}
        for fact in found:
            by_table.setdefault(fact.table, []).append(fact)
        lacking: list[Fact] = []
        for table, its in by_table.items():
            ids = [fact.row_id for fact in its]
            there = await patiently(partial(self._store.present, table, ids), 0)
            lacking += [fact for fact in its if fact.row_id not in there]
        return lacking

    async def _announce(self, found: Iterable[Fact]) -> None:
        """From here on the agent asks before it writes these rows."""
        async with self._sessions.begin() as tx:
            await positions.announce(tx, [fact.row_id for fact in found])


def facts_of_turn(turn: Turn) -> list[Fact]:
    """The rows of an order's turn."""
    match turn.event_type:
        case "order_created":
            return facts.created(turn.order, ORIGIN)
        case "order_decided":
            return facts.decided(turn.order, turn.at, ORIGIN)
        case "order_canceled" | "order_expired":
            return facts.ended(turn.event_type, turn.order, turn.at, ORIGIN)
    revision = PAID if turn.event_type == "order_paid" else SETTLED
    amount = turn.amount_cents or 0
    return facts.paid(turn.event_type, turn.order, turn.at, ORIGIN, amount_cents=amount, revision=revision)


async def patiently(act: Callable[[], Awaitable[T]], generation: int) -> T:
    """What `act` gives; tried again a few times while a part is away. Then Unavailable: run it again, it goes on."""
    for attempt in range(TRIES):
        try:
            return await act()
        except Unavailable:
            if attempt == TRIES - 1:
                raise
        await asyncio.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")


def as_json(report: Report) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "resumed": report.resumed,
        "orders": report.orders,
        "store_days": report.store_days,
        "rows": report.rows,
        "present": report.present,
        "refused": report.refused,
    }

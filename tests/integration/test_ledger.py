"""The ledger keeps what was written: no role changes a row, appends follow each other, days are sealed for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from agents.housekeeping.leader import housekeeping
from models.database import make_engine, make_sessions, new_id
from models.ledger import sealing
from ops.settings import Settings, asyncpg_url
from tests.ads_driver import execute
from tests.api_driver import Api, ok, running
from tests.cart_shop import NOON
from tests.delivery_driver import appoint
from tests.ledger_driver import collect, confirm, delivered, settled

TABLES = ("ledger_events", "ledger_postings", "ledger_seals")
TODAY = NOON.date()
DAY = timedelta(days=1)


@pytest.fixture
async def books(alone_settings: Settings) -> AsyncIterator[Api]:
    """An API on a database of its own, that leaves ready orders in the queue."""
    async with running(alone_settings.model_copy(update={"auto_assign": False})) as started:
        yield started


@asynccontextmanager
async def owner(api: Api, role: str | None = None, isolation: str = "READ COMMITTED") -> AsyncIterator[AsyncSession]:
    """A transaction of the database's owner, or of another role."""
    engine = make_engine(asyncpg_url(api.services.settings.database_url), pool_size=1, application="test")
    async with make_sessions(engine)() as tx, tx.begin():
        await tx.execute(text(f"SET TRANSACTION ISOLATION LEVEL {isolation}"))
        if role:
            await tx.execute(text(f"SET LOCAL ROLE {role}"))
        yield tx
    await engine.dispose()


async def seal(api: Api, day: date, *, limit: int = 100) -> int:
    """What housekeeping does a minute into a day; how many days it seals."""
    async with owner(api) as tx:
        now = NOON.replace(hour=0, minute=1) + (day - TODAY)
        return await sealing.seal_days(tx, limit=limit, now=now, skew_s=5)


async def sealed(api: Api) -> list[tuple[date, int]]:
    rows = await execute(api, "SELECT day, events FROM ledger_seals ORDER BY day")
    return [tuple(row) for row in rows]  # type: ignore[misc]


# -- append-only ------------------------------------------------------------------------------------------------------


async def test_no_role_changes_or_deletes_what_is_written(books: Api) -> None:
    await settled(books, await appoint(books))
    assert await seal(books, TODAY + DAY) == 1
    changes = {"ledger_events": "actor = 'x'", "ledger_postings": "amount_cents = 1", "ledger_seals": "events = 0"}
    for role, refusal in (
        ("packstream_app", "permission denied"),
        ("packstream_service", "permission denied"),
        (None, "append-only"),
    ):
        for table in TABLES:
            for statement in (
                f"UPDATE {table} SET {changes[table]}",
                f"DELETE FROM {table}",
                f"TRUNCATE {table} CASCADE",
            ):
                with pytest.raises(DBAPIError, match=refusal):
                    async with owner(books, role) as tx:
                        await tx.execute(text(statement))
    for table in TABLES:
        with pytest.raises(DBAPIError, match="permission denied"):
            async with owner(books, "packstream_app") as tx:
                await tx.execute(text(f"SELECT * FROM {table}"))
    assert await sealed(books) == [(TODAY, 1)]


EVENT = (
    "INSERT INTO ledger_events SELECT :id, order_id, :sequence, 'vendor_payout', amount_cents, currency,"
    " buyer_store_id, vendor_store_id, occurred_at, :day, actor, COALESCE(:prev, hash), hash FROM ledger_events"
)
POSTING = "INSERT INTO ledger_postings VALUES (:id, :account, :cents)"


async def write(
    api: Api, *postings: tuple[str, int], sequence: int = 2, day: date = TODAY, prev: bytes | None = None
) -> None:
    """As the service role: another event of the only order there is, with these postings."""
    event = new_id()
    async with owner(api, "packstream_service") as tx:
        values = {"id": event, "sequence": sequence, "day": day, "prev": prev}
        await tx.execute(text(EVENT), values)
        for account, cents in postings:
            await tx.execute(text(POSTING), {"id": event, "account": account, "cents": cents})


BALANCED = (("vendor_payable", 1_000), ("cash", -1_000))


async def test_postings_that_do_not_balance_cannot_be_committed(books: Api) -> None:
    await settled(books, await appoint(books))
    for postings in (
        (),
        (("cash", 0),),
        (("vendor_payable", 1_000), ("cash", -999)),
        (("vendor_payable", 999), ("cash", -999)),
        (("vendor_payable", 1_000), ("cash", -1_000), ("platform_fees", -1)),
    ):
        with pytest.raises(DBAPIError, match="do not balance"):
            await write(books, *postings)
    await write(books, *BALANCED)


async def test_an_event_that_does_not_follow_the_last_one_is_refused(books: Api) -> None:
    await settled(books, await appoint(books))
    for wrong in ({"sequence": 1}, {"sequence": 3}, {"prev": bytes(32)}):
        with pytest.raises(DBAPIError, match="does not follow"):
            await write(books, *BALANCED, **wrong)  # type: ignore[arg-type]
    async with owner(books, isolation="SERIALIZABLE") as tx:
        with pytest.raises(DBAPIError, match="read committed"):
            await tx.execute(text(EVENT), {"id": new_id(), "sequence": 2, "day": TODAY, "prev": None})
    await write(books, *BALANCED)


# -- seals ------------------------------------------------------------------------------------------------------------


async def test_days_are_sealed_once_they_are_over_without_a_gap(books: Api) -> None:
    agent = await appoint(books)
    assert await seal(books, TODAY + 5 * DAY) == 0  # nothing to seal in an empty ledger
    await settled(books, agent)
    await settled(books, agent, now=NOON + 3 * DAY)
    assert await seal(books, TODAY) == 0
    assert await seal(books, TODAY + 5 * DAY, limit=2) == 2
    assert await seal(books, TODAY + 5 * DAY) == 3
    assert await seal(books, TODAY + 5 * DAY) == 0
    assert await sealed(books) == [(TODAY + n * DAY, events) for n, events in enumerate((1, 0, 0, 1, 0))]


async def test_nothing_is_booked_on_a_sealed_day_what_comes_late_is_booked_on_the_next(books: Api) -> None:
    agent, admin = await appoint(books), await books.register_admin()
    one = await settled(books, agent)
    assert await seal(books, TODAY + DAY) == 1
    for day in (TODAY, TODAY - DAY):
        with pytest.raises(DBAPIError, match=r"is sealed|ck_ledger_events_day"):
            await write(books, *BALANCED, day=day)
    ok(await confirm(books, admin, one.id))  # at noon of the sealed day
    rows = await execute(books, "SELECT type, day, occurred_at FROM ledger_events ORDER BY sequence")
    assert [tuple(row) for row in rows] == [
        ("cash_collected", TODAY, NOON),
        ("vendor_payout", TODAY + DAY, NOON),
    ]


async def test_a_seal_waits_for_appends_under_way_and_has_them(books: Api) -> None:
    agent = await appoint(books)
    await settled(books, agent)
    async with owner(books, "packstream_service") as tx:
        event = new_id()
        await tx.execute(text(EVENT), {"id": event, "sequence": 2, "day": TODAY, "prev": None})
        for account, cents in BALANCED:
            await tx.execute(text(POSTING), {"id": event, "account": account, "cents": cents})
        sealing_task = asyncio.create_task(seal(books, TODAY + DAY))
        await _waiting(books)
        assert not sealing_task.done()
    assert await sealing_task == 1
    assert await sealed(books) == [(TODAY, 2)]


async def test_appends_wait_for_a_seal_under_way_and_miss_its_day(books: Api) -> None:
    agent = await appoint(books)
    await settled(books, agent)
    other = await delivered(books, agent)
    async with owner(books) as tx:
        assert await sealing.seal_days(tx, limit=9, now=NOON + DAY, skew_s=5) == 1
        collecting = asyncio.create_task(collect(books, agent, other))
        await _waiting(books)
        assert not collecting.done()
    ok(await collecting)
    rows = await execute(books, "SELECT day FROM ledger_events WHERE order_id = :id", id=UUID(other.id))
    assert [row.day for row in rows] == [TODAY + DAY]
    assert await sealed(books) == [(TODAY, 1)]


async def test_housekeeping_seals_by_the_logical_clock(books: Api) -> None:
    await settled(books, await appoint(books))
    admin, stop = await books.register_admin(), asyncio.Event()
    keeper = asyncio.create_task(housekeeping(books.services.settings, stop, lambda: None))
    for now in (NOON, NOON.replace(hour=0, minute=1) + DAY):
        assert await sealed(books) == []
        ok(await books.as_(admin).post("/api/admin/ops/clock", json={"now": now.isoformat()}))
    while not await sealed(books):
        assert not keeper.done()
        await asyncio.sleep(0.05)
    stop.set()
    await keeper
    assert await sealed(books) == [(TODAY, 1)]


async def _waiting(api: Api) -> None:
    """Until somebody waits for the ledger's lock."""
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    while not (await execute(api, waiting))[0][0]:
        await asyncio.sleep(0.02)

"""Expiry and nudge as commands, and the sweep below them: the deadline in the row decides, and each happens once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from agents.housekeeping.orders import OrderSweep
from models.database import SessionFactory, make_sessions
from models.orders import expiring
from models.orders.expiring import Outcome
from tests.api_driver import Api, problem
from tests.cart_shop import NOON
from tests.order_clock import HALF, TTL, Market
from tests.order_driver import Placed, ask, step

GRACE_S = 60
TICK = timedelta(microseconds=1)


@pytest.fixture
async def market(api: Api) -> Market:
    return await Market.opened(api)


@pytest.fixture
async def engine(api: Api) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(api.services.settings.sqlalchemy_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def sessions(engine: AsyncEngine) -> SessionFactory:
    return make_sessions(engine)


async def do(
    sessions: SessionFactory, command: Callable[..., Awaitable[Outcome]], now: datetime, *orders: Placed
) -> Outcome:
    async with sessions.begin() as tx:
        return await command(tx, [UUID(order.id) for order in orders], actor="test", now=now)


async def test_nothing_happens_before_its_deadline_and_nothing_twice(market: Market, sessions: SessionFactory) -> None:
    order = await market.place(NOON)
    order_id = UUID(order.id)
    early = Outcome({}, {order_id})
    assert await do(sessions, expiring.nudge, NOON + HALF - TICK, order) == early
    assert await do(sessions, expiring.nudge, NOON + HALF, order) == Outcome({order_id: NOON + HALF}, set())
    assert await do(sessions, expiring.nudge, NOON + HALF, order) == Outcome({}, set())
    assert await do(sessions, expiring.expire, NOON + TTL - TICK, order) == early
    assert await do(sessions, expiring.expire, NOON + TTL, order) == Outcome({order_id: NOON + TTL}, set())
    assert await do(sessions, expiring.expire, NOON + TTL, order) == Outcome({}, set())
    assert await market.happened(order) == {("order_nudged", order.id): 1, ("order_expired", order.id): 1}
    nudged, expired = await market.events(order)
    assert (nudged.order.nudged_at, nudged.order.status) == (NOON + HALF, "pending")
    assert (expired.order.status, expired.order.payment_status) == ("expired", "canceled")
    row = await market.row(order)
    assert (row.status, row.intent, row.reserved, row.expired_at) == ("expired", "canceled", 0, NOON + TTL)


async def test_an_order_that_expires_now_is_not_nudged_first(market: Market, sessions: SessionFactory) -> None:
    order = await market.place(NOON)
    assert await do(sessions, expiring.nudge, NOON + TTL, order) == Outcome({}, set())
    assert await market.happened(order) == {}


async def test_an_order_that_someone_is_deciding_on_waits_and_the_others_do_not(
    market: Market, sessions: SessionFactory
) -> None:
    held, free = await market.place(NOON), await market.place(NOON)
    async with sessions.begin() as tx:
        await tx.execute(text("SELECT FROM orders WHERE id = :id FOR UPDATE"), {"id": UUID(held.id)})
        outcome = await do(sessions, expiring.expire, NOON + TTL, held, free)
    assert (set(outcome.done), outcome.waiting) == ({UUID(free.id)}, {UUID(held.id)})
    assert set((await do(sessions, expiring.expire, NOON + TTL, held)).done) == {UUID(held.id)}


async def test_an_unknown_order_is_neither_done_nor_waited_for(market: Market, sessions: SessionFactory) -> None:
    async with sessions.begin() as tx:
        assert await expiring.expire(tx, [UUID(int=1)], actor="test", now=NOON) == Outcome({}, set())


async def test_of_many_that_expire_an_order_at_once_and_a_buyer_that_cancels_it_one_wins(
    market: Market, sessions: SessionFactory
) -> None:
    for _ in range(5):
        order = await market.place(NOON)
        commands = [do(sessions, expiring.expire, NOON + TTL, order) for _ in range(4)]
        canceling, *_ = await asyncio.gather(ask(market.api, market.buyer, order.id, "cancel", now=NOON), *commands)
        (happened,) = await market.happened(order)
        row = await market.row(order)
        assert (row.intent, row.reserved) == ("canceled", 0)
        if happened == ("order_expired", order.id):
            problem(canceling, 409, "state_conflict")
        else:
            assert (canceling.status_code, row.status) == (200, "canceled")


# -- the sweep --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def alone_market(alone: Api) -> Market:
    return await Market.opened(alone)


def sweep_of(api: Api) -> tuple[AsyncEngine, OrderSweep]:
    """The sweep on the API's database, by the test clock."""
    engine = create_async_engine(api.services.settings.sqlalchemy_url)
    sessions = make_sessions(engine)

    def transaction() -> AbstractAsyncContextManager[AsyncSession]:
        return sessions.begin()

    return engine, OrderSweep(transaction, grace_s=GRACE_S, follow=True)


async def test_the_sweep_does_what_timers_have_missed_at_its_second_look(alone_market: Market) -> None:
    market, grace = alone_market, timedelta(seconds=GRACE_S)
    engine, sweep = sweep_of(market.api)
    late, later = await market.place(NOON), await market.place(NOON + TTL - HALF)
    canceled = await market.place(NOON)
    await step(market.api, market.buyer, canceled.id, "cancel", now=NOON)
    await market.move(NOON + TTL)
    for _ in range(2):
        await sweep.sweep()
    assert await market.happened(late, later) == {}
    await market.move(NOON + TTL + grace + timedelta(seconds=1))
    await sweep.sweep()
    assert await market.happened(late, later) == {}
    for _ in range(2):
        await sweep.sweep()
    assert await market.happened(late, later) == {("order_expired", late.id): 1, ("order_nudged", later.id): 1}
    assert {event.actor for event in await market.events(late, later)} == {"housekeeping"}
    assert await market.happened(canceled) == {("order_canceled", canceled.id): 1}
    await engine.dispose()

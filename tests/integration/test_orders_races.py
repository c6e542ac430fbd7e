"""Decision, cancel, expiry, delivery and payment of one order at once: one wins, whatever the order they come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random
from uuid import UUID

import httpx
import pytest

from models.database import make_engine
from models.tenancy import make_scoped_sessions
from ops.settings import Settings
from tests.ads_driver import execute
from tests.api_driver import running
from tests.local_stack import Database, Stack, settings_for
from tests.order_driver import Placed, ask
from tests.order_race import Arena, arena, run

HELD = """
SELECT i.product_id, i.reserved, coalesce(sum(l.quantity) FILTER (WHERE l.status <> 'rejected' AND o.status IN
       ('pending', 'accepted', 'partially_accepted', 'ready_for_dispatch')), 0) AS held
FROM inventory i LEFT JOIN order_line_items l ON l.product_id = i.product_id LEFT JOIN orders o ON o.id = l.order_id
WHERE i.product_id = ANY (:ids) GROUP BY i.product_id
"""


@pytest.fixture
def race_settings(stack: Stack, database: Database, redis_url: str) -> Settings:
    return settings_for(stack, database, redis_url=redis_url, log_level="error", rate_limit_scale=1_000)


@pytest.fixture
async def ring(race_settings: Settings) -> AsyncIterator[Arena]:
    engine = make_engine(race_settings.sqlalchemy_app_url, pool_size=4, application="test")
    async with running(race_settings) as api:
        yield await arena(api, make_scoped_sessions(engine))
    await engine.dispose()


async def test_one_of_all_who_want_something_of_an_order_wins(ring: Arena) -> None:
    await run(ring, 20, seed=1)
    assert len(ring.ends) >= 3, ring.ends


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_one_wins_five_hundred_times(ring: Arena) -> None:
    await run(ring, 500, seed=2)
    assert ring.ends.keys() == {"canceled", "rejected", "expired", "closed"}, ring.ends


async def move(ring: Arena, one: Placed, chance: Random) -> httpx.Response:
    """Something that gives stock back, or might."""
    match chance.randrange(4):
        case 0:
            return await ask(ring.api, one.buyer, one.id, "cancel")
        case 1:
            return await ask(ring.api, one.vendor, one.id, "decision", {"decision": "reject"})
    rulings = [{"line_item_id": line, "decision": chance.choice(("accept", "reject"))} for line in one.lines]
    return await ask(
        ring.api, one.vendor, one.id, "line-items/decision", {"decisions": rulings[: chance.choice((1, 2))]}
    )


async def test_many_orders_of_the_same_things_move_at_once_and_none_waits_for_ever(ring: Arena) -> None:
    """Cancels, decisions on lines, retries and a clock that ends whole batches: locks are taken in one order."""
    chance = Random(3)
    buyers = [ring.buyer, *[await ring.api.register("buyer") for _ in range(3)]]
    for turn in range(2):
        orders = [await ring.order(buyer, turned=bool(chance.getrandbits(1))) for buyer in buyers * 4]
        batches = [chance.sample(orders, len(orders)) for _ in range(3)]
        asked = [move(ring, one, chance) for one in orders]
        answers, *_ = await asyncio.gather(
            asyncio.gather(*asked), *(ring.expire(*chance.sample(batch, 8)) for batch in batches)
        )
        assert {answer.status_code for answer in answers} <= {200, 409}, turn
        held = await execute(ring.api, HELD, ids=[UUID(product) for product in ring.products])
        assert [row for row in held if row.reserved != row.held] == [], turn
        again = await asyncio.gather(*(ask(ring.api, one.buyer, one.id, "retry") for one in orders * 2))
        assert {answer.status_code for answer in again} <= {200, 201, 409}, turn
    held = await execute(ring.api, HELD, ids=[UUID(product) for product in ring.products])
    assert [row for row in held if row.reserved != row.held] == []
    assert max(row.held for row in held) > 0

"""Decision, cancel, expiry, delivery and payment of one order at once: one wins, whatever the order they come in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from models.database import make_engine
from models.tenancy import make_scoped_sessions
from ops.settings import Settings
from tests.api_driver import running
from tests.local_stack import Database, Stack, settings_for
from tests.order_race import Arena, arena, run


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

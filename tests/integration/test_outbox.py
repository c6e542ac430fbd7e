"""The outbox: within an aggregate, the order of `seq` is the order of commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import text

from models.database import SessionFactory, make_engine, make_sessions, new_id
from models.outbox import append
from schemas.records import StoreComplianceChanged
from tests.local_stack import Database, Stack, settings_for


@pytest.fixture
async def sessions(stack: Stack, database: Database) -> AsyncIterator[SessionFactory]:
    engine = make_engine(settings_for(stack, database).sqlalchemy_url, pool_size=4, application="test")
    yield make_sessions(engine)
    await engine.dispose()


def of(store_id: UUID) -> StoreComplianceChanged:
    return StoreComplianceChanged(
        event_id=new_id(),
        occurred_at=datetime(2026, 3, 2, tzinfo=UTC),
        actor="test",
        store_id=store_id,
        before="pending",
        after="verified",
    )


async def test_an_event_draws_its_seq_when_those_before_it_of_its_aggregate_have_committed(
    sessions: SessionFactory,
) -> None:
    store, other = new_id(), new_id()
    first, second, elsewhere = of(store), of(store), of(other)
    async with sessions() as before, sessions() as after:
        await append(before, first)
        waiting = asyncio.create_task(append(after, second))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        async with sessions.begin() as beside:
            await append(beside, elsewhere)
        await before.commit()
        await waiting
        await after.commit()
    async with sessions() as tx:
        rows = await tx.execute(
            text("SELECT id FROM outbox_events WHERE id = ANY (:ids) ORDER BY seq"),
            {"ids": [second.event_id, elsewhere.event_id, first.event_id]},
        )
        assert list(rows.scalars()) == [first.event_id, elsewhere.event_id, second.event_id]

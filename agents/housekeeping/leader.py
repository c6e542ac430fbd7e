"""Who does the housekeeping: the process whose connection holds an advisory lock, and writes through that connection.

A leader that loses the connection can write nothing more, so it cannot tick beside its successor. One that stands
still loses the connection: Postgres ends sessions that are idle for longer than a leader ever is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from agents.billing_check import checking_billing
from agents.housekeeping.chores import Chores
from agents.housekeeping.metrics import LEADER
from agents.housekeeping_media import collecting_media
from agents.outages import DATABASE_GONE, Backoff, wait_for
from models.ads.engine import freeze_shards
from models.database import make_engine
from ops.settings import Settings

LEADER_LOCK: Final = 0x686F7573  #: pg_try_advisory_lock; no key of an aggregate is this small
CANDIDATE_S: Final = 1.0
IDLE_S: Final = 5  #: a session idle for longer ends, and with it the leadership
IN_TRANSACTION_S: Final = 3  #: a transaction of ours idle for longer ends, and with it the session

log = structlog.get_logger(__name__)


async def housekeeping(settings: Settings, stop: asyncio.Event, ready: Callable[[], None]) -> None:
    """Stand by until this process leads, then do the chores; until `stop`.

    `ready` is called once the engine's shards are there. Raises ShardsFrozen when AD_SHARDS differs from them.
    """
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-housekeeping")
    backoff = Backoff()
    try:
        while not stop.is_set():
            try:
                await _with_connection(engine, settings, stop, ready)
                backoff.reset()
            except DATABASE_GONE as exc:
                log.warning("housekeeping_database_gone", error=repr(exc))
                await backoff.pause(stop)
    finally:
        await engine.dispose()


async def _with_connection(
    engine: AsyncEngine, settings: Settings, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    async with session_of_own(engine) as connection:
        async with transaction(connection) as tx:
            await freeze_shards(tx, settings.ad_shards)
        ready()
        while not stop.is_set():
            if await _try_lead(connection):
                await _lead(connection, settings, stop)
                return
            await wait_for(stop, CANDIDATE_S * random.uniform(0.5, 1.0))


@asynccontextmanager
async def session_of_own(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection that is closed, not pooled, at the end: whatever it held is free then."""
    connection = await engine.connect()
    try:
        await connection.execute(text(f"SET idle_session_timeout = '{IDLE_S}s'"))
        await connection.execute(text(f"SET idle_in_transaction_session_timeout = '{IN_TRANSACTION_S}s'"))
        await connection.commit()
        yield connection
    finally:
        await connection.invalidate()
        await connection.close()


@asynccontextmanager
async def transaction(connection: AsyncConnection) -> AsyncIterator[AsyncSession]:
    """One transaction on `connection`, committed at the end."""
    async with AsyncSession(connection, expire_on_commit=False) as tx, tx.begin():
        yield tx


async def _try_lead(connection: AsyncConnection) -> bool:
    leads = (await connection.execute(text(f"SELECT pg_try_advisory_lock({LEADER_LOCK})"))).scalar_one()
    await connection.commit()
    return bool(leads)


async def _lead(connection: AsyncConnection, settings: Settings, stop: asyncio.Event) -> None:
    log.info("housekeeping_leads")
    LEADER.set(1)
    try:
        chores = Chores(settings, lambda: transaction(connection))
        async with collecting_media(settings), checking_billing(settings):
            while not stop.is_set():
                await wait_for(stop, chores.pause_s())
                await chores.do_due()
    finally:
        LEADER.set(0)
        log.info("housekeeping_leads_no_more")

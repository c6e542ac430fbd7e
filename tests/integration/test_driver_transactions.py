"""Transactions over the driver itself: whose they are, and what is left of those that do not commit."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession

from api.errors import translate
from models.database import Driver, driver_of, make_driver_pool, make_engine, make_sessions, new_id, savepoint, send
from models.errors import Unavailable
from models.idempotency import IdempotencyKey
from models.tenancy import DriverTransactions, Tenant
from tests.local_stack import Database, Stack, settings_for

WHO = "SELECT current_setting('packstream.store_id', true), current_user"
KEY = """
INSERT INTO idempotency_keys (scope, method, path, key, fingerprint, created_at) VALUES ($1, 'POST', '/', $2, '', $3)
"""
KEYS = "SELECT count(*) FROM idempotency_keys WHERE key = ANY ($1)"
MINE = Tenant(new_id(), new_id())


@pytest.fixture
async def transactions(stack: Stack, database: Database) -> AsyncIterator[DriverTransactions]:
    """On one connection, so that each transaction finds what the last one left."""
    pool = await make_driver_pool(settings_for(stack, database).sqlalchemy_app_url, size=1, application="test")
    yield DriverTransactions(pool, restricted=True)
    await pool.close()


async def write(db: Driver, key: str) -> None:
    await send(db, KEY, str(MINE.store_id), key, datetime.now(UTC))


async def written(transactions: DriverTransactions, *keys: str) -> int:
    async with transactions.begin(None) as db:
        return int((await send(db, KEYS, list(keys)))[0][0])


async def test_a_transaction_is_for_its_tenant_and_the_next_one_knows_nothing_of_that(
    transactions: DriverTransactions,
) -> None:
    async with transactions.begin(MINE) as db:
        assert (await send(db, WHO))[0][0] == str(MINE.store_id)
    async with transactions.begin(None) as db:
        store, role = (await send(db, WHO))[0]
        assert (store or None, role) == (None, "packstream_service")
    async with transactions.begin(Tenant(new_id(), new_id())) as db:
        with pytest.raises(DBAPIError, match="row-level security"):
            await write(db, str(new_id()))


async def test_an_exception_rolls_back_and_the_connection_serves_on(transactions: DriverTransactions) -> None:
    done, undone = str(new_id()), str(new_id())

    async def fail() -> None:
        async with transactions.begin(MINE) as db:
            await write(db, undone)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with transactions.begin(MINE) as db:
        await write(db, done)
    assert await written(transactions, undone) == 0
    assert await written(transactions, done) == 1


async def test_what_a_block_did_is_undone_and_the_transaction_goes_on(transactions: DriverTransactions) -> None:
    before, inside, after = (str(new_id()) for _ in range(3))

    async def fail(db: Driver) -> None:
        async with savepoint(db):
            await write(db, inside)
            await write(db, inside)  # there is one already: Postgres breaks the transaction off

    async with transactions.begin(MINE) as db:
        await write(db, before)
        with pytest.raises(DBAPIError):
            await fail(db)
        await write(db, after)
    assert await written(transactions, before, inside, after) == 2


async def test_a_request_that_is_given_up_leaves_its_connection_clean(transactions: DriverTransactions) -> None:
    undone = str(new_id())

    async def wait() -> None:
        async with asyncio.timeout(0.3), transactions.begin(MINE) as db:
            await write(db, undone)
            await send(db, "SELECT pg_sleep(30)")

    with pytest.raises(TimeoutError):
        await wait()
    async with asyncio.timeout(5):
        assert await written(transactions, undone) == 0


@pytest.mark.parametrize("through", ["the driver", "a session"])
async def test_a_request_that_is_given_up_does_not_wait_for_a_postgres_that_says_nothing(
    transactions: DriverTransactions, stack: Stack, database: Database, through: str
) -> None:
    engine = make_engine(settings_for(stack, database).sqlalchemy_url, pool_size=1, application="test")
    stopped: list[int] = []

    async def stop(tx: Driver | AsyncSession) -> None:
        ((pid,),) = await send(tx, "SELECT pg_backend_pid()")
        os.kill(pid, signal.SIGSTOP)
        stopped.append(pid)
        await send(tx, "SELECT 1")

    async def wait() -> None:
        async with asyncio.timeout(0.3):
            if through == "the driver":
                async with transactions.begin(MINE) as db:
                    await stop(db)
            else:
                async with make_sessions(engine).begin() as tx:
                    await stop(tx)

    began = asyncio.get_running_loop().time()
    try:
        with pytest.raises(TimeoutError):
            await wait()
        assert asyncio.get_running_loop().time() - began < 10, "not the statement's own 15 s"
        assert await written(transactions) == 0
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        await engine.dispose()


async def test_a_flush_that_fails_in_a_block_is_told_as_it_failed(stack: Stack, database: Database) -> None:
    """The session has rolled all of it back by then: there is no savepoint to go back to."""
    engine = make_engine(settings_for(stack, database).sqlalchemy_url, pool_size=1, application="test")
    key = {"scope": "s", "method": "POST", "path": "/", "key": str(new_id()), "fingerprint": b""}

    async def fail(tx: AsyncSession) -> None:
        async with savepoint(tx):
            await send(tx, KEY, "s", key["key"], datetime.now(UTC))
            tx.add(IdempotencyKey(**key, created_at=datetime.now(UTC)))

    async with make_sessions(engine)() as tx:
        with pytest.raises(IntegrityError):
            await fail(tx)
        with pytest.raises(PendingRollbackError):
            await send(tx, "SELECT 1")
    await engine.dispose()


async def test_a_lost_connection_is_a_part_that_does_not_answer_and_the_next_one_is_new(
    transactions: DriverTransactions, stack: Stack, database: Database
) -> None:
    engine = make_engine(settings_for(stack, database).sqlalchemy_url, pool_size=1, application="test")

    async def lose() -> None:
        async with transactions.begin(MINE) as db:
            ((pid,),) = await send(db, "SELECT pg_backend_pid()")
            async with make_sessions(engine).begin() as tx:
                await send(tx, "SELECT pg_terminate_backend($1)", pid)
            await asyncio.sleep(0.1)
            await write(db, str(new_id()))

    with pytest.raises(DBAPIError) as lost:
        await lose()
    assert isinstance(translate(lost.value), Unavailable)
    assert await written(transactions) == 0
    await engine.dispose()


async def test_a_session_and_its_driver_share_a_transaction(stack: Stack, database: Database) -> None:
    engine = make_engine(settings_for(stack, database).sqlalchemy_url, pool_size=2, application="test")
    sessions, undone = make_sessions(engine), str(new_id())
    async with sessions() as tx:
        await write(await driver_of(tx), undone)  # the transaction's first statement
        assert (await send(tx, KEYS, [undone]))[0][0] == 1
        await tx.rollback()
        assert (await send(tx, KEYS, [undone]))[0][0] == 0, "and the next transaction has a driver of its own"
    await engine.dispose()


def test_ids_are_written_out_as_ids() -> None:
    """The tenant goes into the text of the statement that begins the transaction."""

    class Sly(UUID):
        def __str__(self) -> str:
            return "', true); DROP TABLE orders; --"

    sly = Tenant(Sly(int=7), Sly(int=8))
    begun = DriverTransactions(None, restricted=True)._beginning(sly)  # type: ignore[arg-type]  # it connects to nothing
    assert "DROP" not in begun
    assert str(UUID(int=7)) in begun

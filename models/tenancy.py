"""The second wall between stores: row-level security in Postgres, under the queries that name the store anyway.

The API's role owns nothing and bypasses nothing. A transaction for a caller who acts for a store sets that store (and
the user) for its own duration, and the policies of migration 0010 show it the rows of that store alone. What has no
such caller (sign-in, serve, admins, agents) takes on the service role for the transaction. Whoever sets neither sees
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from models.database import DRIVER_ERRORS, Driver, SessionFactory, as_dbapi_error, send

SERVICE_ROLE: Final = "packstream_service"
ACQUIRE_S: Final = 5.0  #: how long a connection is waited for
UNDO_S: Final = 2.0  #: how long Postgres may take to roll back, before the connection is given up
SCOPE: Final = "scope"  #: where a session's `info` has its Scope

BE_TENANT: Final = "SELECT set_config('packstream.store_id', $1, true), set_config('packstream.user_id', $2, true)"
BE_SERVICE: Final = f"SET LOCAL ROLE {SERVICE_ROLE}"


class Tenant(NamedTuple):
    """A user who acts for a store."""

    store_id: UUID
    user_id: UUID


Scope = Callable[[], Tenant | None]
"""For whom a transaction is, asked when its first statement comes; None: for no store."""


class ScopedSession(Session):
    """A session whose transactions say for whom they are. Without a scope: the service role."""


def _begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return
    scope: Scope | None = session.info.get(SCOPE)
    tenant = scope() if scope is not None else None
    if tenant is None:
        connection.exec_driver_sql(BE_SERVICE)
    else:
        connection.exec_driver_sql(BE_TENANT, (str(tenant.store_id), str(tenant.user_id)))


event.listen(ScopedSession, "after_begin", _begin)


async def as_service(tx: AsyncSession) -> None:
    """Go on for no store, until the transaction ends: for the few commands that must look beyond the caller's."""
    if isinstance(tx.sync_session, ScopedSession):
        await send(tx, BE_SERVICE)


class DriverTransactions:
    """Transactions for a tenant, or for no store, on connections of the driver itself: as those of scoped sessions, at
    a third of their cost. `restricted`: the connections have the API's role."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], *, restricted: bool) -> None:
        self.pool = pool
        self._restricted = restricted

    @asynccontextmanager
    async def begin(self, tenant: Tenant | None) -> AsyncIterator[Driver]:
        """A transaction; an exception rolls it back. Raises DBAPIError, OSError and TimeoutError, as a session does."""
        db = await self._acquire()
        try:
            await _control(db, self._beginning(tenant))
            yield db
            await _control(db, "COMMIT")
        except Exception:
            await _undo(db)
            raise
        except BaseException:  # given up: Postgres may never answer a ROLLBACK
            db.terminate()
            raise
        finally:
            await self.pool.release(db)

    async def _acquire(self) -> asyncpg.pool.PoolConnectionProxy[asyncpg.Record]:
        try:
            return await self.pool.acquire(timeout=ACQUIRE_S)
        except DRIVER_ERRORS as exc:
            raise as_dbapi_error(exc, "connect") from exc

    def _beginning(self, tenant: Tenant | None) -> str:
        """In one round trip, which has no parameters: ids are written out."""
        if not self._restricted:
            return "BEGIN"
        if tenant is None:
            return f"BEGIN; {BE_SERVICE}"
        store, user = UUID(int=tenant.store_id.int), UUID(int=tenant.user_id.int)
        return (
            f"BEGIN; SELECT set_config('packstream.store_id', '{store}', true),"
            f" set_config('packstream.user_id', '{user}', true)"
        )


async def _undo(db: Driver) -> None:
    """Leave no transaction behind: the next one of the connection must not find it."""
    try:
        async with asyncio.timeout(UNDO_S):
            if db.is_in_transaction():
                await db.execute("ROLLBACK")
    except (*DRIVER_ERRORS, OSError):
        with suppress(*DRIVER_ERRORS):  # it is lost already, and the pool has let go of it
            db.terminate()


async def _control(db: Driver, sql: str) -> None:
    try:
        await db.execute(sql)
    except DRIVER_ERRORS as exc:
        raise as_dbapi_error(exc, sql) from exc


def make_scoped_sessions(engine: AsyncEngine) -> SessionFactory:
    """Sessions on the API's restricted role; give `info={SCOPE: …}` to act for a store."""
    options: dict[str, Any] = {"expire_on_commit": False, "sync_session_class": ScopedSession}
    return async_sessionmaker(engine, **options)

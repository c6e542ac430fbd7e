"""The second wall between stores: row-level security in Postgres, under the queries that name the store anyway.

The API's role owns nothing and bypasses nothing. A transaction for a caller who acts for a store sets that store (and
the user) for its own duration, and the policies of migration 0010 show it the rows of that store alone. What has no
such caller (sign-in, serve, admins, agents) takes on the service role for the transaction. Whoever sets neither sees
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction

from models.database import SessionFactory

SERVICE_ROLE: Final = "packstream_service"
SCOPE: Final = "scope"  #: where a session's `info` has its Scope

BE_TENANT: Final = text(
    "SELECT set_config('packstream.store_id', :store_id, true), set_config('packstream.user_id', :user_id, true)"
)
BE_SERVICE: Final = text(f"SET LOCAL ROLE {SERVICE_ROLE}")


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
        connection.execute(BE_SERVICE)
    else:
        connection.execute(BE_TENANT, {name: str(value) for name, value in tenant._asdict().items()})


event.listen(ScopedSession, "after_begin", _begin)


async def as_service(tx: AsyncSession) -> None:
    """Go on for no store, until the transaction ends: for the few commands that must look beyond the caller's."""
    if isinstance(tx.sync_session, ScopedSession):
        await tx.execute(BE_SERVICE)


def make_scoped_sessions(engine: AsyncEngine) -> SessionFactory:
    """Sessions on the API's restricted role; give `info={SCOPE: …}` to act for a store."""
    options: dict[str, Any] = {"expire_on_commit": False, "sync_session_class": ScopedSession}
    return async_sessionmaker(engine, **options)

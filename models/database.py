"""Engines, sessions and the base of all tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Final, TypeAlias, TypeVar, cast
from uuid import UUID

import asyncpg
import orjson
import uuid_utils.compat as uuid_utils
from sqlalchemy import BigInteger, DateTime, MetaData, Uuid, inspect, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"
"""A connection of the driver itself, for the few statements whose cost counts."""

TIMEOUTS: Final = {"statement_timeout": "15000", "idle_in_transaction_session_timeout": "30000"}

SessionFactory = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    """Base of all tables; plain annotations map to Postgres types that keep what they are given."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        UUID: Uuid(),
        int: BigInteger(),
        dict[str, Any]: JSONB(),
    }


T = TypeVar("T", bound=Base)


def new_id() -> UUID:
    """A UUIDv7: unique, and in the order of creation within a process."""
    return uuid_utils.uuid7()


def make_engine(url: str, *, pool_size: int, application: str) -> AsyncEngine:
    """An engine for one process. `url` is SQLAlchemy's (postgresql+asyncpg://…)."""
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=False,
        hide_parameters=True,  # errors are logged, and values may be e-mails or password hashes
        json_serializer=_json,
        json_deserializer=orjson.loads,
        connect_args={
            "timeout": 5,
            "server_settings": {"application_name": application, **TIMEOUTS},
        },
    )


def make_sessions(engine: AsyncEngine) -> SessionFactory:
    """A factory of sessions; the edge (a request, an agent's batch) opens and commits them."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def driver_of(tx: AsyncSession) -> Driver:
    """The driver's connection under the session, in the session's transaction."""
    root, known = tx.sync_session.get_transaction(), tx.info.get(_DRIVER)
    if root is not None and root.is_active and known is not None and known[0] is root:
        return cast(Driver, known[1])
    connection = await (await tx.connection()).get_raw_connection()
    driver = cast(Driver, connection.driver_connection)
    if not driver.is_in_transaction():  # SQLAlchemy begins with its first statement
        await tx.execute(_BEGIN)
    tx.info[_DRIVER] = tx.sync_session.get_transaction(), driver
    return driver


_DRIVER: Final = "driver"
_BEGIN: Final = text("SELECT")


async def send(tx: AsyncSession | Driver, sql: str, *values: Any) -> list[asyncpg.Record]:
    """A statement as the driver takes it: $1 for the first of `values`, which have JSON as text.

    It raises DBAPIError, as a session does.
    For statements whose cost counts: SQLAlchemy takes twice the time of the driver for a statement that is composed
    already, five times for one that is not.
    """
    driver = await driver_of(tx) if isinstance(tx, AsyncSession) else tx
    try:
        return await driver.fetch(sql, *values)
    except DRIVER_ERRORS as exc:
        raise as_dbapi_error(exc, sql) from exc
    except asyncio.CancelledError:
        if isinstance(tx, AsyncSession):  # as it does itself: nobody waits for what a silent Postgres may answer
            await (await tx.connection()).invalidate()
        raise


DRIVER_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


def as_dbapi_error(exc: Exception, sql: str) -> DBAPIError:
    """The driver's error as a session would raise it.

    A connection was lost where Postgres said that it ends it, or said nothing and no value was to blame. One whose
    statements a migration has outdated is as good as lost.
    """
    if isinstance(exc, asyncpg.PostgresError):
        ended = (asyncpg.PostgresConnectionError, asyncpg.InvalidCachedStatementError)
        lost = isinstance(exc, ended) or getattr(exc, "severity", None) in ("FATAL", "PANIC")
    else:
        lost = not isinstance(exc, ValueError)
    return DBAPIError(sql, None, exc, hide_parameters=True, connection_invalidated=lost)


@asynccontextmanager
async def savepoint(tx: AsyncSession | Driver) -> AsyncIterator[None]:
    """What is done in the block is undone when it raises, and the transaction goes on; once in a transaction.

    As `tx.begin_nested()`, at a fifth of its cost: the session forgets all its objects, where that looks at each; and
    the savepoint is left to the commit, which lets go of it without being told.
    """
    await send(tx, "SAVEPOINT block")
    try:
        yield
        if isinstance(tx, AsyncSession) and (tx.new or tx.dirty or tx.deleted):
            await tx.flush()
    except Exception:
        if isinstance(tx, AsyncSession):
            tx.expunge_all()
            if not tx.is_active:  # a flush has failed, and the session has rolled everything back
                raise
        await send(tx, "ROLLBACK TO SAVEPOINT block")
        raise


def select_of(table: type[Base]) -> str:
    """A statement that reads whole rows, up to its WHERE. It names the columns: a migration may add some meanwhile."""
    return f"SELECT {', '.join(table.__table__.columns.keys())} FROM {table.__tablename__}"


def insert_of(table: type[Base], rows: str) -> str:
    """A statement that inserts whole rows, however many, from the parameter `rows`, which `as_json` made.

    A parameter for each value of each row would cost more than all else.
    """
    name, columns = table.__tablename__, ", ".join(table.__table__.columns.keys())
    return f"INSERT INTO {name} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{name}, {rows})"


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: object) -> object:
    """What orjson does not know: named tuples, and the driver's own class of UUID."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def as_json(value: Any) -> str | None:
    """A value for a column of JSON, or rows for `insert_of`, as the driver takes it; None is null.

    Ids, times and enums are taken as they are. Columns that a row does not have are null.
    """
    return None if value is None else _json(value)


def as_loaded(table: type[T], row: Mapping[str, Any], **related: Any) -> T:
    """A row that was just written, as a query would give it, to be read: no session knows it, and no change of it is
    noted. Columns that `row` does not have are null; `related` are its relationships."""
    made = table()
    made.__dict__.update(_nulls(table), **row, **related)
    return made


@cache
def _nulls(table: type[Base]) -> dict[str, None]:
    return dict.fromkeys(attribute.key for attribute in inspect(table).column_attrs)


async def make_driver_pool(
    url: str, *, size: int, application: str, connection_class: type[asyncpg.Connection[Any]] = asyncpg.Connection
) -> asyncpg.Pool[asyncpg.Record]:
    """Connections of the driver itself; none is opened before it is needed. `url` is libpq's or SQLAlchemy's.

    What they give and take is as on an engine's connections.
    """
    return await asyncpg.create_pool(
        url.replace("postgresql+asyncpg://", "postgresql://", 1),
        min_size=0,
        max_size=size,
        connection_class=connection_class,
        init=_read_json,
        reset=_nothing_to_reset,
        timeout=5,
        server_settings={"application_name": application, **TIMEOUTS},
    )


async def _read_json(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """As SQLAlchemy sets its connections up: JSON goes in as text and comes out as values."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda text: b"\x01" + text.encode(),  # Postgres' version of the format
        decoder=lambda data: orjson.loads(data[1:]),
        format="binary",
    )


async def _nothing_to_reset(_: object) -> None:
    """Those who use it leave nothing behind a transaction: a round trip is saved."""

"""Engines, sessions and the base of all tables."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, TypeAlias
from uuid import UUID

import asyncpg
import uuid_utils.compat as uuid_utils
from sqlalchemy import BigInteger, DateTime, MetaData, Uuid
from sqlalchemy.dialects.postgresql import JSONB
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
        connect_args={
            "timeout": 5,
            "server_settings": {
                "application_name": application,
                "statement_timeout": "15000",
                "idle_in_transaction_session_timeout": "30000",
            },
        },
    )


def make_sessions(engine: AsyncEngine) -> SessionFactory:
    """A factory of sessions; the edge (a request, an agent's batch) opens and commits them."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def make_driver_pool(url: str, *, size: int, application: str) -> asyncpg.Pool[asyncpg.Record]:
    """Connections of the driver itself; none is opened before it is needed. `url` is libpq's (postgresql://…)."""
    return await asyncpg.create_pool(
        url.replace("postgresql+asyncpg://", "postgresql://", 1),
        min_size=0,
        max_size=size,
        reset=_nothing_to_reset,
        timeout=5,
        server_settings={"application_name": application, "statement_timeout": "15000"},
    )


async def _nothing_to_reset(_: object) -> None:
    """Those who use it leave nothing behind a transaction: a round trip is saved."""

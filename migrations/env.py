"""Alembic's environment: online only, one transaction a migration, short locks."""

from __future__ import annotations

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from models.metadata import metadata
from ops.settings import asyncpg_url

MIGRATION_LOCK = 0x7061636B  #: only one process migrates at a time


def include(object_: object, name: str | None, type_: str, reflected: bool, compare_to: object) -> bool:
    """Leave out the partitions that housekeeping makes."""
    return not (type_ == "table" and name is not None and name.startswith("outbox_archive_"))


def migrate(connection: Connection) -> None:
    """Run the migrations on an open connection."""
    connection.execute(text("SET lock_timeout = '4s'"))
    connection.execute(text("SET statement_timeout = '5s'"))
    connection.execute(text(f"SELECT pg_advisory_lock({MIGRATION_LOCK})"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        compare_type=True,
        include_object=include,
    )
    with context.begin_transaction():
        context.run_migrations()


async def online() -> None:
    """Connect with the owner's URL."""
    url = context.config.get_main_option("sqlalchemy.url") or os.environ["DATABASE_URL"]
    engine = create_async_engine(asyncpg_url(url), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(online())

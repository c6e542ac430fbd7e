"""Real parts for the tests: one Postgres, Kafka and Valkey for the whole run, a fresh database for each test."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.migrate import upgrade
from ops.stack.local import stack_down, stack_up, start_all, stop_all
from ops.stack.parts.connect import Connect
from ops.stack.parts.postgres import run_sql, url_in_database
from ops.stack.paths import DataDir
from ops.stack.ports import PortBook
from ops.stack.units import Site
from tests.local_stack import Database, Stack, empty_redis, settings_for

STACK_PARTS = ("postgres", "kafka", "redis")
TEMPLATE = "packstream_template"
_databases = itertools.count(1)


@pytest.fixture(scope="session")
def bare_stack() -> Iterator[Stack]:
    """Postgres, Kafka and Valkey without tables or topics; they end with the run, however it ends."""
    root = Path(tempfile.mkdtemp(prefix="packstream-test-"))
    root.chmod(0o755)
    data = DataDir.at(root)
    try:
        addresses = asyncio.run(stack_up(data, STACK_PARTS, bound=True)).site.addresses
        yield Stack(
            database=addresses["DATABASE_URL"],
            database_app=addresses["DATABASE_APP_URL"],
            database_cdc=addresses["DATABASE_CDC_URL"],
            redis=addresses["REDIS_URL"],
            kafka=addresses["KAFKA_BROKERS"],
            data=root,
        )
    finally:
        asyncio.run(stack_down(data, STACK_PARTS))
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def stack(bare_stack: Stack) -> Stack:
    """The session's parts, the database migrated to the newest schema; tests with rows of their own: `database`."""
    admin = url_in_database(bare_stack.database, "postgres")
    run_sql(admin, f"CREATE DATABASE {TEMPLATE}")
    upgrade(settings_for(bare_stack, database_url=url_in_database(bare_stack.database, TEMPLATE)))
    run_sql(admin, f"DROP DATABASE packstream WITH (FORCE);\nCREATE DATABASE packstream TEMPLATE {TEMPLATE}")
    return bare_stack


@pytest.fixture(scope="session")
def connect_url(bare_stack: Stack) -> Iterator[str]:
    """The REST address of a Kafka Connect worker with Debezium, on the session's Kafka (make setup-debezium)."""
    data = DataDir.at(bare_stack.data / "connect")
    data.make()
    with PortBook() as book:
        ports = book.choose(Connect.ports, last={})
        unit = Connect(Site(data, ports, {"KAFKA_BROKERS": bare_stack.kafka}))
        unit.check()
        asyncio.run(start_all([unit], bound=True))
    yield Connect.addresses(ports)["CONNECT_URL"]
    asyncio.run(stop_all([unit]))


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    """A database of this test alone, copied from a migrated one; dropped afterwards."""
    name = f"test_{next(_databases)}"
    admin = url_in_database(stack.database, "postgres")
    run_sql(admin, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    urls = (url_in_database(url, name) for url in (stack.database, stack.database_app, stack.database_cdc))
    yield Database(name, *urls)
    run_sql(admin, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(bare_stack: Stack) -> str:
    """A logical database of this test alone, empty. A test that flushes all or restarts its server: `own_redis`."""
    return empty_redis(bare_stack)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[str]:
    """A Valkey server of this test alone."""
    data = DataDir.at(tmp_path / "own-redis")
    yield asyncio.run(stack_up(data, ("redis",), bound=True)).site.addresses["REDIS_URL"]
    asyncio.run(stack_down(data, ("redis",)))

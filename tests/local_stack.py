"""What the fixtures of conftest.py hand out, and the settings that lead there."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from ops.settings import Settings
from ops.stack.parts.redis import DATABASES

_logical_databases = itertools.cycle(range(1, DATABASES))


@dataclass(frozen=True)
class Stack:
    """The addresses of the session's parts; ``database`` is the owner's URL of a migrated database."""

    database: str
    database_app: str
    database_cdc: str
    redis: str
    kafka: str
    data: Path


@dataclass(frozen=True)
class Database:
    """A migrated, empty database of one test: the same one as its owner, the API's role and the CDC role."""

    name: str
    owner: str
    app: str
    cdc: str


def settings_for(stack: Stack, database: Database | None = None, **overrides: Any) -> Settings:
    """Settings that lead to the stack (and to ``database``, if given); ``overrides`` are fields of Settings."""
    addresses = {
        "packstream_env": "test",
        "database_url": database.owner if database else stack.database,
        "database_app_url": database.app if database else stack.database_app,
        "redis_url": stack.redis,
        "kafka_brokers": stack.kafka,
        "data_dir": str(stack.data),
    }
    return Settings(**(addresses | overrides))


def empty_redis(stack: Stack) -> str:
    """The address of a logical database that nobody else uses."""
    url = stack.redis.removesuffix("/0") + f"/{next(_logical_databases)}"
    with Redis.from_url(url) as client:
        client.flushdb()
    return url

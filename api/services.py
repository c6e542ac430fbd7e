"""What one API process holds: built in one place at its start, taken apart in reverse order at its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeVar

import asyncpg
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from api.addresses import Proxies
from api.metrics import RequestMetrics
from api.pagination import Cursors
from models.clock import Clock
from models.database import SessionFactory, make_driver_pool, make_engine, make_sessions
from models.identity.gateway import Sessions
from models.identity.passwords import Passwords
from models.identity.tokens import AccessTokens
from models.limits import LoginLimit
from models.redis import RedisLink
from models.tenancy import SCOPE, DriverTransactions, Scope, make_scoped_sessions
from ops.settings import Settings

CLOCK_REFRESH_S: Final = 0.1

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(slots=True)
class Services:
    """Everything a request may need. `sessions` are the database's, `logins` are people's; `drivers` are for the routes
    whose cost counts."""

    settings: Settings
    engine: AsyncEngine
    sessions: SessionFactory
    drivers: DriverTransactions
    redis: RedisLink
    clock: Clock
    logins: Sessions
    login_limit: LoginLimit
    tokens: AccessTokens
    passwords: Passwords
    cursors: Cursors
    proxies: Proxies
    metrics: CollectorRegistry
    draining: bool = False
    _extras: dict[type, object] = field(default_factory=dict)

    def add(self, extra: object) -> None:
        """Keep an area's own object; `get` finds it by its class."""
        self._extras[type(extra)] = extra

    def get(self, kind: type[T]) -> T:
        """The object of class `kind` that a part has added."""
        extra = self._extras[kind]
        assert isinstance(extra, kind)
        return extra

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction of its own, for no store: sign-in, admins, and whoever must not hold one while they wait."""
        return self.sessions.begin()

    @asynccontextmanager
    async def transaction_for(self, scope: Scope) -> AsyncIterator[AsyncSession]:
        """A transaction in which Postgres shows only what `scope` may see."""
        async with self.sessions(info={SCOPE: scope}) as session, session.begin():
            yield session


Part = Callable[[Services], AbstractAsyncContextManager[None]]
"""Something with a start and an end: entered after the services are there, left before they go, in reverse order."""


@asynccontextmanager
async def open_services(settings: Settings, parts: Sequence[Part], requests: RequestMetrics) -> AsyncIterator[Services]:
    """The services of a process. Postgres and Redis may be away at the start: requests get 503 until they are back."""
    async with AsyncExitStack() as stack:
        pool = await make_driver_pool(
            settings.sqlalchemy_app_url, size=settings.database_pool_size, application="packstream-api"
        )
        services = build(settings, requests, pool)
        stack.push_async_callback(services.engine.dispose)
        stack.push_async_callback(pool.close)
        stack.callback(services.passwords.close)
        await services.redis.connect()
        stack.push_async_callback(services.redis.close)
        for part in parts:
            await stack.enter_async_context(part(services))
        yield services


def build(settings: Settings, requests: RequestMetrics, pool: asyncpg.Pool[asyncpg.Record]) -> Services:
    """Wire everything; nothing connects yet."""
    engine = make_engine(
        settings.sqlalchemy_app_url, pool_size=settings.database_pool_size, application="packstream-api"
    )
    redis, clock = RedisLink(settings.redis_url), Clock()
    restricted = settings.database_app_url is not None  # with the owner's role alone there is no second wall
    sessions = make_scoped_sessions(engine) if restricted else make_sessions(engine)
    return Services(
        settings=settings,
        engine=engine,
        sessions=sessions,
        drivers=DriverTransactions(pool, restricted=restricted),
        redis=redis,
        clock=clock,
        logins=Sessions(
            redis,
            ttl_s=settings.refresh_token_ttl_s,
            access_ttl_s=settings.access_token_ttl_s,
            limit_scale=settings.rate_limit_scale,
        ),
        login_limit=LoginLimit(redis),
        tokens=AccessTokens(settings.jwt_keys, ttl_s=settings.access_token_ttl_s),
        passwords=Passwords(),
        cursors=Cursors(settings.jwt_keys.values()),
        proxies=Proxies(settings.trusted_proxies),
        metrics=_registry(requests),
    )


def _registry(requests: RequestMetrics) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(requests)
    return registry


@asynccontextmanager
async def follow_clock(services: Services) -> AsyncIterator[None]:
    """Keep the process's clock at the logical time that Postgres has, within 0.25 s. Only in dev and test."""
    if not services.settings.test_clock:
        yield
        return
    task = asyncio.create_task(_follow_clock(services), name="follow-clock")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _follow_clock(services: Services) -> None:
    failing = False
    while True:
        try:
            async with services.drivers.begin(None) as db:
                await services.clock.refresh(db)
            failing = False
        except (SQLAlchemyError, OSError) as exc:
            if not failing:
                log.warning("clock_refresh_failed", error=type(exc).__name__)
            failing = True
        await asyncio.sleep(CLOCK_REFRESH_S)


def wall_clock() -> datetime:
    """The wall clock, which sign-in stays on."""
    return datetime.now(UTC)

"""How a lost connection shows, and pauses that a stop cuts short."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from models.errors import Unavailable

DATABASE_GONE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # asyncpg's state machine when a session was ended between two statements
    SQLAlchemyError,
)
"""What a lost or refused connection, or a statement that Postgres broke off, raises."""

PASSING_SQLSTATES: Final = ("08", "53", "57P", "40", "55P03")
"""Connection lost, out of resources, shutting down or starting, deadlock or serialization, a lock that others hold."""

T = TypeVar("T")

log = structlog.get_logger(__name__)

BACKOFF_S: Final = 0.1
BACKOFF_MAX_S: Final = 3.0


def passing(exc: BaseException) -> bool:
    """Whether the same thing may go well later: a part is away, or others were in the way."""
    match exc:
        case DBAPIError():
            return exc.connection_invalidated or _passing_state(exc.orig)
        case asyncpg.PostgresError():
            return _passing_state(exc)
    return isinstance(
        exc, (Unavailable, PoolTimeoutError, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    )


def _passing_state(exc: BaseException | None) -> bool:
    return str(getattr(exc, "sqlstate", None) or "").startswith(PASSING_SQLSTATES)


async def patiently(what: str, act: Callable[[], Awaitable[T]], *, pause_s: float = 0.2) -> T:
    """What `act` gives, however long the parts that it needs are away; any other error is the caller's."""
    while True:
        try:
            return await act()
        except Exception as exc:
            if not passing(exc):
                raise
            log.warning("effect_waits", effect=what, error=repr(exc))
        await asyncio.sleep(pause_s)


async def wait_for(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not past `stop`."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


class Backoff:
    """Ever longer pauses, capped and with jitter, until something goes well."""

    def __init__(self) -> None:
        self._seconds = BACKOFF_S

    def reset(self) -> None:
        """Something went well."""
        self._seconds = BACKOFF_S

    async def pause(self, stop: asyncio.Event) -> None:
        """The next pause; up to BACKOFF_MAX_S."""
        await wait_for(stop, self._seconds * random.uniform(0.5, 1.0))
        self._seconds = min(self._seconds * 2, BACKOFF_MAX_S)

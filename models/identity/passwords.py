"""Argon2id password hashes, computed in a few threads so that the event loop goes on."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from models.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

MEMORY_KIB: Final = 19_456
TIME_COST: Final = 2
PARALLELISM: Final = 1
THREADS: Final = 2
WAITING_MAX: Final = 64  #: beyond it sign-in answers 503, rather than queue for seconds


class Passwords:
    """Hashes and checks passwords. Each takes tens of milliseconds of one core, whatever the answer."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM)
        self._nobody = self._hasher.hash("the password of nobody")
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="argon2")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Raises Unavailable when too many wait."""
        return await self._run(self._hash, password)

    async def matches(self, password: str, stored: str | None) -> bool:
        """Whether the password is the one of `stored`; without one it takes the same time and is False."""
        return await self._run(self._check, password, stored)

    def outdated(self, stored: str) -> bool:
        """Whether the parameters have risen since it was made."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Let running hashes end, drop those that wait."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._waiting >= WAITING_MAX:
            raise Unavailable("too many people sign in at once")
        self._waiting += 1
        try:
            call = functools.partial(work, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            self._waiting -= 1

    def _hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def _check(self, password: str, stored: str | None) -> bool:
        try:
            return self._hasher.verify(stored or self._nobody, password) and stored is not None
        except (VerificationError, InvalidHashError):
            return False

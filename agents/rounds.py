"""A loop of rounds beside the agents: claim what is due, work on it outside any transaction, record what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import structlog

from agents.outages import passing

POLL_S: Final = 1.0
PAUSE_S: Final = 1.0  #: after something went wrong

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Rounds:
    """Calls `work`, which says how much it did, over and over; pauses when there was nothing, until woken.

    `close` is called at the end. `finish`: work under way is finished before, for what cannot be done again.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[int]],
        close: Callable[[], Awaitable[None]],
        *,
        finish: bool = False,
    ) -> None:
        self._name, self._work, self._close, self._finish = name, work, close, finish
        self._woken = asyncio.Event()

    async def wake(self, event: Any = None) -> None:
        """There is something to do."""
        self._woken.set()

    async def run(self) -> None:
        """Until cancelled: then the work under way is too, and is due again when its claim ends, unless `finish`."""
        try:
            while True:
                step = asyncio.create_task(self._step(), name=f"rounds-{self._name}")
                try:
                    await (asyncio.shield(step) if self._finish else step)
                except asyncio.CancelledError:
                    if self._finish:
                        await step
                    raise
        finally:
            await self._close()

    async def _step(self) -> None:
        """One round, or a pause where there is nothing to do."""
        pause_s = POLL_S
        try:
            self._woken.clear()
            if await self._work():
                return
        except Exception as exc:
            if passing(exc):
                log.warning("rounds_wait", of=self._name, error=repr(exc))
            else:
                log.exception("rounds_failed", of=self._name)
            pause_s = PAUSE_S
        await self._pause(pause_s)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return


def waking(rounds: Sequence[Rounds]) -> Callable[[Any], Awaitable[None]]:
    """Tells all of them that there is something to do."""

    async def wake(event: Any) -> None:
        for one in rounds:
            await one.wake(event)

    return wake


class ClaimLost(Exception):
    """Somebody else has the work now, or nobody needs it any more."""


async def held(work: Coroutine[Any, Any, T], renew: Callable[[], Awaitable[bool]], *, every_s: float) -> T:
    """The result of `work`, during which the claim is renewed; ClaimLost, and the work is broken off, when it cannot.

    A renewal that an outage prevents is tried again: whoever claims the work after that does the same as we do.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=every_s))[0]:
            try:
                if not await renew():
                    raise ClaimLost
            except Exception as exc:
                if not passing(exc):
                    raise
                log.warning("claim_not_renewed", error=repr(exc))
        return await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

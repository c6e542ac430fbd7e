"""News of the fake Stripe: signed webhooks, sent until each is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

from stripe import WebhookSignature

from ops.stack.servers.stripe_memory import Memory

RETRY_FIRST_S = 0.25
RETRY_MAX_S = 10.0
AT_ONCE = 8

Push = Callable[[bytes, str], Awaitable[str | None]]
"""Sends a payload with its signature; None when it was taken, else why not."""


class News:
    """Sends what `memory` has. Each attempt is signed at its own time, as Stripe does."""

    def __init__(self, memory: Memory, push: Push, secret: str, now: Callable[[], Awaitable[datetime]]) -> None:
        self._memory, self._push, self._now = memory, push, now
        self._secret = secret.split(",")[0]
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._sending: dict[str, asyncio.Task[None]] = {}

    def send_all(self) -> None:
        """See to it that all news is on its way."""
        for event_id, payload in self._memory.news():
            if event_id not in self._sending:
                self._sending[event_id] = asyncio.create_task(self._send(event_id, payload))

    async def settle(self) -> None:
        """Wait until all that is on its way now has been taken."""
        while self._sending:
            await asyncio.gather(*self._sending.values(), return_exceptions=True)

    async def close(self) -> None:
        for task in self._sending.values():
            task.cancel()
        await self.settle()

    async def _send(self, event_id: str, payload: bytes) -> None:
        wait_s = RETRY_FIRST_S
        try:
            while (refused := await self._try(payload)) is not None:
                print(f"{event_id} not taken ({refused}): again in {wait_s:g} s", flush=True)
                await asyncio.sleep(wait_s)
                wait_s = min(RETRY_MAX_S, wait_s * 2)
            with self._memory.transaction():
                self._memory.taken(event_id)
        finally:
            self._sending.pop(event_id, None)

    async def _try(self, payload: bytes) -> str | None:
        async with self._slots:
            now = await self._now()
            signature = WebhookSignature.generate_signature_header(payload.decode(), self._secret, int(now.timestamp()))
            return await self._push(payload, signature)

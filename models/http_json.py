"""Calls to somebody else's service that takes JSON and gives JSON."""

from __future__ import annotations

from typing import Any, Final

import aiohttp

from models.errors import Unavailable

TIMEOUT_S: Final = 90.0  #: of one call
RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class Refused(Exception):
    """The service will not do this, however often it is asked."""


class JsonCaller:
    """POSTs to a service called `who`. Raises Unavailable when it may work later, Refused when it will not."""

    def __init__(self, who: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._who = who
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: Any, *, token: str) -> Any:
        """The JSON of a 200."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(url, json=body, headers={"Authorization": f"Bearer {token}"}) as answer:
                if answer.status in RETRIED:
                    raise Unavailable(f"{self._who} answers {answer.status}")
                if answer.status != 200:
                    raise Refused(f"{self._who} answers {answer.status}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise Unavailable(f"{self._who} does not answer: {type(exc).__name__}") from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

"""The limit of the public ad routes."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from models.errors import RateLimited
from models.limits import network_of

TRACKS_PER_MINUTE: Final = 60_000  #: of one client address, before RATE_LIMIT_SCALE
ADDRESSES_MAX: Final = 100_000

_network = lru_cache(maxsize=8192)(network_of)


class AddressLimit:
    """Requests of a client address in a minute of the wall clock.

    Counted in this process alone, so several processes allow several times as many: it keeps floods out, and costs the
    hot routes no round trip. What it protects is bounded by itself (an ad token is issued once and counts once).
    """

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._minute = -1
        self._counts: dict[str, int] = {}

    def hit(self, address: str, *, now_s: float) -> None:
        """Count a request; RateLimited when it is one too many."""
        minute = int(now_s // 60)
        if minute != self._minute or len(self._counts) > ADDRESSES_MAX:
            self._minute, self._counts = minute, {}
        network = _network(address)
        count = self._counts[network] = self._counts.get(network, 0) + 1
        if count > self._per_minute:
            raise RateLimited("too many ad events from this address", retry_after_s=60 - int(now_s % 60))

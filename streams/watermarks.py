"""Time on a shard, told by its ticks: what may still come, which days, minutes and marks are closed. Pure.

A tick says: no event with ``exp + skew <= tick`` comes after it. So once the watermark has passed
``end of day + token TTL + skew``, nobody can send an event of that day any more.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

DAY_S: Final = 86_400
MINUTE_S: Final = 60
MICROS: Final = 1_000_000
SEEN_KEPT_S: Final = 7_200  #: how long marks of seen events are kept after their token's end
COUNTERS_KEPT_DAYS: Final = 8  #: how long counters stay in the table after their day has closed
NEVER: Final = -1

_PACKED = struct.Struct("<qqq")


@dataclass(frozen=True, slots=True)
class Grace:
    """How long after its token was issued an event may still come."""

    token_ttl_s: int
    skew_s: int

    @property
    def seconds(self) -> int:
        return self.token_ttl_s + self.skew_s


@dataclass(slots=True)
class Watermark:
    """One shard's. `base_day`: days up to it had closed before the first tick; none of theirs was ever counted."""

    grace: Grace
    until_us: int = NEVER
    base_day: int = NEVER
    ticks: int = 0

    def advance(self, tick_us: int) -> None:
        """Take a tick; an older one changes nothing."""
        self.ticks += 1
        if tick_us > self.until_us:
            first = self.until_us == NEVER
            self.until_us = tick_us
            if first:
                self.base_day = self.closed_day

    @property
    def closed_day(self) -> int:
        """The last day (since 1970) that is closed; NEVER before the first tick."""
        if self.until_us == NEVER:
            return NEVER
        return (self.until_us // MICROS - self.grace.seconds) // DAY_S - 1

    @property
    def open_minute(self) -> int:
        """The first served minute (since 1970) that is still open."""
        if self.until_us == NEVER:
            return 0
        return (self.until_us // MICROS - self.grace.seconds) // MINUTE_S

    @property
    def oldest_bucket(self) -> int:
        """The first minute of `exp` whose marks are kept."""
        if self.until_us == NEVER:
            return 0
        return (self.until_us // MICROS - SEEN_KEPT_S) // MINUTE_S

    @property
    def live_bucket(self) -> int:
        """The first minute of `exp` in which events that no tick excludes may lie."""
        if self.until_us == NEVER:
            return 0
        return (self.until_us // MICROS - self.grace.skew_s) // MINUTE_S

    def pack(self) -> bytes:
        return _PACKED.pack(self.until_us, self.base_day, self.ticks)

    @classmethod
    def unpack(cls, grace: Grace, data: bytes) -> Watermark:
        return cls(grace, *_PACKED.unpack(data))

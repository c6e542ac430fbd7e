"""Counters of one ad and day: in memory, as the table keeps them, as the outside sees them. Pure."""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import chain
from typing import Final, NamedTuple

_KEY = struct.Struct(">sHI16s")
_COUNTER = struct.Struct("<qqqH")
_MINUTE = struct.Struct("<Iq")
_LAYOUTS_MAX: Final = 1024  #: kept, one for each number of open minutes, which is that of minutes in a token's life


class DayValues(NamedTuple):
    """Absolute counters of one ad and day, as they go to Redis and into rollups."""

    ad_id: bytes
    day: int  #: since 1970
    events: int
    impressions: int
    clicks: int
    spend_micros: int
    open_minutes: tuple[int, ...]  #: minute, settled of it, minute, …


@lru_cache(maxsize=_LAYOUTS_MAX)
def _counter(minutes: int) -> struct.Struct:
    """The layout of a counter with so many open minutes."""
    return struct.Struct(_COUNTER.format + "Iq" * minutes)


class AdDay:
    """Counters of one ad and day."""

    __slots__ = ("ad_id", "clicks", "day", "dirty", "impressions", "minutes", "shard", "spend_micros")

    def __init__(self, shard: int, day: int, ad_id: bytes) -> None:
        self.shard, self.day, self.ad_id = shard, day, ad_id
        self.impressions = self.clicks = self.spend_micros = 0
        self.minutes: dict[int, int] = {}
        self.dirty = False

    @property
    def key(self) -> bytes:
        """Where the table keeps it."""
        return _KEY.pack(b"c", self.shard, self.day, self.ad_id)

    def pack(self, open_minute: int) -> bytes:
        """The table's value; minutes before `open_minute` are let go."""
        minutes = self.minutes
        if minutes and min(minutes) < open_minute:
            minutes = self.minutes = {m: v for m, v in minutes.items() if m >= open_minute}
        count = len(minutes)
        flat = chain.from_iterable(minutes.items())
        return _counter(count).pack(self.impressions, self.clicks, self.spend_micros, count, *flat)

    @classmethod
    def unpack(cls, key: bytes, value: bytes) -> AdDay:
        """From a table entry."""
        _, shard, day, ad_id = _KEY.unpack(key)
        found = cls(shard, day, ad_id)
        found.impressions, found.clicks, found.spend_micros, count = _COUNTER.unpack_from(value)
        found.minutes = dict(_MINUTE.iter_unpack(value[_COUNTER.size : _COUNTER.size + count * _MINUTE.size]))
        return found

    def values(self) -> DayValues:
        """What the outside sees."""
        return DayValues(
            self.ad_id,
            self.day,
            self.impressions + self.clicks,
            self.impressions,
            self.clicks,
            self.spend_micros,
            tuple(chain.from_iterable(self.minutes.items())),
        )

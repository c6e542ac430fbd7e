"""The packed columns of an `ad_events` record: 200 events decode in microseconds, which rows do not."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from schemas.records import AdEvents

IMPRESSION: Final = 0
CLICK: Final = 1


class AdEvent(NamedTuple):
    """One impression or click, as the collector takes it in."""

    jti: bytes  #: 16 bytes, the event's id
    ad_id: bytes  #: 16 bytes
    kind: int  #: IMPRESSION or CLICK
    iat_s: int
    exp_s: int
    cost_micros: int


class Columns(NamedTuple):
    """A batch, a tuple a column; all are of one length but `ads`."""

    shard: int
    tick_us: int | None
    ads: tuple[bytes, ...]
    jti: tuple[bytes, ...]
    ad: tuple[int, ...]
    kind: bytes
    iat_s: tuple[int, ...]
    exp_s: tuple[int, ...]
    cost_micros: tuple[int, ...]


class MalformedBatchError(ValueError):
    """The columns do not fit each other."""


@lru_cache(maxsize=4096)
def _packing(code: str, count: int) -> struct.Struct:
    return struct.Struct("<" + "16s" * count if code == "16s" else f"<{count}{code}")


def pack(events: Sequence[AdEvent], *, event_id: UUID, shard: int, occurred_at: datetime, actor: str) -> AdEvents:
    """A record of up to 65,535 events of one shard."""
    count = len(events)
    ads = dict.fromkeys(event.ad_id for event in events)
    index = {ad_id: n for n, ad_id in enumerate(ads)}
    u32 = _packing("I", count).pack
    return AdEvents(
        event_id=event_id,
        occurred_at=occurred_at,
        actor=actor,
        shard=shard,
        ads=b"".join(ads),
        jti=b"".join([event.jti for event in events]),
        ad=_packing("H", count).pack(*[index[event.ad_id] for event in events]),
        kind=bytes([event.kind for event in events]),
        iat_s=u32(*[event.iat_s for event in events]),
        exp_s=u32(*[event.exp_s for event in events]),
        cost_micros=u32(*[event.cost_micros for event in events]),
    )


def unpack(fields: dict[str, Any]) -> Columns:
    """The columns of a decoded record. Raises MalformedBatchError when they do not fit each other."""
    count, kinds, ads = len(fields["kind"]), fields["kind"], fields["ads"]
    try:
        columns = Columns(
            fields["shard"],
            fields["tick_us"],
            _packing("16s", len(ads) // 16).unpack(ads),
            _packing("16s", count).unpack(fields["jti"]),
            _packing("H", count).unpack(fields["ad"]),
            kinds,
            _packing("I", count).unpack(fields["iat_s"]),
            _packing("I", count).unpack(fields["exp_s"]),
            _packing("I", count).unpack(fields["cost_micros"]),
        )
    except struct.error as exc:
        raise MalformedBatchError(f"columns differ in length: {exc}") from None
    if count and (max(columns.ad) >= len(columns.ads) or max(kinds) > CLICK):
        raise MalformedBatchError("a column names an ad or a kind that is not there")
    return columns

"""The ads engine's door to Redis: the budget gate, the agent's counters, the marks of events seen.

Keys of a shard share a hash tag. `ads:{S}:gate` holds epoch, run_id, watermark_us (logical), ticked_us (Redis TIME of
the last tick); `ads:{S}:day:<day>:<ad>` holds events, impressions, clicks, settled, M<minute> (reserved at serve),
S<minute> (settled of it), and the gate's running sum of both (held, held_at, oldest: lua/admit.lua). The Lua files say
what moves when. Redis holds nothing that cannot be rebuilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from models.ads.rules import day_number, shard_of
from models.redis import RUN_ID, RedisLink, Script

STALE_S: Final = 60  #: without a tick for so long a gate is closed
PENDING_S: Final = 5  #: life of a mark whose event is not yet durable
SEEN_BEYOND_S: Final = 7200  #: life of a mark after the token's end
FIRST_OFFERS: Final = 2  #: of a serve, offered alone before the others
COUNTED: Final = 0  #: as serves a minute: this serve is counted already
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LUA: Final = Path(__file__).parent / "lua"

ADMIT, PUBLISH, OPEN, SEED, CONFIRM = (
    Script((LUA / f"{name}.lua").read_text()) for name in ("admit", "publish", "open", "seed", "confirm")
)


class Offer(NamedTuple):
    """An ad offered to the gate."""

    ad_id: UUID
    cost_micros: int
    budget_micros: int  #: of a day, as in force now


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said."""

    admitted: int | None  #: index of the offer that got the reservation
    refused: Sequence[str]  #: `budget_exhausted` or `gate_closed`, one for each offer tried before
    retry_after_s: int = 0  #: above 0: the buyer is rate limited, nothing was tried

    @property
    def rate_limited(self) -> bool:
        return self.retry_after_s > 0


@dataclass(frozen=True, slots=True)
class LiveCounters:
    """One ad and day, as Redis has it."""

    impressions: int
    clicks: int
    spend_micros: int
    reserved_micros: int
    as_of: datetime | None  #: the shard's watermark: all before it is counted


DayCounters = tuple[bytes, int, int, int, int, int, Sequence[int]]
"""Absolute counters: ad id, day since 1970, events, impressions, clicks, spend_micros, (minute, settled of it, …)."""


class GateMark(NamedTuple):
    """What a gate in Redis says of itself; None: nothing."""

    epoch: str | None
    run_id: str | None
    server_run_id: str  #: of the server that answered


def gate_key(shard: int) -> str:
    return f"ads:{{{shard}}}:gate"


def day_prefix(shard: int) -> str:
    return f"ads:{{{shard}}}:day:"


def day_key(shard: int, day: int, ad_id: bytes) -> str:
    return f"ads:{{{shard}}}:day:{day}:{ad_id.hex()}"


@lru_cache(maxsize=65_536)
def _offer_keys(ad_id: UUID, day: int, shards: int) -> tuple[str, str]:
    shard = shard_of(ad_id, shards)
    return gate_key(shard), day_key(shard, day, ad_id.bytes)


class Gate:
    """The budget gate as serve and live counters see it. `token_ttl_s + skew_s` is when a minute closes."""

    def __init__(self, link: RedisLink, *, shards: int, token_ttl_s: int, skew_s: int) -> None:
        self._link = link
        self._shards = shards
        self._grace_s = token_ttl_s + skew_s

    async def admit(self, offers: Sequence[Offer], *, iat_s: int, buyer: str, serves_per_minute: int) -> Verdict:
        """Reserve an impression, in the minute of `iat_s`, for the first of at most 8 offers that fits its budget.

        Fails closed: without epoch, watermark or recent tick a shard's offers are refused. Raises Unavailable.
        The first two go alone, since one of them nearly always fits, and a command's price is its arguments.
        """
        head, tail = offers[:FIRST_OFFERS], offers[FIRST_OFFERS:]
        verdict = await self._ask(head, iat_s=iat_s, buyer=buyer, serves_per_minute=serves_per_minute)
        if verdict.admitted is not None or verdict.rate_limited or not tail:
            return verdict
        rest = await self._ask(tail, iat_s=iat_s, buyer=buyer, serves_per_minute=COUNTED)
        admitted = None if rest.admitted is None else rest.admitted + len(head)
        return Verdict(admitted, [*verdict.refused, *rest.refused])

    async def _ask(self, offers: Sequence[Offer], *, iat_s: int, buyer: str, serves_per_minute: int) -> Verdict:
        keys: list[str] = [f"ads:serves:{buyer}"]
        args: list[object] = [RUN_ID, iat_s, self._grace_s, STALE_S, serves_per_minute]
        day = iat_s // 86_400
        for offer in offers:
            keys += _offer_keys(offer.ad_id, day, self._shards)
            args += (offer.cost_micros, offer.budget_micros)
        winner, wait_s, *codes = await self._link.script(ADMIT, keys=keys, args=args)
        if winner < 0:
            return Verdict(None, (), max(1, wait_s))
        return Verdict(winner - 1 if winner else None, [code.decode() for code in codes])

    async def live(self, ad_id: UUID, day: date) -> LiveCounters:
        """The ad's counters of `day`, zeros when Redis has none. Raises Unavailable."""
        shard = shard_of(ad_id, self._shards)
        watermark = await self._link.execute("HGET", gate_key(shard), "watermark_us")
        flat = await self._link.execute("HGETALL", day_key(shard, day_number(day), ad_id.bytes))
        fields = {name.decode(): int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        as_of = None if watermark is None else EPOCH + timedelta(microseconds=int(watermark))
        return LiveCounters(
            impressions=fields.get("impressions", 0),
            clicks=fields.get("clicks", 0),
            spend_micros=fields.get("settled", 0),
            reserved_micros=self._held(fields, int(watermark or 0)),
            as_of=as_of,
        )

    def _held(self, fields: dict[str, int], watermark_us: int) -> int:
        return sum(
            max(0, value - fields.get("S" + name[1:], 0))
            for name, value in fields.items()
            if name[0] == "M" and ((int(name[1:]) + 1) * 60 + self._grace_s) * 1_000_000 > watermark_us
        )


class Mark(StrEnum):
    """What a claim of an event's id found."""

    NEW = "new"
    PENDING = "pending"  #: another request has it, not yet durable
    SEEN = "seen"


class SeenMarks:
    """The first wall against repeats; the one in the stream is the one that counts."""

    def __init__(self, link: RedisLink, *, token_ttl_s: int, skew_s: int) -> None:
        self._link = link
        self._life_s = token_ttl_s + skew_s + SEEN_BEYOND_S

    async def claim(self, jti: bytes) -> Mark:
        """Take the id for this request, for PENDING_S. Raises Unavailable."""
        found = await self._link.execute("SET", b"ads:seen:" + jti, "p", "NX", "EX", PENDING_S, "GET")
        if found is None:
            return Mark.NEW
        return Mark.PENDING if found == b"p" else Mark.SEEN

    async def confirm(self, jtis: Sequence[bytes]) -> None:
        """The events are durable: their marks live on. Raises Unavailable (the stream dedupes anyway)."""
        if jtis:
            await self._link.script(CONFIRM, keys=[b"ads:seen:" + jti for jti in jtis], args=[self._life_s])

    async def release(self, jtis: Sequence[bytes]) -> None:
        """The events did not become durable: let a retry in. Raises Unavailable."""
        if jtis:
            await self._link.execute("DEL", *[b"ads:seen:" + jti for jti in jtis])


class CounterSink:
    """The agent's side of the gate: it moves absolute counters forward, seeds and opens."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def publish(
        self, shard: int, *, watermark_us: int | None, ticked: bool, days: Sequence[DayCounters]
    ) -> GateMark:
        """One Lua call: counters, then the watermark; idempotent, never backwards. Raises Unavailable."""
        entries = [
            (f"{day}:{ad_id.hex()}", events, impressions, clicks, spend, minutes)
            for ad_id, day, events, impressions, clicks, spend, minutes in days
        ]
        message = msgspec.msgpack.encode((watermark_us or False, ticked, entries))
        found = await self._link.script(PUBLISH, keys=[gate_key(shard), day_prefix(shard)], args=[RUN_ID, message])
        epoch, run_id, server = (None if text is None else text.decode() for text in found)
        return GateMark(epoch, run_id, server or "")

    async def begin_seeding(self, shard: int, mark: str, *, seen: str | None) -> bool:
        """Close the gate and leave `mark`; False when its epoch is not the one `seen` any more. Raises Unavailable."""
        begun = await self._link.script(SEED, keys=[gate_key(shard)], args=[RUN_ID, mark, seen or ""])
        return bool(begun)

    async def open(self, shard: int, *, mark: str, epoch: UUID) -> bool:
        """Open the gate; False when Redis lost `mark`: seed again. Raises Unavailable."""
        opened = await self._link.script(OPEN, keys=[gate_key(shard)], args=[RUN_ID, mark, str(epoch)])
        return bool(opened)

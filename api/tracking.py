"""An impression or click on its way to be counted: once, however often and wherever its token is sent."""

from __future__ import annotations

import asyncio
from typing import Final

from api.collector import Collector, Outcome, Slot, Waiting
from models.ads.gateway import Mark, SeenMarks
from models.ads.rules import EventKind, shard_of
from models.ads.tokens import AdClaims, counts_until
from models.errors import InvalidToken, Unavailable
from schemas.ad_columns import CLICK, IMPRESSION, AdEvent

POLLS_S: Final = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.4)  #: how long a twin waits for another process's flush

_KINDS: Final = {EventKind.IMPRESSION: IMPRESSION, EventKind.CLICK: CLICK}


class Tracker:
    """One a process. Twins of an event under way here wait for its slot; elsewhere, for its mark in Redis."""

    def __init__(self, collector: Collector, marks: SeenMarks, *, shards: int, token_ttl_s: int) -> None:
        self._collector = collector
        self._marks = marks
        self._shards = shards
        self._token_ttl_s = token_ttl_s
        self._under_way: dict[bytes, Slot] = {}

    async def record(self, claims: AdClaims) -> bool:
        """Whether it was this call that made the event durable; False: it already is.

        The claims are countable (models.ads.tokens). Raises InvalidToken when a tick has passed them meanwhile, and
        Unavailable when it is not known to be durable.
        """
        jti = claims.jti.bytes
        twin = self._under_way.get(jti)
        if twin is not None:
            await asyncio.wait((twin,))
            return _answer(Outcome.FAILED if twin.cancelled() else twin.result(), first=False)
        self._collector.check_room()
        slot: Slot = asyncio.get_running_loop().create_future()
        self._under_way[jti] = slot
        try:
            await self._claim(claims, slot)
            return _answer(await slot, first=True)
        finally:  # a request that is given up lets its twins go; the event may be recorded all the same
            slot.cancel()
            del self._under_way[jti]

    async def _claim(self, claims: AdClaims, slot: Slot) -> None:
        jti = claims.jti.bytes
        mark = await self._marks.claim(jti)
        if mark is Mark.PENDING:
            mark = await self._wait(jti)
        if mark is Mark.SEEN:
            slot.set_result(Outcome.SEEN)
            return
        event = AdEvent(
            jti=jti,
            ad_id=claims.ad_id.bytes,
            kind=_KINDS[claims.kind],
            iat_s=claims.iat,
            exp_s=counts_until(claims, ttl_s=self._token_ttl_s),
            cost_micros=claims.cost_micros,
        )
        try:
            self._collector.add(Waiting(shard_of(claims.ad_id, self._shards), event, slot))
        except Unavailable:
            await self._marks.release([jti])
            raise

    async def _wait(self, jti: bytes) -> Mark:
        """NEW or SEEN, once the other process has finished or given up; Unavailable when it takes too long."""
        for pause_s in POLLS_S:
            await asyncio.sleep(pause_s)
            mark = await self._marks.claim(jti)
            if mark is not Mark.PENDING:
                return mark
        raise Unavailable("the same token is being recorded: try again")


def _answer(outcome: Outcome, *, first: bool) -> bool:
    if outcome is Outcome.REFUSED:
        raise InvalidToken("the token has expired")
    if outcome is Outcome.FAILED:
        raise Unavailable("the event could not be recorded: try again")
    return first and outcome is Outcome.RECORDED

"""Serve: the candidates, the gate's verdict, two tokens. Kept lean: it runs for every page that a buyer opens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from api import ad_metrics
from api.ad_creatives import CreativeUrls
from api.ad_feed import CatalogFeed
from models.ads.catalog import Candidate
from models.ads.gateway import Gate
from models.ads.rules import EventKind, Placement, no_ad_reason
from models.ads.tokens import VERSION, AdClaims, TokenKeys
from models.database import new_id
from models.errors import RateLimited, Unavailable

SERVES_UNDER_WAY_MAX: Final = 2048  #: more at once are shed with a 503

Answer = dict[str, Any]  #: the shape of schemas.http.ads.ServeOut


class AdServer:
    """One a process. `serves_per_minute` is each buyer store's limit."""

    def __init__(
        self,
        feed: CatalogFeed,
        creatives: CreativeUrls,
        gate: Gate,
        keys: TokenKeys,
        *,
        token_ttl_s: int,
        serves_per_minute: int,
    ) -> None:
        self._feed = feed
        self._creatives = creatives
        self._gate = gate
        self._keys = keys
        self._token_ttl_s = token_ttl_s
        self._serves_per_minute = serves_per_minute
        self._under_way = 0

    async def serve(self, placement: Placement, *, buyer_store_id: UUID, now: datetime) -> Answer:
        """The ad for this view, reserved in its budget, or why there is none. Raises RateLimited, Unavailable."""
        if self._under_way >= SERVES_UNDER_WAY_MAX:
            ad_metrics.serves["shed"] += 1
            raise Unavailable("too many serves at once")
        self._under_way += 1
        try:
            return await self._serve(placement, buyer_store_id, now)
        finally:
            self._under_way -= 1

    async def _serve(self, placement: Placement, buyer_store_id: UUID, now: datetime) -> Answer:
        snapshot = await self._feed.current()
        state = await self._feed.buyer_state(snapshot, buyer_store_id)
        lineup = snapshot.lineup(placement, state, now)
        iat = int(now.timestamp())
        verdict = await self._gate.admit(
            lineup.offers, iat_s=iat, buyer=buyer_store_id.hex, serves_per_minute=self._serves_per_minute
        )
        if verdict.rate_limited:
            ad_metrics.serves["rate_limited"] += 1
            raise RateLimited("too many serves for this store", retry_after_s=verdict.retry_after_s)
        for reason, count in lineup.excluded.items():
            ad_metrics.excluded[reason] += count
        for code in verdict.refused:
            ad_metrics.excluded[code] += 1
        if verdict.admitted is None:
            return _nothing(no_ad_reason(verdict.refused))
        ad_metrics.serves["served"] += 1
        return self._served(lineup.candidates[verdict.admitted], placement, buyer_store_id, iat)

    def _served(self, ad: Candidate, placement: Placement, buyer_store_id: UUID, iat: int) -> Answer:
        request_id, exp = new_id(), iat + self._token_ttl_s
        impression, click = (
            self._keys.sign(
                AdClaims(
                    typ="ad",
                    v=VERSION,
                    jti=new_id(),
                    request_id=request_id,
                    kind=kind,
                    ad_id=ad.ad_id,
                    store_id=ad.store_id,
                    target_type=ad.target_type,
                    target_id=ad.target_id,
                    buyer_store_id=buyer_store_id,
                    placement=placement,
                    cost_micros=cost_micros,
                    iat=iat,
                    exp=exp,
                )
            )
            for kind, cost_micros in ((EventKind.IMPRESSION, ad.offer.cost_micros), (EventKind.CLICK, 0))
        )
        return {
            "request_id": request_id,
            "ad": {
                "ad_id": ad.ad_id,
                "headline": ad.headline,
                "image_url": self._creatives.get(ad.creative),
                "target_type": ad.target_type,
                "target_id": ad.target_id,
                "vendor_store_id": ad.store_id,
            },
            "impression_token": impression,
            "click_url": f"/ads/click?token={click}",
            "expires_at": datetime.fromtimestamp(exp, UTC),
            "reason": None,
        }


def _nothing(reason: str) -> Answer:
    ad_metrics.serves[reason] += 1
    return {
        "request_id": new_id(),
        "ad": None,
        "impression_token": None,
        "click_url": None,
        "expires_at": None,
        "reason": reason,
    }

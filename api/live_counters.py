"""An ad's counters as they run, for its vendor and for operators."""

from __future__ import annotations

from datetime import datetime, timedelta

from api.ad_services import AdServices
from api.services import Services
from models.ads.reads import Ad
from models.ads.rules import budget_micros
from schemas.http.ads import LiveOut


async def live_counters(process: Services, ad: Ad, now: datetime) -> LiveOut:
    """The counters of the UTC day, from the stream: all that happened before `as_of` is in them. Unavailable."""
    counters = await process.get(AdServices).gate.live(ad.id, now.date())
    as_of = counters.as_of
    return LiveOut(
        day=now.date(),
        impressions=counters.impressions,
        clicks=counters.clicks,
        spend_micros=counters.spend_micros,
        reserved_micros=counters.reserved_micros,
        budget_micros=budget_micros(ad.daily_budget_cents),
        as_of=as_of,
        lag_ms=None if as_of is None else max(0, (now - as_of) // timedelta(milliseconds=1)),
    )

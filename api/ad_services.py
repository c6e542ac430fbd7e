"""The ads engine's parts in an API process, built from the settings and started and stopped together."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg

from api import ad_metrics
from api.ad_creatives import CreativeUrls
from api.ad_feed import CatalogFeed
from api.ad_limits import TRACKS_PER_MINUTE, AddressLimit
from api.ad_serving import AdServer
from api.collector import FLUSHES_MAX, Collector
from api.media_services import MediaServices
from api.services import Services
from api.tracking import Tracker
from models.ads.gateway import Gate, SeenMarks
from models.ads.tokens import TokenKeys
from models.cart.attribution import TokenRules
from models.database import make_driver_pool
from models.media.gateway import ReadUrls

SERVES_PER_MINUTE = 600  #: of one buyer store, before RATE_LIMIT_SCALE
CREATIVE_TTL: Final = timedelta(days=1)  #: of the URL of a picture; a page may show it for half of that
CREATIVES_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class AdServices:
    """What the ad routes use. The collector has connections of its own, so that no request can hold it up."""

    keys: TokenKeys
    feed: CatalogFeed
    gate: Gate
    server: AdServer
    collector: Collector
    tracker: Tracker
    track_limit: AddressLimit
    pool: asyncpg.Pool[asyncpg.Record]
    attribution: TokenRules  #: for the tokens that come with carts
    token_ttl_s: int
    skew_s: int


@asynccontextmanager
async def run_ads(services: Services) -> AsyncIterator[None]:
    """A part of the process: follows the catalogue, and at the end writes every event that a request waits for."""
    ads = await build(services)
    services.add(ads)
    ad_metrics.register(services.metrics)
    await ads.feed.start()
    try:
        yield
    finally:
        await ads.collector.drain()
        await ads.feed.stop()
        await ads.pool.close()


async def build(services: Services) -> AdServices:
    """The parts for the process's settings; nothing runs yet."""
    settings, link = services.settings, services.redis
    keys = TokenKeys(settings.ad_token_keys)
    store = services.get(MediaServices).store
    creatives = CreativeUrls(ReadUrls(store, CREATIVE_TTL, kept_max=CREATIVES_MAX))
    feed = CatalogFeed(services.sessions, creatives, shards=settings.ad_shards)
    life = {"token_ttl_s": settings.ad_token_ttl_s, "skew_s": settings.clock_skew_s}
    gate = Gate(link, shards=settings.ad_shards, **life)
    marks = SeenMarks(link, **life)
    pool = await make_driver_pool(settings.sqlalchemy_app_url, size=FLUSHES_MAX, application="packstream-collector")
    collector = Collector(
        pool,
        marks,
        flush_s=settings.ad_flush_ms / 1000,
        flush_events=settings.ad_flush_events,
        events_max=settings.ad_queue_events_max,
        skew_s=settings.clock_skew_s,
        actor=f"api:{socket.gethostname()}:{os.getpid()}",
        now=services.clock.now,
    )
    return AdServices(
        keys=keys,
        feed=feed,
        gate=gate,
        server=AdServer(
            feed,
            creatives,
            gate,
            keys,
            token_ttl_s=settings.ad_token_ttl_s,
            serves_per_minute=max(1, round(SERVES_PER_MINUTE * settings.rate_limit_scale)),
        ),
        collector=collector,
        tracker=Tracker(collector, marks, shards=settings.ad_shards, token_ttl_s=settings.ad_token_ttl_s),
        track_limit=AddressLimit(max(1, round(TRACKS_PER_MINUTE * settings.rate_limit_scale))),
        pool=pool,
        attribution=TokenRules(keys, ttl_s=settings.ad_attribution_ttl_s, skew_s=settings.clock_skew_s),
        token_ttl_s=settings.ad_token_ttl_s,
        skew_s=settings.clock_skew_s,
    )

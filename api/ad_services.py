"""The ads engine's parts in an API process, built from the settings and started and stopped together."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from api.ad_feed import CatalogFeed
from api.ad_serving import AdServer
from api.collector import FLUSHES_MAX, Collector
from api.tracking import Tracker
from models.ads.gateway import Gate, SeenMarks
from models.ads.tokens import TokenKeys
from models.database import SessionFactory, make_engine
from models.redis import RedisLink
from ops.settings import Settings

SERVES_PER_MINUTE = 600  #: of one buyer store, before RATE_LIMIT_SCALE


@dataclass(frozen=True, slots=True)
class AdServices:
    """What the ad routes use. The collector writes through an engine of its own, so that no request can hold it up."""

    keys: TokenKeys
    feed: CatalogFeed
    gate: Gate
    server: AdServer
    collector: Collector
    tracker: Tracker
    writer: AsyncEngine
    token_ttl_s: int
    skew_s: int

    async def start(self) -> None:
        """Load the catalogue; raises when the database does not answer."""
        await self.feed.start()

    async def stop(self) -> None:
        """Write every event that a request still waits for, then end."""
        await self.collector.drain()
        await self.feed.stop()
        await self.writer.dispose()


def build(settings: Settings, *, sessions: SessionFactory, link: RedisLink, now: Callable[[], datetime]) -> AdServices:
    """The parts for these settings; nothing runs before `start`."""
    keys, feed = TokenKeys(settings.ad_token_keys), CatalogFeed(sessions)
    life = {"token_ttl_s": settings.ad_token_ttl_s, "skew_s": settings.clock_skew_s}
    gate = Gate(link, shards=settings.ad_shards, **life)
    marks = SeenMarks(link, **life)
    writer = make_engine(settings.sqlalchemy_app_url, pool_size=FLUSHES_MAX, application="packstream-collector")
    collector = Collector(
        writer,
        marks,
        flush_s=settings.ad_flush_ms / 1000,
        flush_events=settings.ad_flush_events,
        events_max=settings.ad_queue_events_max,
        skew_s=settings.clock_skew_s,
        actor=f"api:{socket.gethostname()}:{os.getpid()}",
        now=now,
    )
    return AdServices(
        keys=keys,
        feed=feed,
        gate=gate,
        server=AdServer(
            feed,
            gate,
            keys,
            token_ttl_s=settings.ad_token_ttl_s,
            serves_per_minute=max(1, round(SERVES_PER_MINUTE * settings.rate_limit_scale)),
        ),
        collector=collector,
        tracker=Tracker(collector, marks, shards=settings.ad_shards, token_ttl_s=settings.ad_token_ttl_s),
        writer=writer,
        token_ttl_s=settings.ad_token_ttl_s,
        skew_s=settings.clock_skew_s,
    )

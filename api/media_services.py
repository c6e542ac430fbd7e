"""What media need in an API process: the bucket, kept read URLs, and the check of who pushes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.push_auth import PushAuth
from api.services import Services
from models.media.gateway import ObjectStore, ReadUrls
from ops.object_store import object_store


@dataclass(frozen=True, slots=True)
class MediaServices:
    """`store` may be away: signing works without it, what needs its content answers 503."""

    store: ObjectStore
    read_urls: ReadUrls
    pushes: PushAuth


@asynccontextmanager
async def run_media(services: Services) -> AsyncIterator[None]:
    """A part of the process: the connections to the bucket."""
    settings = services.settings
    store = await asyncio.to_thread(object_store, settings)
    pushes = PushAuth(
        audience=settings.gcs_webhook_audience,
        email=settings.gcs_webhook_email,
        shared_token=settings.gcs_webhook_token if settings.test_clock else None,
    )
    services.add(MediaServices(store, ReadUrls(store), pushes))
    try:
        yield
    finally:
        await asyncio.to_thread(store.close)

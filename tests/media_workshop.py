"""What the worker does about media, step by step, on the database and the bucket of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from agents import media
from agents.draft_work import DraftWork
from agents.media_work import MediaWork
from models.database import make_engine, make_sessions
from models.drafts.gateway import DraftReader, LocalReader
from models.media.gateway import ObjectStore
from models.media.making import Maker
from models.media.ocr import Ocr
from ops.settings import Settings
from schemas.records import MediaDeleted, MediaUploaded
from tests.api_driver import Api
from tests.media_bucket import as_owner, bucket_of, events


class Workshop:
    """A worker's share in media. `maker`, `reader` and `store` may be replaced."""

    def __init__(self, settings: Settings, store: ObjectStore, scratch: Path) -> None:
        self.engine = make_engine(settings.sqlalchemy_url, pool_size=4, application="test")
        self.sessions = make_sessions(self.engine)
        self.store = store
        self.scratch = scratch
        self.maker = Maker(scratch, ocr=None, ffmpeg=None)
        self.reader: DraftReader = LocalReader()

    def reading_with(self, ocr: Ocr) -> None:
        self.maker = Maker(self.scratch, ocr=ocr, ffmpeg=None)

    def work(self, lease_s: float = 60) -> MediaWork:
        return MediaWork(
            sessions=self.sessions,
            store=self.store,
            maker=self.maker,
            lease_s=lease_s,
            now=partial(datetime.now, UTC),
        )

    def drafting(self, lease_s: float = 60) -> DraftWork:
        return DraftWork(
            sessions=self.sessions,
            store=self.store,
            reader=self.reader,
            lease_s=lease_s,
            now=partial(datetime.now, UTC),
        )

    async def hear(self, api: Api, media_id: str) -> None:
        """What the agent does with all that was published about the media."""
        for event in await events(api, media_id):
            async with as_owner(api) as tx:
                if isinstance(event, MediaUploaded):
                    await media.queue(tx, event)
                elif isinstance(event, MediaDeleted):
                    await media.delete_objects(tx, event, store=self.store, now=partial(datetime.now, UTC))

    async def process(self, api: Api, *media_ids: Any) -> None:
        """Hear of the media, and work until nothing is due."""
        for media_id in media_ids:
            await self.hear(api, media_id)
        while await self.work().round():
            pass

    async def read(self, api: Api, *media_ids: Any) -> None:
        """Process the media, and read the drafts that wait for them."""
        await self.process(api, *media_ids)
        while await self.drafting().round():
            pass


@asynccontextmanager
async def workshop(settings: Settings, scratch: Path) -> AsyncIterator[Workshop]:
    """A workshop at the settings' bucket."""
    with bucket_of(settings) as store:
        found = Workshop(settings, store, scratch)
        try:
            yield found
        finally:
            await found.engine.dispose()

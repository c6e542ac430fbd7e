"""Keeps the process's ad catalogue fresh: polled four times a second, reloaded when its version has moved."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from api.ad_creatives import CreativeUrls
from models.ads import reads
from models.ads.catalog import EMPTY, Snapshot
from models.ads.engine import ShardsFrozen, shards_frozen
from models.database import SessionFactory
from models.errors import Forbidden, Unavailable
from models.stores import reads as stores

POLL_S: Final = 0.25
STALE_S: Final = 10.0  #: a catalogue that was not confirmed for so long is not served from

DOWN: Final = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What a database that does not answer raises, one way or another."""

log = structlog.get_logger(__name__)


class CatalogFeed:
    """The catalogue as the process knows it: `await current()`."""

    def __init__(self, sessions: SessionFactory, creatives: CreativeUrls, *, shards: int) -> None:
        self._sessions = sessions
        self._creatives = creatives
        self._shards = shards
        self._shards_checked = False
        self._snapshot = EMPTY
        self._confirmed_at = float("-inf")
        self._commits = 0  #: of this process, that the catalogue has to show
        self._shown = 0
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the catalogue, if the database answers, and begin to follow it. Raises ShardsFrozen."""
        try:
            await self._refresh()
        except DOWN as exc:
            log.warning("ad_catalog_not_read", error=repr(exc))
        self._task = asyncio.create_task(self._follow(), name="ad-catalog")

    async def stop(self) -> None:
        """End the polling."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def current(self) -> Snapshot:
        """The catalogue, with everything that this process has committed; Unavailable when it may be out of date."""
        if self._shown < self._commits:
            try:
                await self._refresh()
            except DOWN as exc:
                raise Unavailable("the ad catalogue cannot be read") from exc
        if monotonic() - self._confirmed_at > STALE_S:
            raise Unavailable("the ad catalogue is out of date")
        return self._snapshot

    async def buyer_state(self, snapshot: Snapshot, store_id: UUID) -> str:
        """The state that the buyer's store is in, as of the snapshot or later."""
        known = snapshot.buyer_states.get(store_id)
        if known is not None:
            return known
        async with self._sessions() as tx:
            standing = (await stores.standings(tx, [store_id])).get(store_id)
        if standing is None:
            raise Forbidden
        snapshot.buyer_states[store_id] = standing.state
        return standing.state

    def reload_after(self, tx: AsyncSession) -> None:
        """Serve nothing from before `tx`, once it has committed."""
        event.listen(tx.sync_session, "after_commit", self._committed, once=True)

    def _committed(self, _: object) -> None:
        self._commits += 1

    async def _refresh(self) -> None:
        asked_at, commits = monotonic(), self._commits
        async with self._lock:
            if self._confirmed_at > asked_at and self._shown >= commits:
                return
            started, commits, fresh = monotonic(), self._commits, None
            async with self._sessions() as tx:
                if not self._shards_checked:
                    self._shards_checked = await shards_frozen(tx, self._shards)
                if await reads.catalog_version(tx) != self._snapshot.version:
                    fresh = await reads.snapshot(tx)
            if fresh is None:
                await self._creatives.renew()
            else:
                await self._creatives.follow(fresh.candidates)
                self._snapshot = fresh
            self._confirmed_at, self._shown = started, commits

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._refresh()
            except (*DOWN, ShardsFrozen) as exc:  # it goes out of date, and serve answers 503
                log.warning("ad_catalog_not_read", error=repr(exc))

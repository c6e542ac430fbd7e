"""The collector of media: whatever a crash left between upload, finalisation and deletion comes to its end here.

- A pending row whose upload's time is over: with an object it is finalised (the news of it was lost), without one it
  goes. Failed uploads go after a week.
- A deletion that nobody has finished is done again.
- An object without a row is deleted. Rows are committed before an upload can begin and their ids never come again, so
  an object that is seen before its row is missed is nobody's.

It runs beside the housekeeping leader's chores, on a connection of its own: the storage may be slow, ticks may not.
Nothing it does depends on being alone.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from agents.outages import DATABASE_GONE
from models.clock import Clock
from models.database import make_engine, make_sessions
from models.errors import Unavailable
from models.media import deletions, reads, rules, writes
from models.media.gateway import Listed, ObjectStore, remove_objects
from models.media.rules import ORIGINAL, DeletionReason, MediaStatus, ObjectName
from ops.object_store import object_store
from ops.settings import Settings

ACTOR: Final = "housekeeping"
POLL_S: Final = 1.0
SWEEP_EVERY: Final = timedelta(seconds=10)  #: by the logical clock, as all that follows
LISTING_EVERY: Final = timedelta(hours=1)  #: in production: a listing costs a request for a thousand objects
ROWS_MAX: Final = 200  #: of one kind in one sweep
PAUSE_AFTER_ERROR_S: Final = 5.0
UNKNOWN_MAX: Final = 0.5  #: of UNKNOWN_OF objects or more: then this is not the bucket of this database
UNKNOWN_OF: Final = 200

log = structlog.get_logger(__name__)

Transaction = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class Collector:
    """One pass after the other; `transaction` opens one, `now` is the logical time."""

    def __init__(self, transaction: Transaction, store: ObjectStore, now: Callable[[], datetime]) -> None:
        self._transaction = transaction
        self._store = store
        self._now = now

    async def sweep(self) -> None:
        """Look after rows: overdue uploads, failed ones, unfinished deletions."""
        await self._settle_overdue()
        await self._collect_failed()
        await self._redo_deletions()

    async def _settle_overdue(self) -> None:
        now = self._now()
        async with self._transaction() as tx:
            overdue = await reads.overdue(tx, MediaStatus.PENDING, before=now - rules.STALE_AFTER, limit=ROWS_MAX)
            names = [reads.original(media) for media in overdue if _old_enough(media.id)]
        for name in names:
            await self._settle(name, now)

    async def _settle(self, name: ObjectName, now: datetime) -> None:
        """Finalise, where there is an object; else collect. An upload that comes even later is deleted as it comes."""
        facts = await self._store.facts(str(name))
        async with self._transaction() as tx:
            if facts is not None:
                outcome, _ = await writes.finalise(tx, name, facts, actor=ACTOR, now=now)
                log.info("media_finalised_late", media_id=str(name.media_id), outcome=outcome)
            elif await self._collect(tx, name, MediaStatus.PENDING, DeletionReason.STALE, now):
                log.info("media_stale_collected", media_id=str(name.media_id))

    async def _collect_failed(self) -> None:
        now = self._now()
        async with self._transaction() as tx:
            failed = await reads.overdue(tx, MediaStatus.FAILED, before=now - rules.FAILED_KEPT, limit=ROWS_MAX)
            for name in [reads.original(media) for media in failed]:
                await self._collect(tx, name, MediaStatus.FAILED, DeletionReason.FAILED, now)

    async def _collect(
        self, tx: AsyncSession, name: ObjectName, status: MediaStatus, reason: DeletionReason, now: datetime
    ) -> bool:
        return await writes.collect(tx, name.media_id, status=status, reason=reason, actor=ACTOR, now=now)

    async def _redo_deletions(self) -> None:
        now = self._now()
        async with self._transaction() as tx:
            left = await reads.unfinished_deletions(tx, before=now - rules.REDO_AFTER, limit=ROWS_MAX)
            wanted = [(ObjectName(row.store_id, row.media_id, ORIGINAL), list(row.object_names)) for row in left]
        for name, names in wanted:
            await self._remove(name, names)

    async def _remove(self, name: ObjectName, names: list[str]) -> None:
        """Delete the objects of media that are gone, and keep what came of it."""
        try:
            removed = await remove_objects(self._store, names, prefix=name.prefix)
        except Unavailable as exc:
            async with self._transaction() as tx:
                await deletions.fail(tx, name.media_id, repr(exc.__cause__ or exc)[:500], now=self._now())
            raise
        async with self._transaction() as tx:
            await deletions.complete(tx, name.media_id, removed, now=self._now())
        log.info("media_objects_deleted", media_id=str(name.media_id), **removed._asdict())

    async def delete_orphans(self) -> int:
        """Go through the bucket and delete objects without a row; how many media they were of."""
        token: str | None = None
        collected = 0
        while True:
            page = await self._store.page("", token)
            collected += await self._delete_orphans_of(page.objects)
            token = page.next_token
            if token is None:
                return collected

    async def _delete_orphans_of(self, objects: list[Listed]) -> int:
        now = self._now()
        old = (o.name for o in objects if o.created_at < now - rules.ORPHAN_AFTER)
        named = [name for name in map(ObjectName.parse, old) if name is not None]
        async with self._transaction() as tx:
            known = await reads.existing(tx, {name.media_id for name in named})
        orphans: dict[str, list[ObjectName]] = defaultdict(list)
        for name in named:
            if name.media_id not in known and _old_enough(name.media_id):
                orphans[name.prefix].append(name)
        if len(named) >= UNKNOWN_OF and sum(map(len, orphans.values())) > UNKNOWN_MAX * len(named):
            log.error("media_bucket_unknown", objects=len(named), unknown=len(orphans), bucket=self._store.bucket)
            return 0
        for names in orphans.values():
            await self._delete_orphan(names, now)
        return len(orphans)

    async def _delete_orphan(self, names: list[ObjectName], now: datetime) -> None:
        texts = [str(name) for name in names]
        async with self._transaction() as tx:
            await deletions.note(tx, names[0], texts, reason=DeletionReason.ORPHAN, now=now)
        await self._remove(names[0], texts)


def _old_enough(media_id: UUID) -> bool:
    """By the wall clock too: the logical clock, or a request's own time, may have run far ahead or behind."""
    return rules.grace_over(media_id, wall=datetime.now(UTC))


@asynccontextmanager
async def collecting_media(settings: Settings) -> AsyncIterator[None]:
    """The collector runs until the block ends; not at all where no object storage is configured."""
    if settings.gcs_endpoint is None and settings.packstream_env != "prod":
        yield
        return
    task = asyncio.create_task(_run(settings), name="media-collector")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run(settings: Settings) -> None:
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-media-collector")
    store = await asyncio.to_thread(object_store, settings)
    sessions, clock = make_sessions(engine), Clock()
    collector = Collector(sessions.begin, store, clock.now)
    try:
        list_every = SWEEP_EVERY if settings.test_clock else LISTING_EVERY
        await _rounds(collector, _clock_follower(settings, sessions.begin, clock), list_every)
    finally:
        await engine.dispose()
        await asyncio.to_thread(store.close)


def _clock_follower(settings: Settings, transaction: Transaction, clock: Clock) -> Callable[[], Awaitable[datetime]]:
    """Gives the logical time, which in dev and test Postgres has."""

    async def now() -> datetime:
        if settings.test_clock:
            async with transaction() as tx:
                await clock.refresh(tx)
        return clock.now()

    return now


async def _rounds(collector: Collector, read_now: Callable[[], Awaitable[datetime]], list_every: timedelta) -> None:
    """Sweep and list whenever it is time. What goes wrong is logged and tried again: the leader's chores go on."""
    sweep_at = list_at = datetime.min.replace(tzinfo=UTC)
    while True:
        try:
            now = await read_now()
            if now >= sweep_at:
                await collector.sweep()
                sweep_at = now + SWEEP_EVERY
            if now >= list_at:
                await collector.delete_orphans()
                list_at = now + list_every
            await asyncio.sleep(POLL_S)
        except (Unavailable, *DATABASE_GONE) as exc:
            log.warning("media_collector_waits", error=repr(exc))
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)
        except Exception:
            log.exception("media_collector_failed")
            await asyncio.sleep(PAUSE_AFTER_ERROR_S)

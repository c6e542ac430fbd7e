"""Processes the media that wait for it: claim in a transaction, make outside any, upload, record in a transaction.

Any number of workers may do so. What a crash leaves is claimed again when the lease is over, and made again under the
same names; what was uploaded for media that are gone meanwhile is deleted like any late upload.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import Counter

from agents.outages import passing
from agents.rounds import ClaimLost, held
from models.database import SessionFactory
from models.media import processing
from models.media.gateway import ObjectStore
from models.media.making import Maker, Result
from models.media.processing import Claimed
from models.media.rules import Failure

SLOTS: Final = 2  #: rounds that a worker runs side by side: each has a process that wants a core
PUT_OFF: Final = timedelta(seconds=5)  #: after an outage

PROCESSED = Counter("packstream_media_processed_total", "media that processing came to an end of", ["kind", "outcome"])

log = structlog.get_logger(__name__)


class MediaWork:
    """One process's share. A claim lasts `lease_s` and is renewed while the work goes on."""

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        store: ObjectStore,
        maker: Maker,
        lease_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._sessions, self._store, self._maker, self._now = sessions, store, maker, now
        self._lease = timedelta(seconds=lease_s)

    async def round(self) -> int:
        """Process what is due the longest; how many that were, none or one."""
        wall = datetime.now(UTC)
        async with self._sessions.begin() as tx:
            claimed = await processing.claim(tx, limit=1, until=wall + self._lease, wall=wall)
        for job in claimed:
            await self._deal_with(job)
        return len(claimed)

    async def _deal_with(self, job: Claimed) -> None:
        try:
            outcome = await held(self._process(job), partial(self._renew, job), every_s=self._lease.total_seconds() / 3)
        except ClaimLost:
            outcome = "lost"
        except Exception as exc:
            if passing(exc):
                log.warning("media_waits", media_id=str(job.name.media_id), error=repr(exc))
                await self._put_off(job)
            else:  # it comes again when its lease is over, and is given up in the end
                log.exception("media_failed", media_id=str(job.name.media_id))
            outcome = "again"
        PROCESSED.labels(job.kind, outcome).inc()

    async def _process(self, job: Claimed) -> str:
        result = await self._made(job)
        for name, one in zip(job.derived(result.made), result.made, strict=True):
            await self._store.put(name, one.content, content_type=one.content_type)
        async with self._sessions.begin() as tx:
            status = await processing.finish(tx, job, result.made, result.reason, now=self._now())
        log.info(
            "media_processed",
            media_id=str(job.name.media_id),
            kind=job.kind,
            status=status,
            reason=result.reason,
            derived=[one.kind for one in result.made],
            detail=result.detail,
        )
        return status or "lost"

    async def _made(self, job: Claimed) -> Result:
        if job.given_up:
            return Result([], Failure.GAVE_UP, f"{job.attempts - 1} attempts")
        content = await self._store.read(str(job.name))
        if content is None:  # deleted meanwhile: nothing is made, and the row is gone or goes
            return Result([], Failure.UNDECODABLE, "there is no object")
        return await self._maker.make(content, kind=job.kind, content_type=job.content_type)

    async def _renew(self, job: Claimed) -> bool:
        async with self._sessions.begin() as tx:
            return await processing.renew(tx, job, until=datetime.now(UTC) + self._lease)

    async def _put_off(self, job: Claimed) -> None:
        """If that cannot be written down either, the lease's end does the same."""
        try:
            async with self._sessions.begin() as tx:
                await processing.put_off(tx, job, until=datetime.now(UTC) + PUT_OFF)
        except Exception as exc:
            if not passing(exc):
                raise
            log.warning("media_not_put_off", media_id=str(job.name.media_id), error=repr(exc))


def empty_scratch(path: Path) -> Path:
    """A directory of this process alone, without what one that was killed left there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path

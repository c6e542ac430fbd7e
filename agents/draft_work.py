"""Reads the certificates that drafts wait for: claim in a transaction, read outside any, record in a transaction.

A draft waits until its certificate was processed (media_work.py); one that nobody queued for that is queued here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import structlog
from prometheus_client import Counter

from agents.outages import passing
from agents.rounds import ClaimLost, held
from models.database import SessionFactory
from models.drafts import writes as drafts
from models.drafts.gateway import DraftReader
from models.drafts.rules import DraftFailure, Reading
from models.drafts.writes import Claimed
from models.errors import NotFound
from models.http_json import Refused
from models.media import processing
from models.media import reads as media
from models.media.deriving import TEXT
from models.media.gateway import ObjectStore
from models.media.rules import MediaStatus

AT_ONCE: Final = 4
NOT_YET: Final = timedelta(seconds=0.5)  #: until a certificate is looked for again
PUT_OFF: Final = timedelta(seconds=5)  #: after an outage

DRAFTS = Counter("packstream_product_drafts_total", "drafts that reading came to an end of", ["outcome"])

log = structlog.get_logger(__name__)


class NotYet(Exception):
    """The certificate is still being processed."""


class DraftWork:
    """One process's share. A claim lasts `lease_s` and is renewed while the work goes on."""

    def __init__(
        self,
        *,
        sessions: SessionFactory,
        store: ObjectStore,
        reader: DraftReader,
        lease_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._sessions, self._store, self._reader, self._now = sessions, store, reader, now
        self._lease = timedelta(seconds=lease_s)

    async def round(self) -> int:
        """Read what is due, up to AT_ONCE drafts; how many came to an end."""
        wall = datetime.now(UTC)
        async with self._sessions.begin() as tx:
            claimed = await drafts.claim(tx, limit=AT_ONCE, until=wall + self._lease, wall=wall)
        return sum(await asyncio.gather(*map(self._deal_with, claimed)))

    async def _deal_with(self, draft: Claimed) -> bool:
        every_s = self._lease.total_seconds() / 3
        try:
            outcome = await held(self._read(draft), partial(self._renew, draft), every_s=every_s)
            return await self._finish(draft, outcome)
        except ClaimLost:
            return True
        except NotYet:
            await self._put_off(draft, NOT_YET)
        except Exception as exc:
            if passing(exc):
                log.warning("draft_waits", draft_id=str(draft.id), error=repr(exc))
                await self._put_off(draft, PUT_OFF)
            else:  # it comes again when its lease is over, and is given up in the end
                log.exception("draft_failed", draft_id=str(draft.id))
        return False

    async def _read(self, draft: Claimed) -> Reading | DraftFailure:
        if draft.given_up:
            return DraftFailure.GAVE_UP
        name = await self._text_name(draft)
        if isinstance(name, DraftFailure):
            return name
        text = await self._store.read(name)
        if text is None:
            return DraftFailure.UNREADABLE
        try:
            reading = await self._reader.read(text.decode(errors="replace"))
        except Refused as exc:
            log.warning("draft_refused", draft_id=str(draft.id), error=str(exc))
            return DraftFailure.REFUSED
        return reading if reading.fields else DraftFailure.NOTHING_FOUND

    async def _text_name(self, draft: Claimed) -> str | DraftFailure:
        """Which object has the certificate's text; NotYet while it may still come."""
        if draft.coa_media_id is None:
            return DraftFailure.MEDIA_DELETED
        async with self._sessions.begin() as tx:
            try:
                certificate = await media.view(tx, draft.coa_media_id, store_id=draft.store_id)
            except NotFound:
                return DraftFailure.MEDIA_DELETED
            await processing.queue(tx, certificate.id, wall=datetime.now(UTC))
        if certificate.status in (MediaStatus.UPLOADED, MediaStatus.PROCESSING):
            raise NotYet
        try:
            return certificate.derived_name(TEXT)
        except NotFound:
            return DraftFailure.UNREADABLE

    async def _finish(self, draft: Claimed, outcome: Reading | DraftFailure) -> bool:
        async with self._sessions.begin() as tx:
            kept = await drafts.finish(tx, draft, outcome, now=self._now())
        said = "ready" if isinstance(outcome, Reading) else str(outcome)
        DRAFTS.labels(said if kept else "lost").inc()
        log.info("draft_read", draft_id=str(draft.id), outcome=said, kept=kept)
        return True

    async def _renew(self, draft: Claimed) -> bool:
        async with self._sessions.begin() as tx:
            return await drafts.renew(tx, draft, until=datetime.now(UTC) + self._lease)

    async def _put_off(self, draft: Claimed, by: timedelta) -> None:
        """If that cannot be written down, the lease's end does the same."""
        try:
            async with self._sessions.begin() as tx:
                await drafts.put_off(tx, draft, until=datetime.now(UTC) + by)
        except Exception as exc:
            if not passing(exc):
                raise
            log.warning("draft_not_put_off", draft_id=str(draft.id), error=repr(exc))

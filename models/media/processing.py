"""Commands on the processing of media: queue, claim, renew, put off, finish.

A job is claimed in one transaction, worked on outside any, and finished in another. Its `due_at` is the end of the
claim while there is one: a worker that dies, or is held up, leaves the job to whoever comes next. All names of derived
objects are fixed and the same bytes lead to the same files, so that doing it twice is doing it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast
from uuid import UUID

from sqlalchemy import BigInteger, CursorResult, delete, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.database import new_id
from models.media import deletions, reads, rules
from models.media.deriving import Made, Shortfall
from models.media.rules import DeletionReason, Failure, MediaKind, MediaStatus, ObjectName, Step
from models.media.tables import Media, MediaDerived, MediaJob
from schemas.records import MediaProcessed

ACTOR: Final = "media"
ATTEMPTS_MAX: Final = 4  #: after so many that ended without a word, it is given up


@dataclass(frozen=True, slots=True)
class Claimed:
    """Media that are to be processed now, by the holder of `claim` alone."""

    name: ObjectName  #: of the original
    kind: MediaKind
    content_type: str
    claim: UUID
    attempts: int

    @property
    def given_up(self) -> bool:
        """Nobody who had it before came back: it is not tried again."""
        return self.attempts > ATTEMPTS_MAX

    def derived(self, made: Sequence[Made]) -> list[str]:
        """The names of derived objects."""
        return [str(self.name._replace(part=one.kind)) for one in made]


async def queue(tx: AsyncSession, media_id: UUID, *, wall: datetime) -> None:
    """Have the media processed, if they wait for it and are there; asking again changes nothing."""
    waiting = select(
        Media.id, literal(wall), literal(0, BigInteger()), literal(wall)
    ).where(Media.id == media_id, Media.status == MediaStatus.UPLOADED)  # fmt: skip
    columns = ["media_id", "due_at", "attempts", "queued_at"]
    await tx.execute(upsert(MediaJob).from_select(columns, waiting).on_conflict_do_nothing())


async def claim(tx: AsyncSession, *, limit: int, until: datetime, wall: datetime) -> list[Claimed]:
    """Claim jobs that are due, those that others are claiming left out; the media are `processing` from now on."""
    due = (
        select(Media, MediaJob)
        .join(MediaJob, MediaJob.media_id == Media.id)
        .where(MediaJob.due_at <= wall)
        .order_by(MediaJob.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    claimed = []
    for media, job in (await tx.execute(due)).all():
        job.claim, job.due_at, job.attempts = new_id(), until, job.attempts + 1
        if media.status == MediaStatus.UPLOADED:
            media.status = rules.next_status(MediaStatus.UPLOADED, Step.PROCESS)
        claimed.append(
            Claimed(reads.original(media), MediaKind(media.kind), media.content_type, job.claim, job.attempts)
        )
    await tx.flush()
    return claimed


async def renew(tx: AsyncSession, job: Claimed, *, until: datetime) -> bool:
    """Hold on to the job; False when it is not the caller's any more."""
    return await _change(tx, job, due_at=until)


async def put_off(tx: AsyncSession, job: Claimed, *, until: datetime) -> None:
    """Give the job back, to be claimed from `until` on: an outage, which is nobody's fault."""
    await _change(tx, job, claim=None, due_at=until, attempts=MediaJob.attempts - 1)


async def _change(tx: AsyncSession, job: Claimed, **values: object) -> bool:
    mine = update(MediaJob).where(MediaJob.media_id == job.name.media_id, MediaJob.claim == job.claim)
    done = await tx.execute(mine.values(**values).execution_options(synchronize_session=False))
    return cast("CursorResult[None]", done).rowcount > 0


async def finish(
    tx: AsyncSession,
    job: Claimed,
    made: Sequence[Made],
    reason: Failure | Shortfall | None,
    *,
    now: datetime,
) -> MediaStatus | None:
    """Keep the outcome and tell of it; the objects are there. None when the job is not the caller's any more.

    Media that were deleted meanwhile have no row: what was made of them is deleted too.
    """
    media = await tx.scalar(select(Media).where(Media.id == job.name.media_id).with_for_update())
    if media is None:
        if made:
            names = job.derived(made)
            await deletions.request(tx, job.name, names, reason=DeletionReason.LATE, actor=ACTOR, now=now)
        return None
    mine = delete(MediaJob).where(MediaJob.media_id == media.id, MediaJob.claim == job.claim)
    if (await tx.execute(mine.returning(MediaJob.media_id))).first() is None:
        return None
    failure = reason if isinstance(reason, Failure) else None
    media.status, media.failure = rules.processed(job.kind, failure)
    media.updated_at = now
    await _keep_derived(tx, media, made, now=now)
    await outbox.append(tx, _told(job, media, made, reason, now=now))
    return MediaStatus(media.status)


async def _keep_derived(tx: AsyncSession, media: Media, made: Sequence[Made], *, now: datetime) -> None:
    await tx.execute(delete(MediaDerived).where(MediaDerived.media_id == media.id))
    rows = [
        {
            "media_id": media.id,
            "kind": one.kind,
            "store_id": media.store_id,
            "content_type": one.content_type,
            "size_bytes": len(one.content),
            "created_at": now,
        }
        for one in made
    ]
    if rows:
        await tx.execute(insert(MediaDerived), rows)


def _told(
    job: Claimed, media: Media, made: Sequence[Made], reason: Failure | Shortfall | None, *, now: datetime
) -> MediaProcessed:
    return MediaProcessed(
        event_id=new_id(),
        occurred_at=now,
        actor=ACTOR,
        media_id=media.id,
        store_id=media.store_id,
        kind=media.kind,
        status=media.status,
        reason=reason,
        object_names=job.derived(made),
    )

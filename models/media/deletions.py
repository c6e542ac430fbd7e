"""The deletion of objects: asked for in the transaction in which their row goes, and its outcome kept.

The `media` agent carries it out; what it has not finished after a while, the collector does again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.database import new_id
from models.media.rules import DeletionReason, DeletionStatus, ObjectName, Removed
from models.media.tables import MediaDeletion
from schemas.records import MediaDeleted


async def request(
    tx: AsyncSession, name: ObjectName, names: Sequence[str], *, reason: DeletionReason, actor: str, now: datetime
) -> None:
    """Have the objects deleted once this commits. `name` is any of the media's names."""
    await note(tx, name, names, reason=reason, now=now)
    event = MediaDeleted(
        event_id=new_id(),
        occurred_at=now,
        actor=actor,
        media_id=name.media_id,
        store_id=name.store_id,
        object_names=list(names),
        reason=reason,
    )
    await outbox.append(tx, event)


async def note(
    tx: AsyncSession, name: ObjectName, names: Sequence[str], *, reason: DeletionReason, now: datetime
) -> None:
    """The row of a deletion that is under way (again), without the event."""
    row = {
        "store_id": name.store_id,
        "object_names": list(names),
        "reason": reason,
        "status": DeletionStatus.PENDING,
        "requested_at": now,
        "completed_at": None,
    }
    statement = insert(MediaDeletion).values(media_id=name.media_id, **row)
    await tx.execute(statement.on_conflict_do_update(index_elements=["media_id"], set_=row))


async def complete(tx: AsyncSession, media_id: UUID, removed: Removed, *, now: datetime) -> None:
    """Keep the outcome: all objects are gone."""
    await tx.execute(
        update(MediaDeletion)
        .where(MediaDeletion.media_id == media_id)
        .values(
            status=DeletionStatus.DONE,
            objects_deleted=MediaDeletion.objects_deleted + removed.deleted,
            objects_missing=removed.missing,
            attempts=MediaDeletion.attempts + 1,
            last_error=None,
            completed_at=now,
        )
    )


async def fail(tx: AsyncSession, media_id: UUID, error: str, *, now: datetime) -> None:
    """Keep why an attempt came to nothing; it is due again after a while."""
    await tx.execute(
        update(MediaDeletion)
        .where(MediaDeletion.media_id == media_id, MediaDeletion.status == DeletionStatus.PENDING)
        .values(
            attempts=MediaDeletion.attempts + 1,
            last_error=error,
            requested_at=func.greatest(MediaDeletion.requested_at, now),
        )
    )

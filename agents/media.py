"""The `media` agent: uploaded media are queued to be processed, the objects of deleted ones go.

Processing is done in rounds (media_work.py): it takes long, does not depend on partitions, and goes on after a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from agents.runtime.effects import Handler
from models.media import deletions, processing
from models.media.gateway import ObjectStore, remove_objects
from models.media.rules import ORIGINAL, ObjectName
from schemas.records import MediaDeleted, MediaUploaded

log = structlog.get_logger(__name__)


def handlers(store: ObjectStore, now: Callable[[], datetime]) -> Mapping[str, Handler]:
    """What the agent does, by event type."""
    return {"media_uploaded": queue, "media_deleted": partial(delete_objects, store=store, now=now)}


async def queue(tx: AsyncSession, event: MediaUploaded) -> None:
    """Have the media processed, unless they are gone or it was done before."""
    await processing.queue(tx, event.media_id, wall=datetime.now(UTC))


async def delete_objects(
    tx: AsyncSession, event: MediaDeleted, *, store: ObjectStore, now: Callable[[], datetime]
) -> None:
    """Delete the objects of media whose row and attachments are gone, and keep the outcome.

    An object that is not there is one that was deleted before: a repeat does no harm. Unavailable when the storage
    does not answer.
    """
    prefix = ObjectName(event.store_id, event.media_id, ORIGINAL).prefix
    removed = await remove_objects(store, event.object_names, prefix=prefix)
    await deletions.complete(tx, event.media_id, removed, now=now())
    log.info("media_objects_deleted", media_id=str(event.media_id), **removed._asdict())

"""Commands on media: announce, finalise, delete; attach and detach, for the areas that use media."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.database import new_id
from models.errors import AlreadyExists, FieldError, NotFound, ValidationFailed
from models.media import deletions, reads, rules
from models.media.reads import MediaView
from models.media.rules import (
    SLOTS,
    DeletionReason,
    EntityType,
    Failure,
    MediaKind,
    MediaStatus,
    ObjectFacts,
    ObjectName,
    Slot,
    Step,
)
from models.media.tables import Media, MediaAttachment, MediaDerived
from schemas.http.media import NewMedia
from schemas.records import MediaUploaded


class Finalised(StrEnum):
    """What an object's arrival came to."""

    UPLOADED = "uploaded"
    FAILED = "failed"
    KNOWN = "known"  #: it had been taken note of before
    DISCARDED = "discarded"  #: nobody waits for it: it is deleted


async def create(tx: AsyncSession, wanted: NewMedia, *, store_id: UUID, now: datetime) -> MediaView:
    """A row that waits for its object. ValidationFailed for a content type that the kind does not have."""
    kind = MediaKind(wanted.kind)
    rules.check_announced(kind, wanted.content_type)
    media = Media(
        id=new_id(),
        store_id=store_id,
        kind=kind,
        status=MediaStatus.PENDING,
        file_name=wanted.file_name,
        content_type=wanted.content_type,
        size_bytes=wanted.size_bytes,
        created_at=now,
        updated_at=now,
    )
    tx.add(media)
    await tx.flush()
    return (await reads.views(tx, [media]))[0]


async def finalise(
    tx: AsyncSession, name: ObjectName, facts: ObjectFacts, *, actor: str, now: datetime
) -> tuple[Finalised, Failure | None]:
    """Take note of an object that is there, however often and in whatever order the news of it come.

    An object whose row has gone is deleted: rows are there before anyone can upload, and never come back.
    """
    media = await tx.scalar(select(Media).where(Media.id == name.media_id).with_for_update())
    if media is None or media.store_id != name.store_id:
        await deletions.request(tx, name, [str(name)], reason=DeletionReason.LATE, actor=actor, now=now)
        return Finalised.DISCARDED, None
    if media.status != MediaStatus.PENDING or name.part != rules.ORIGINAL:
        return Finalised.KNOWN, None
    failure = rules.failure_of(facts, content_type=media.content_type, size_bytes=media.size_bytes)
    media.status = rules.next_status(MediaStatus.PENDING, Step.FAIL if failure else Step.ACCEPT)
    media.failure, media.generation, media.updated_at = failure, facts.generation, now
    if failure:
        return Finalised.FAILED, failure
    await outbox.append(tx, _uploaded(media, actor=actor, now=now))
    return Finalised.UPLOADED, None


def _uploaded(media: Media, *, actor: str, now: datetime) -> MediaUploaded:
    return MediaUploaded(
        event_id=new_id(),
        occurred_at=now,
        actor=actor,
        media_id=media.id,
        store_id=media.store_id,
        kind=media.kind,
        content_type=media.content_type,
        size_bytes=media.size_bytes,
        object_name=str(reads.original(media)),
    )


async def delete(tx: AsyncSession, media_id: UUID, *, store_id: UUID, actor: str, now: datetime) -> None:
    """Delete the store's media and take them away from what uses them; the objects go after the commit.

    Raises NotFound, and MediaProtected while something needs them.
    """
    media = await reads.media_of(tx, media_id, store_id=store_id, lock=True)
    attached = await reads.attached_to(tx, media_id)
    rules.check_deletable(MediaKind(media.kind), MediaStatus(media.status), attached)
    await _remove(tx, media, reason=DeletionReason.DELETED, actor=actor, now=now)


async def collect(
    tx: AsyncSession, media_id: UUID, *, status: MediaStatus, reason: DeletionReason, actor: str, now: datetime
) -> bool:
    """Delete media that are still of `status` and attached to nothing; whether they were."""
    query = select(Media).where(Media.id == media_id, Media.status == status)
    media = await tx.scalar(query.with_for_update(skip_locked=True))
    if media is None or await reads.attached_to(tx, media_id):
        return False
    await _remove(tx, media, reason=reason, actor=actor, now=now)
    return True


async def _remove(tx: AsyncSession, media: Media, *, reason: DeletionReason, actor: str, now: datetime) -> None:
    """First the attachments, then what was derived, then the row; and the event that names all objects."""
    names = await reads.object_names(tx, media)
    await tx.execute(delete_rows(MediaAttachment).where(MediaAttachment.media_id == media.id))
    await tx.execute(delete_rows(MediaDerived).where(MediaDerived.media_id == media.id))
    await tx.delete(media)
    await tx.flush()
    await deletions.request(tx, reads.original(media), names, reason=reason, actor=actor, now=now)


# -- attachments ------------------------------------------------------------------------------------------------------


async def attach(
    tx: AsyncSession,
    *,
    media_id: UUID,
    store_id: UUID,
    entity_type: EntityType,
    entity_id: UUID,
    slot: Slot,
    now: datetime,
    position: int = 0,
    field: str = "media_id",
) -> Media:
    """Let an entity use media of the store; doing it again changes nothing. `field` is what errors are about.

    Raises NotFound (another store's as well), ValidationFailed (a kind that the slot does not take), StateConflict
    (nothing uploaded yet, or it failed), AlreadyExists (other media are in that place). The media cannot be deleted
    by anybody else before this transaction ends.
    """
    rule = SLOTS[entity_type, slot]
    query = select(Media).where(Media.id == media_id, Media.store_id == store_id).with_for_update(read=True)
    media = await tx.scalar(query)
    if media is None:
        raise NotFound("there is no such media")
    rules.check_kind(rule, MediaKind(media.kind), field)
    rules.check_readable(MediaStatus(media.status), media.failure, "attach")
    place = {"entity_type": entity_type, "entity_id": entity_id, "slot": slot, "position": position}
    row = insert(MediaAttachment).values(media_id=media_id, store_id=store_id, created_at=now, **place)
    done = await tx.execute(row.on_conflict_do_nothing().returning(MediaAttachment.media_id))
    if done.first() is None and await tx.get(MediaAttachment, (media_id, entity_type, entity_id, slot)) is None:
        raise AlreadyExists("other media are in this place")
    return media


async def detach_entity(
    tx: AsyncSession, *, entity_type: EntityType, entity_id: UUID, slot: Slot | None = None
) -> list[UUID]:
    """Let go of the media that an entity uses (in one slot); the media stay. Returns their ids."""
    query = delete_rows(MediaAttachment).where(
        MediaAttachment.entity_type == entity_type, MediaAttachment.entity_id == entity_id
    )
    if slot is not None:
        query = query.where(MediaAttachment.slot == slot)
    return list(await tx.scalars(query.returning(MediaAttachment.media_id)))


async def replace(
    tx: AsyncSession,
    *,
    media_ids: Sequence[UUID],
    store_id: UUID,
    entity_type: EntityType,
    entity_id: UUID,
    slot: Slot,
    now: datetime,
    field: str = "media_id",
) -> list[Media]:
    """Let the slot hold exactly these media, in this order; errors as those of `attach`."""
    places = SLOTS[entity_type, slot].places
    if len(media_ids) > places or len(set(media_ids)) < len(media_ids):
        raise ValidationFailed(errors=[FieldError(field, "media_count", f"at most {places}, each once")])
    await detach_entity(tx, entity_type=entity_type, entity_id=entity_id, slot=slot)
    return [
        await attach(
            tx,
            media_id=media_id,
            store_id=store_id,
            entity_type=entity_type,
            entity_id=entity_id,
            slot=slot,
            now=now,
            position=position,
            field=field,
        )
        for position, media_id in enumerate(media_ids)
    ]


async def discard_unused(tx: AsyncSession, media_ids: Sequence[UUID], *, actor: str, now: datetime) -> list[UUID]:
    """Delete those of the media that nothing uses any more, as when what they were for is gone for good."""
    gone = []
    for media_id in sorted(media_ids):
        media = await tx.scalar(select(Media).where(Media.id == media_id).with_for_update())
        if media is not None and not await reads.attached_to(tx, media_id):
            await _remove(tx, media, reason=DeletionReason.DELETED, actor=actor, now=now)
            gone.append(media_id)
    return gone

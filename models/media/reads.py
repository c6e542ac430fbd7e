"""Queries on media, for the area's own commands and for areas that attach media."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from models.errors import NotFound
from models.media.rules import ORIGINAL, EntityType, MediaKind, MediaStatus, ObjectName, Slot, is_readable
from models.media.tables import Media, MediaAttachment, MediaDeletion, MediaDerived

K = TypeVar("K")


class UrlSigner(Protocol):
    """Makes read URLs of object names; gateway.ReadUrls is the one."""

    async def urls(self, names: Mapping[K, str]) -> dict[K, str]: ...


class Derived(NamedTuple):
    """Something made from the original."""

    kind: str
    content_type: str


@dataclass(frozen=True, slots=True)
class MediaView:
    """Media as their store sees them."""

    id: UUID
    store_id: UUID
    kind: MediaKind
    status: MediaStatus
    file_name: str
    content_type: str
    size_bytes: int
    failure: str | None
    created_at: datetime
    derived: list[Derived]

    @property
    def object_name(self) -> str:
        """Of the original."""
        return str(ObjectName(self.store_id, self.id, ORIGINAL))

    def derived_name(self, kind: str) -> str:
        """The name of something derived; NotFound for what was not."""
        if kind not in {made.kind for made in self.derived}:
            raise NotFound("nothing of this kind was derived")
        return str(ObjectName(self.store_id, self.id, kind))


def original(media: Media) -> ObjectName:
    """The name of the object that the client uploads."""
    return ObjectName(media.store_id, media.id, ORIGINAL)


async def media_of(tx: AsyncSession, media_id: UUID, *, store_id: UUID, lock: bool = False) -> Media:
    """The store's media, locked until the transaction ends if asked for; NotFound for anybody else's."""
    query = select(Media).where(Media.id == media_id, Media.store_id == store_id)
    media = await tx.scalar(query.with_for_update() if lock else query)
    if media is None:
        raise NotFound
    return media


async def view(tx: AsyncSession, media_id: UUID, *, store_id: UUID) -> MediaView:
    """The store's media; NotFound for anybody else's."""
    return (await views(tx, [await media_of(tx, media_id, store_id=store_id)]))[0]


async def views(tx: AsyncSession, media: Sequence[Media]) -> list[MediaView]:
    """Rows with what was derived from them."""
    derived = await derived_of(tx, [one.id for one in media if one.status == MediaStatus.READY])
    return [
        MediaView(
            id=one.id,
            store_id=one.store_id,
            kind=MediaKind(one.kind),
            status=MediaStatus(one.status),
            file_name=one.file_name,
            content_type=one.content_type,
            size_bytes=one.size_bytes,
            failure=one.failure,
            created_at=one.created_at,
            derived=[Derived(made.kind, made.content_type) for made in derived.get(one.id, ())],
        )
        for one in media
    ]


async def media_list(
    tx: AsyncSession,
    *,
    store_id: UUID,
    limit: int,
    after: tuple[datetime, UUID] | None = None,
    kind: MediaKind | None = None,
    status: MediaStatus | None = None,
) -> list[MediaView]:
    """The store's media, newest first, from behind `after` (created_at, id) on."""
    query = select(Media).where(Media.store_id == store_id)
    if kind is not None:
        query = query.where(Media.kind == kind)
    if status is not None:
        query = query.where(Media.status == status)
    if after is not None:
        query = query.where(tuple_(Media.created_at, Media.id) < after)
    rows = await tx.scalars(query.order_by(Media.created_at.desc(), Media.id.desc()).limit(limit))
    return await views(tx, rows.all())


async def derived_of(tx: AsyncSession, media_ids: Collection[UUID]) -> dict[UUID, list[MediaDerived]]:
    """What was made from each of the media; those without anything have an empty list."""
    found: dict[UUID, list[MediaDerived]] = defaultdict(list)
    if media_ids:
        query = select(MediaDerived).where(MediaDerived.media_id.in_(media_ids))
        for row in await tx.scalars(query.order_by(MediaDerived.media_id, MediaDerived.kind)):
            found[row.media_id].append(row)
    return found


async def object_names(tx: AsyncSession, media: Media) -> list[str]:
    """The names of all objects that the media have, or may have."""
    derived = (await derived_of(tx, [media.id]))[media.id]
    return [str(ObjectName(media.store_id, media.id, part)) for part in (ORIGINAL, *(row.kind for row in derived))]


async def attached_to(tx: AsyncSession, media_id: UUID) -> list[tuple[EntityType, Slot]]:
    """What the media are attached to."""
    query = select(MediaAttachment.entity_type, MediaAttachment.slot).where(MediaAttachment.media_id == media_id)
    return [(EntityType(row.entity_type), Slot(row.slot)) for row in await tx.execute(query)]


async def attachments(
    tx: AsyncSession, *, entity_type: EntityType, entity_ids: Collection[UUID], slot: Slot
) -> dict[UUID, list[Media]]:
    """The media in a slot of each of the entities, in their order; entities without any are left out."""
    found: dict[UUID, list[Media]] = defaultdict(list)
    if not entity_ids:
        return found
    query = (
        select(MediaAttachment.entity_id, Media)
        .join(Media, Media.id == MediaAttachment.media_id)
        .where(MediaAttachment.entity_type == entity_type, MediaAttachment.slot == slot)
        .where(MediaAttachment.entity_id.in_(entity_ids))
        .order_by(MediaAttachment.entity_id, MediaAttachment.position)
    )
    for entity_id, media in await tx.execute(query):
        found[entity_id].append(media)
    return found


async def urls(
    tx: AsyncSession, signer: UrlSigner, *, entity_type: EntityType, entity_ids: Collection[UUID], slot: Slot
) -> dict[UUID, str]:
    """A read URL of the (first) media in a slot of each of the entities; entities without any are left out."""
    found = await attachments(tx, entity_type=entity_type, entity_ids=entity_ids, slot=slot)
    firsts = {entity_id: media[0] for entity_id, media in found.items()}
    first = {key: media for key, media in firsts.items() if is_readable(media.status, media.failure)}
    return await signer.urls({key: str(original(media)) for key, media in first.items()})


# -- for the collector ------------------------------------------------------------------------------------------------


async def overdue(tx: AsyncSession, status: MediaStatus, *, before: datetime, limit: int) -> Sequence[Media]:
    """The oldest media of a status that were created before a time."""
    query = select(Media).where(Media.status == status, Media.created_at < before)
    return (await tx.scalars(query.order_by(Media.created_at).limit(limit))).all()


async def unfinished_deletions(tx: AsyncSession, *, before: datetime, limit: int) -> Sequence[MediaDeletion]:
    """The oldest deletions that were asked for before a time and are not done."""
    query = select(MediaDeletion).where(MediaDeletion.status == "pending", MediaDeletion.requested_at < before)
    return (await tx.scalars(query.order_by(MediaDeletion.requested_at).limit(limit))).all()


async def existing(tx: AsyncSession, media_ids: Collection[UUID]) -> set[UUID]:
    """Those of the media that have a row."""
    return set(await tx.scalars(select(Media.id).where(Media.id.in_(media_ids))))

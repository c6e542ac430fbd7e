"""Stores and users with the pictures that are attached to them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.media_services import MediaServices
from api.services import Services
from models.media import reads
from models.media.rules import EntityType, Slot
from schemas.http.identity import UserOut
from schemas.http.stores import StoreOut


async def with_pictures(tx: AsyncSession, services: Services, store: StoreOut) -> StoreOut:
    """The store with its logo and banner."""
    logos, banners = [
        await _urls(tx, services, EntityType.STORE, [store.id], slot) for slot in (Slot.LOGO, Slot.BANNER)
    ]
    return store.model_copy(update={"logo_url": logos.get(store.id), "banner_url": banners.get(store.id)})


async def with_avatars(tx: AsyncSession, services: Services, users: Sequence[UserOut]) -> list[UserOut]:
    """The users with their avatars."""
    avatars = await _urls(tx, services, EntityType.USER, [user.id for user in users], Slot.AVATAR)
    return [user.model_copy(update={"avatar_url": avatars.get(user.id)}) for user in users]


async def _urls(
    tx: AsyncSession, services: Services, entity_type: EntityType, entity_ids: Sequence[UUID], slot: Slot
) -> dict[UUID, str]:
    signer = services.get(MediaServices).read_urls
    return await reads.urls(tx, signer, entity_type=entity_type, entity_ids=entity_ids, slot=slot)

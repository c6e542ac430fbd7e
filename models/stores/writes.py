"""Commands on stores."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models import audit, outbox
from models.database import new_id
from models.media import writes as media
from models.media.rules import EntityType, Slot
from models.stores import reads
from models.stores.rules import KycStatus, StoreType
from models.stores.tables import Store
from schemas.records import StoreComplianceChanged, SubscriptionChanged

PICTURES: Final = {"logo_media_id": Slot.LOGO, "banner_media_id": Slot.BANNER}


def create(tx: AsyncSession, *, name: str, kind: StoreType, address: dict[str, Any], now: datetime) -> Store:
    """A new store, which may not sell yet."""
    store = Store(
        id=new_id(),
        name=name,
        type=kind,
        description=None,
        address=address,
        state=address["state"],
        kyc_status=KycStatus.PENDING,
        subscription_active=False,
        created_at=now,
        updated_at=now,
    )
    tx.add(store)
    return store


async def change(tx: AsyncSession, store_id: UUID, changes: dict[str, Any], *, now: datetime) -> Store:
    """Set name, description, address, logo and banner, as far as `changes` names them.

    Raises what attaching media does: NotFound, ValidationFailed, StateConflict.
    """
    store = await reads.store(tx, store_id, lock=True)
    for field, value in changes.items():
        if field in PICTURES:
            await _set_picture(tx, store_id, field, value, now=now)
        else:
            setattr(store, field, value)
    store.state = store.address["state"]
    store.updated_at = now
    return store


async def _set_picture(tx: AsyncSession, store_id: UUID, field: str, media_id: UUID | None, *, now: datetime) -> None:
    await media.replace(
        tx,
        media_ids=[] if media_id is None else [media_id],
        store_id=store_id,
        entity_type=EntityType.STORE,
        entity_id=store_id,
        slot=PICTURES[field],
        now=now,
        field=field,
    )


async def set_kyc(tx: AsyncSession, store_id: UUID, status: KycStatus, *, actor: str, now: datetime) -> Store:
    """Set the licence standing; audited, and published when it changes."""
    store = await reads.store(tx, store_id, lock=True)
    before = store.kyc_status
    if before == status:
        return store
    store.kyc_status, store.updated_at = status, now
    _audit(tx, store_id, "store.kyc_set", {"kyc_status": [before, status.value]}, actor, now)
    event = StoreComplianceChanged(
        event_id=new_id(), occurred_at=now, actor=actor, store_id=store_id, before=before, after=status.value
    )
    await outbox.append(tx, event)
    return store


async def set_subscription(tx: AsyncSession, store_id: UUID, active: bool, *, actor: str, now: datetime) -> Store:
    """Set whether the subscription is active; audited, and published when it changes."""
    store = await reads.store(tx, store_id, lock=True)
    if store.subscription_active == active:
        return store
    store.subscription_active, store.updated_at = active, now
    _audit(tx, store_id, "store.subscription_set", {"subscription_active": [not active, active]}, actor, now)
    event = SubscriptionChanged(event_id=new_id(), occurred_at=now, actor=actor, store_id=store_id, active=active)
    await outbox.append(tx, event)
    return store


def _audit(tx: AsyncSession, store_id: UUID, action: str, change: dict[str, Any], actor: str, now: datetime) -> None:
    audit.record(
        tx,
        actor=actor,
        action=action,
        object_type="store",
        object_id=store_id,
        store_id=store_id,
        now=now,
        change=change,
    )

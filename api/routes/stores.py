"""The caller's own store."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.dependencies import Manager, Now, StoreMember, Tx
from api.envelope import Envelope
from models.errors import NotFound
from models.stores import reads, writes
from schemas.http.stores import StoreChange, StoreOut

router = APIRouter(prefix="/api/v1/stores/me", tags=["stores"])


@router.get("")
async def my_store(member: StoreMember, tx: Tx) -> Envelope[StoreOut]:
    """The active store."""
    return Envelope(data=StoreOut.model_validate(await reads.store(tx, member.store_id)))


@router.patch("")
async def change_my_store(body: StoreChange, manager: Manager, tx: Tx, now: Now) -> Envelope[StoreOut]:
    """Change what the body names."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    for field in ("logo_media_id", "banner_media_id"):
        if changes.pop(field, None) is not None:
            raise NotFound("there is no such media")
    store = await writes.change(tx, manager.store_id, changes, now=now)
    return Envelope(data=StoreOut.model_validate(store))

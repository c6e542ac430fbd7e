"""The caller's own store."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.dependencies import Manager, Now, Process, StoreMember, Tx
from api.envelope import Envelope
from api.idempotency import IdempotentRoute
from api.pictures import with_pictures
from models.stores import reads, writes
from schemas.http.stores import StoreChange, StoreOut

router = APIRouter(prefix="/api/v1/stores/me", tags=["stores"], route_class=IdempotentRoute)


@router.get("")
async def my_store(member: StoreMember, tx: Tx, process: Process) -> Envelope[StoreOut]:
    """The active store."""
    store = StoreOut.model_validate(await reads.store(tx, member.store_id))
    return Envelope(data=await with_pictures(tx, process, store))


@router.patch("")
async def change_my_store(
    body: StoreChange, manager: Manager, tx: Tx, now: Now, process: Process
) -> Envelope[StoreOut]:
    """Change what the body names. A picture is media of the store that were uploaded before; null takes it away."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    store = StoreOut.model_validate(await writes.change(tx, manager.store_id, changes, now=now))
    return Envelope(data=await with_pictures(tx, process, store))

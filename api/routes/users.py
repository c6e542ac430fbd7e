"""The caller as a user."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.dependencies import Authenticated, Now, Process, Tx
from api.envelope import Envelope
from api.idempotency import IdempotentRoute
from api.pictures import with_avatars
from models.identity import reads, writes
from schemas.http.identity import UserChange, UserOut

router = APIRouter(prefix="/api/v1/users/me", tags=["users"], route_class=IdempotentRoute)


@router.get("")
async def myself(caller: Authenticated, tx: Tx, process: Process) -> Envelope[UserOut]:
    """Who the access token stands for."""
    user = UserOut.model_validate(await reads.user(tx, caller.user_id))
    return Envelope(data=(await with_avatars(tx, process, [user]))[0])


@router.patch("")
async def change_myself(
    body: UserChange, caller: Authenticated, tx: Tx, now: Now, process: Process
) -> Envelope[UserOut]:
    """Change what the body names. The avatar is media of the active store; null takes it away."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    if "avatar_media_id" in changes:
        media_id = changes.pop("avatar_media_id")
        await writes.set_avatar(tx, caller.user_id, media_id, store_id=caller.store_id, now=now)
    user = UserOut.model_validate(await writes.rename(tx, caller.user_id, changes))
    return Envelope(data=(await with_avatars(tx, process, [user]))[0])

"""The caller as a user."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from api.dependencies import Authenticated, Tx
from api.envelope import Envelope
from models.errors import NotFound
from models.identity import reads, writes
from schemas.http.identity import UserChange, UserOut

router = APIRouter(prefix="/api/v1/users/me", tags=["users"])


@router.get("")
async def myself(caller: Authenticated, tx: Tx) -> Envelope[UserOut]:
    """Who the access token stands for."""
    return Envelope(data=UserOut.model_validate(await reads.user(tx, caller.user_id)))


@router.patch("")
async def change_myself(body: UserChange, caller: Authenticated, tx: Tx) -> Envelope[UserOut]:
    """Change what the body names."""
    changes: dict[str, Any] = body.model_dump(exclude_unset=True)
    if changes.pop("avatar_media_id", None) is not None:
        raise NotFound("there is no such media")
    return Envelope(data=UserOut.model_validate(await writes.rename(tx, caller.user_id, changes)))

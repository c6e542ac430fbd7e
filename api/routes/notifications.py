"""What the caller's store hears of. What one of its people has read counts as read for the store."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter

from api.dependencies import Now, StoreMember, Tx
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Paged, by_time
from models.notifications import reads, writes
from schemas.http.notifications import AllRead, NotificationOut

LIST: Final = "notifications"

router = APIRouter(prefix="/api/v1/notifications", tags=["notifications"], route_class=IdempotentRoute)


@router.get("")
async def list_notifications(
    member: StoreMember, tx: Tx, page: Paged, unread: bool = False
) -> ListEnvelope[NotificationOut]:
    """The store's notifications, newest first; with `unread=true` only those that nobody has read."""
    name = f"{LIST}:{member.store_id}:{unread}"
    rows = await reads.notifications_of(
        tx, member.store_id, unread=unread, limit=page.limit + 1, after=page.after_time(name)
    )
    shown, cursor = page.cut(name, [NotificationOut.model_validate(row) for row in rows], by_time)
    return ListEnvelope.of(shown, cursor)


@router.post("/read-all")
async def read_all(member: StoreMember, tx: Tx, now: Now) -> Envelope[AllRead]:
    """Mark everything as read."""
    return Envelope(data=AllRead(read=await writes.read_all(tx, member.store_id, now=now)))


@router.post("/{notification_id}/read")
async def read(notification_id: UUID, member: StoreMember, tx: Tx, now: Now) -> Envelope[NotificationOut]:
    """Mark one as read; again: the same answer."""
    found = await writes.read(tx, notification_id, store_id=member.store_id, now=now)
    return Envelope(data=NotificationOut.model_validate(found))

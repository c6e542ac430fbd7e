"""Commands on notifications."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from models import outbox
from models.database import new_id
from models.notifications.rules import NotificationKind
from schemas.records import NotificationRequested


async def request(
    tx: AsyncSession,
    *,
    store_id: UUID,
    kind: NotificationKind,
    subject_id: UUID | None,
    values: Mapping[str, str],
    actor: str,
    now: datetime,
) -> None:
    """Let a store hear of something, once the caller's transaction has committed."""
    await outbox.append(
        tx,
        NotificationRequested(
            event_id=new_id(),
            occurred_at=now,
            actor=actor,
            store_id=store_id,
            kind=kind,
            subject_id=subject_id,
            values=dict(values),
        ),
    )

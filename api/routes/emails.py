"""E-mails as operators see them: what became of each, above all of those that nobody knows it of."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from fastapi import APIRouter

from api.dependencies import Admin, Tx
from api.envelope import ListEnvelope
from api.pagination import Key, Paged
from models.notifications import reads
from models.notifications.rules import DeliveryStatus
from schemas.http.notifications import EmailOut, EmailStatus

LIST: Final = "emails"

router = APIRouter(prefix="/api/admin/ops/emails", tags=["operations"])


@router.get("")
async def list_emails(admin: Admin, tx: Tx, page: Paged, status: EmailStatus | None = None) -> ListEnvelope[EmailOut]:
    """Newest first."""
    name = f"{LIST}:{status}"
    key = page.after(name)
    after = None if key is None else (datetime.fromisoformat(key[0]), UUID(key[1]))
    wanted = None if status is None else DeliveryStatus(status)
    rows = await reads.deliveries(tx, status=wanted, limit=page.limit + 1, after=after)
    shown, cursor = page.cut(name, [EmailOut.model_validate(row) for row in rows], _sort_key)
    return ListEnvelope.of(shown, cursor)


def _sort_key(email: EmailOut) -> Key:
    return email.created_at.isoformat(), str(email.id)

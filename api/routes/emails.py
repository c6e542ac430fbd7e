"""E-mails as operators see them: what became of each, above all of those that nobody knows it of."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from api.dependencies import Admin, Tx
from api.envelope import ListEnvelope
from api.pagination import Paged, by_time
from models.notifications import reads
from models.notifications.rules import DeliveryStatus
from schemas.http.notifications import EmailOut, EmailStatus

LIST: Final = "emails"

router = APIRouter(prefix="/api/admin/ops/emails", tags=["operations"])


@router.get("")
async def list_emails(admin: Admin, tx: Tx, page: Paged, status: EmailStatus | None = None) -> ListEnvelope[EmailOut]:
    """Newest first."""
    name = f"{LIST}:{status}"
    wanted = None if status is None else DeliveryStatus(status)
    rows = await reads.deliveries(tx, status=wanted, limit=page.limit + 1, after=page.after_time(name))
    shown, cursor = page.cut(name, [EmailOut.model_validate(row) for row in rows], by_time)
    return ListEnvelope.of(shown, cursor)

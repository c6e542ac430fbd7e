"""Shapes of notifications, of e-mails as operators see them, and of what SendGrid tells of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter

from schemas.http.common import Shape

EmailStatus = Literal["queued", "sending", "sent", "refused", "failed", "skipped", "unknown"]


class NotificationOut(Shape):
    """Something that the store hears of. `link` is a path in the app."""

    id: UUID
    kind: str
    title: str
    body: str
    link: str
    read_at: datetime | None
    created_at: datetime


class AllRead(Shape):
    """How many notifications were unread until now."""

    read: int


class EmailOut(Shape):
    """An e-mail and what became of it; its address is the user's. `unknown`: it may have been sent, or not."""

    id: UUID
    store_id: UUID
    user_id: UUID
    template: str
    notification_id: UUID | None
    status: EmailStatus
    attempts: int
    next_attempt_at: datetime | None
    provider_id: str | None
    detail: str | None
    bounced_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class SendGridEvent(BaseModel):
    """One of SendGrid's events, as far as we read it; `delivery_id` is the argument that we gave it with the mail."""

    event: str
    sg_event_id: str
    timestamp: Annotated[int, Field(ge=0, le=4_102_444_800)]
    delivery_id: str | None = None
    message_id: str | None = Field(None, alias="smtp-id")
    type: str | None = None
    status: str | None = None
    reason: str | None = None
    response: str | None = None


SendGridEvents = TypeAdapter(list[SendGridEvent])

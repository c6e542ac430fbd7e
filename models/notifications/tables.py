"""What stores are told, in the app and by e-mail."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class Notification(Base):
    """Something that a store hears of; what one of its people has read, the store has read."""

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("event_id"),
        Index(None, "store_id", "created_at", "id"),
        Index("ix_notifications_unread", "store_id", "created_at", "id", postgresql_where=text("read_at IS NULL")),
        Index(None, "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[UUID] = mapped_column(comment="the request's")
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    kind: Mapped[str] = mapped_column(Text)
    subject_id: Mapped[UUID | None]
    title: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    link: Mapped[str] = mapped_column(Text)
    read_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class EmailDelivery(Base):
    """One e-mail to one person, and what became of it. The address is looked up when it is sent; it is not here."""

    __tablename__ = "email_deliveries"
    __table_args__ = (
        CheckConstraint(
            "status IN ('queued', 'sending', 'sent', 'refused', 'failed', 'skipped', 'unknown')", name="status"
        ),
        CheckConstraint("(status = 'queued') = (next_attempt_at IS NOT NULL)", name="queued"),
        CheckConstraint("status <> 'sending' OR (claim IS NOT NULL AND claimed_until IS NOT NULL)", name="claimed"),
        UniqueConstraint("notification_id", "user_id"),
        Index("ix_email_deliveries_queued", "next_attempt_at", postgresql_where=text("status = 'queued'")),
        Index("ix_email_deliveries_sending", "claimed_until", postgresql_where=text("status = 'sending'")),
        Index("ix_email_deliveries_bounced", "user_id", postgresql_where=text("bounced_at IS NOT NULL")),
        Index(None, "status", "created_at", "id"),
        Index(None, "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, comment="the request's event id; the Message-ID is made of it")
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    template: Mapped[str] = mapped_column(Text)
    notification_id: Mapped[UUID | None]
    values: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(SmallInteger)
    next_attempt_at: Mapped[datetime | None] = mapped_column(comment="wall time; of queued ones")
    claim: Mapped[UUID | None] = mapped_column(comment="of the attempt that sends it, or sent it last")
    claimed_until: Mapped[datetime | None] = mapped_column(comment="wall time; after it nobody knows what became of it")
    provider_id: Mapped[str | None] = mapped_column(Text, comment="what the provider calls it")
    detail: Mapped[str | None] = mapped_column(Text, comment="the last answer or error, without addresses")
    bounced_at: Mapped[datetime | None] = mapped_column(comment="when the provider told of its return")
    created_at: Mapped[datetime] = mapped_column(comment="wall time")
    finished_at: Mapped[datetime | None] = mapped_column(comment="wall time")


class EmailOptOut(Base):
    """Someone who wants no e-mail about a store but what is essential."""

    __tablename__ = "email_opt_outs"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"), primary_key=True)
    created_at: Mapped[datetime]

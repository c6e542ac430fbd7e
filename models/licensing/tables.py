"""Licences. Their documents are attached media (models/media)."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class License(Base):
    __tablename__ = "licenses"
    __table_args__ = (
        CheckConstraint("type IN ('producer', 'grower', 'dispensary', 'merchant')", name="type"),
        CheckConstraint("status IN ('pending', 'verified', 'rejected', 'expired')", name="status"),
        CheckConstraint("expires_on >= issued_on", name="period"),
        CheckConstraint("status <> 'rejected' OR decision_reason IS NOT NULL", name="rejected_why"),
        Index(None, "store_id", "created_at", "id"),
        Index(None, "status", "created_at", "id"),
        Index("ix_licenses_expires_on", "status", "expires_on"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    media_id: Mapped[UUID] = mapped_column(comment="the document, attached in media_attachments")
    type: Mapped[str] = mapped_column(Text)
    number: Mapped[str] = mapped_column(Text)
    issuing_state: Mapped[str] = mapped_column(Text)
    issued_on: Mapped[date]
    expires_on: Mapped[date]
    status: Mapped[str] = mapped_column(Text)
    decision_reason: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None]
    warned_at: Mapped[datetime | None] = mapped_column(comment="when its expiry was announced, once")
    expired_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

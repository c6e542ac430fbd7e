"""Drafts of products."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class ProductDraft(Base):
    """What a certificate of analysis says of a product, and the product that was made of it."""

    __tablename__ = "product_drafts"
    __table_args__ = (
        CheckConstraint("status IN ('processing', 'ready', 'failed', 'published')", name="status"),
        CheckConstraint("(status = 'published') = (product_id IS NOT NULL)", name="published"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name="failed"),
        Index(None, "store_id", "created_at", "id"),
        Index(None, "coa_media_id"),
        Index("ix_product_drafts_due", "due_at", postgresql_where=text("status = 'processing'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    coa_media_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("media.id", ondelete="SET NULL"), comment="null: the media were deleted"
    )
    status: Mapped[str] = mapped_column(Text)
    failure: Mapped[str | None] = mapped_column(
        Text, comment="media_deleted, unreadable, nothing_found, refused, gave_up"
    )
    fields: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="what the certificate says")
    confidence: Mapped[dict[str, Any]] = mapped_column(JSONB, comment="0 to 1, by the names of fields")
    product_id: Mapped[UUID | None] = mapped_column(ForeignKey("products.id"))
    claim: Mapped[UUID | None] = mapped_column(comment="of the worker that reads it until due_at")
    due_at: Mapped[datetime] = mapped_column(comment="while processing, by the wall clock: from here on to be claimed")
    attempts: Mapped[int] = mapped_column(comment="to read it, that began")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

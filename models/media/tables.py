"""Media, what was derived from them, what they are attached to, and what became of deleted ones."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class Media(Base):
    __tablename__ = "media"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('license', 'product', 'coa', 'store_logo', 'store_banner', 'avatar', 'ad_creative')", name="kind"
        ),
        CheckConstraint("status IN ('pending', 'uploaded', 'processing', 'ready', 'failed')", name="status"),
        CheckConstraint("size_bytes BETWEEN 1 AND 20971520", name="size"),
        Index(None, "store_id", "created_at", "id"),
        Index("ix_media_unfinished", "status", "created_at", postgresql_where=text("status IN ('pending', 'failed')")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    kind: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    file_name: Mapped[str] = mapped_column(Text, comment="the client's name for it; no object is called so")
    content_type: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int]
    failure: Mapped[str | None] = mapped_column(Text, comment="why it failed: size_mismatch, content_mismatch …")
    generation: Mapped[int | None] = mapped_column(comment="of the object that was checked")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class MediaDerived(Base):
    """An object made from the original; its name is the media's prefix and the kind."""

    __tablename__ = "media_derived"

    media_id: Mapped[UUID] = mapped_column(ForeignKey("media.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(Text, primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    content_type: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int]
    created_at: Mapped[datetime]


class MediaJob(Base):
    """Media that wait to be processed, or are: the row goes when that is done, or with the media."""

    __tablename__ = "media_jobs"
    __table_args__ = (Index(None, "due_at"),)

    media_id: Mapped[UUID] = mapped_column(ForeignKey("media.id", ondelete="CASCADE"), primary_key=True)
    claim: Mapped[UUID | None] = mapped_column(comment="of the worker that has it until due_at")
    due_at: Mapped[datetime] = mapped_column(comment="by the wall clock; from here on anybody may claim it")
    attempts: Mapped[int] = mapped_column(comment="that began; one that an outage ended does not count")
    queued_at: Mapped[datetime]


class MediaAttachment(Base):
    """What uses the media. Deleted by the entity that lets go of it, or with media that nothing protects."""

    __tablename__ = "media_attachments"
    __table_args__ = (
        UniqueConstraint("entity_type", "entity_id", "slot", "position"),
        CheckConstraint("position >= 0", name="position"),
    )

    media_id: Mapped[UUID] = mapped_column(ForeignKey("media.id"), primary_key=True)
    entity_type: Mapped[str] = mapped_column(Text, primary_key=True)
    entity_id: Mapped[UUID] = mapped_column(primary_key=True)
    slot: Mapped[str] = mapped_column(Text, primary_key=True)
    position: Mapped[int] = mapped_column(SmallInteger, comment="order within the slot, from 0")
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"), comment="the media's")
    created_at: Mapped[datetime]


class MediaDeletion(Base):
    """The objects of media that are gone, and what became of them. Pending again when an upload came late."""

    __tablename__ = "media_deletions"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'done')", name="status"),
        Index("ix_media_deletions_pending", "requested_at", postgresql_where=text("status = 'pending'")),
    )

    media_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    object_names: Mapped[list[str]] = mapped_column(ARRAY(Text))
    reason: Mapped[str] = mapped_column(Text, comment="deleted, stale, failed, late_upload, orphan")
    status: Mapped[str] = mapped_column(Text)
    objects_deleted: Mapped[int] = mapped_column(server_default=text("0"), comment="all in all")
    objects_missing: Mapped[int] = mapped_column(server_default=text("0"), comment="at the last attempt")
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str | None] = mapped_column(Text)
    requested_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]

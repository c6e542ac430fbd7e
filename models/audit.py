"""Who did what to which object: one row for every act that someone may ask about later."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, Text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base, new_id


class AuditEntry(Base):
    __tablename__ = "audit_log"
    __table_args__ = (Index(None, "object_type", "object_id", "created_at"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    actor: Mapped[str] = mapped_column(Text, comment="user:<id>, command:<os user> or a process's name")
    action: Mapped[str] = mapped_column(Text)
    object_type: Mapped[str] = mapped_column(Text)
    object_id: Mapped[str] = mapped_column(Text)
    store_id: Mapped[UUID | None]
    change: Mapped[dict[str, Any]] = mapped_column(comment="what changed: {field: [before, after]}")
    created_at: Mapped[datetime]


def record(
    tx: AsyncSession,
    *,
    actor: str,
    action: str,
    object_type: str,
    object_id: object,
    now: datetime,
    store_id: UUID | None = None,
    change: dict[str, Any] | None = None,
) -> None:
    """Add an entry to the caller's transaction."""
    tx.add(
        AuditEntry(
            id=new_id(),
            actor=actor,
            action=action,
            object_type=object_type,
            object_id=str(object_id),
            store_id=store_id,
            change=change or {},
            created_at=now,
        )
    )

"""Stores."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class Store(Base):
    __tablename__ = "stores"
    __table_args__ = (
        CheckConstraint("type IN ('buyer', 'vendor')", name="type"),
        CheckConstraint("kyc_status IN ('pending', 'verified', 'rejected', 'expired')", name="kyc_status"),
        Index(None, "state", "type"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    address: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(Text, comment="two letters; a copy of address.state, for the serve path")
    kyc_status: Mapped[str] = mapped_column(Text, default="pending")
    subscription_active: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

"""Usage charges."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class UsageCharge(Base):
    """What a store owes for one day of one kind of use."""

    __tablename__ = "usage_charges"
    __table_args__ = (
        UniqueConstraint("store_id", "type", "for_date"),
        CheckConstraint("type = 'ad_spend'", name="type"),
        CheckConstraint("status IN ('recorded', 'cleared', 'billed')", name="status"),
        CheckConstraint("spend_micros > 0 AND amount_cents >= 0", name="amount"),
        Index(None, "for_date"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    type: Mapped[str] = mapped_column(Text)
    for_date: Mapped[date]
    spend_micros: Mapped[int]
    amount_cents: Mapped[int]
    currency: Mapped[str] = mapped_column(Text, default="USD")
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None]

"""Which agent has, or had, which order."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class DeliveryAssignment(Base):
    """An order in an agent's hands. An order has one at most that is not canceled; canceled ones are its history."""

    __tablename__ = "delivery_assignments"
    __table_args__ = (
        CheckConstraint("status IN ('assigned', 'picked_up', 'delivered', 'canceled')", name="status"),
        CheckConstraint("(status = 'canceled') = (canceled_at IS NOT NULL)", name="canceled"),
        Index(
            "uq_delivery_assignments_order_id",
            "order_id",
            unique=True,
            postgresql_where=text("status <> 'canceled'"),
        ),
        Index(None, "agent_id", "assigned_at", "id"),
        Index(
            "ix_delivery_assignments_carried",
            "agent_id",
            postgresql_where=text("status IN ('assigned', 'picked_up')"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    agent_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    buyer_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    vendor_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    status: Mapped[str] = mapped_column(Text)
    automatic: Mapped[bool] = mapped_column(comment="false: the agent took it from the queue")
    assigned_at: Mapped[datetime]
    picked_up_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    canceled_at: Mapped[datetime | None]

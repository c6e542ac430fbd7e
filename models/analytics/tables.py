"""How far facts have come on their way from Kafka to the warehouse, and the streams that they travel in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base


class WarehousePosition(Base):
    """A partition of a topic. Its owner has the epoch: whoever takes the partition over makes it a new one."""

    __tablename__ = "warehouse_positions"
    __table_args__ = (CheckConstraint("pending_until > next_offset", name="pending"),)

    topic: Mapped[str] = mapped_column(Text, primary_key=True)
    partition: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    epoch: Mapped[int]
    next_offset: Mapped[int] = mapped_column(comment="of the first record whose rows are not known to be written")
    pending_until: Mapped[int | None] = mapped_column(
        comment="rows of records from next_offset on, this one not included, may be written"
    )
    updated_at: Mapped[datetime] = mapped_column(comment="wall time")


class WarehouseStream(Base):
    """The committed stream by which a partition's rows reach a table."""

    __tablename__ = "warehouse_streams"
    __table_args__ = (
        ForeignKeyConstraint(
            ["topic", "partition"], ["warehouse_positions.topic", "warehouse_positions.partition"], ondelete="CASCADE"
        ),
        CheckConstraint("row_offset >= 0", name="row_offset"),
    )

    topic: Mapped[str] = mapped_column(Text, primary_key=True)
    partition: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    table_name: Mapped[str] = mapped_column(Text, primary_key=True)
    stream: Mapped[str] = mapped_column(Text)
    row_offset: Mapped[int] = mapped_column(comment="of the next row in the stream")


class WarehouseBackfilled(Base):
    """A row that a backfill has written, or is about to: its event, should it come, may find it there."""

    __tablename__ = "warehouse_backfilled"

    row_id: Mapped[str] = mapped_column(Text, primary_key=True)


class WarehouseBackfill(Base):
    """How far a backfill has come that is under way or was interrupted."""

    __tablename__ = "warehouse_backfills"

    section: Mapped[str] = mapped_column(Text, primary_key=True)
    cursor: Mapped[str] = mapped_column(Text, comment="of the last order or day that is done")
    updated_at: Mapped[datetime] = mapped_column(comment="wall time")

"""The ledger: events, their postings, the seals of days. Rows are only ever added, and Postgres sees to that."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.database import Base


class LedgerEvent(Base):
    """Money that moved for an order. Each binds the order's event before it by that one's hash."""

    __tablename__ = "ledger_events"
    __table_args__ = (
        UniqueConstraint("order_id", "sequence"),
        UniqueConstraint("order_id", "type"),
        CheckConstraint("type IN ('cash_collected', 'ach_settled', 'vendor_payout')", name="type"),
        CheckConstraint("amount_cents >= 0", name="amount"),
        CheckConstraint("sequence >= 1", name="sequence"),
        CheckConstraint("day >= (occurred_at AT TIME ZONE 'UTC')::date", name="day"),
        CheckConstraint("octet_length(prev_hash) = 32 AND octet_length(hash) = 32", name="hashes"),
        Index(None, "day", "order_id", "sequence"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    sequence: Mapped[int] = mapped_column(comment="within the order, from 1, without a gap")
    type: Mapped[str] = mapped_column(Text)
    amount_cents: Mapped[int] = mapped_column(comment="what moved: the sum of the debits")
    currency: Mapped[str] = mapped_column(Text)
    buyer_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    vendor_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    occurred_at: Mapped[datetime]
    day: Mapped[date] = mapped_column(comment="on which it is booked: its UTC day, unless that was sealed")
    actor: Mapped[str] = mapped_column(Text)
    prev_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of the order's event before it; zeros for the first")
    hash: Mapped[bytes] = mapped_column(LargeBinary, comment="SHA-256 over all the rest and the postings")

    postings: Mapped[list[LedgerPosting]] = relationship(order_by="LedgerPosting.account", lazy="raise", viewonly=True)


class LedgerPosting(Base):
    """One side of an event. Those of an event sum to zero."""

    __tablename__ = "ledger_postings"
    __table_args__ = (
        CheckConstraint("account IN ('cash', 'bank', 'vendor_payable', 'platform_fees')", name="account"),
    )

    event_id: Mapped[UUID] = mapped_column(ForeignKey("ledger_events.id"), primary_key=True)
    account: Mapped[str] = mapped_column(Text, primary_key=True)
    amount_cents: Mapped[int] = mapped_column(comment="debit above zero, credit below")


class LedgerSeal(Base):
    """A day that is over: nothing can be booked on it, or before it, any more. Days follow each other without a gap."""

    __tablename__ = "ledger_seals"
    __table_args__ = (
        CheckConstraint("events >= 0", name="events"),
        CheckConstraint(
            "octet_length(events_hash) = 32 AND octet_length(prev_hash) = 32 AND octet_length(hash) = 32",
            name="hashes",
        ),
    )

    day: Mapped[date] = mapped_column(primary_key=True)
    events: Mapped[int]
    events_hash: Mapped[bytes] = mapped_column(
        LargeBinary, comment="SHA-256 over the hashes of the day's events, by order and sequence"
    )
    prev_hash: Mapped[bytes] = mapped_column(LargeBinary, comment="of the seal before it; zeros for the first")
    hash: Mapped[bytes] = mapped_column(LargeBinary, comment="SHA-256 over all the rest")
    sealed_at: Mapped[datetime] = mapped_column(comment="logical time")

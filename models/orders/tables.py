"""Orders: the order, its lines, its payment intent. All are snapshots: reading them asks nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Sequence, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.database import Base

STATUSES: Final = (
    "status IN ('pending', 'accepted', 'partially_accepted', 'rejected', 'canceled', 'expired', 'ready_for_dispatch',"
    " 'in_transit', 'delivered', 'closed')"
)
ORDER_NUMBERS: Final = Sequence("order_numbers", metadata=Base.metadata)


class Order(Base):
    """What a buyer store ordered of one vendor store in one checkout."""

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("number"),
        UniqueConstraint("checkout_group_id", "vendor_store_id"),
        CheckConstraint(STATUSES, name="status"),
        CheckConstraint("payment_method IN ('cash', 'ach')", name="payment_method"),
        CheckConstraint("discounts_cents BETWEEN 0 AND subtotal_cents AND shipping_cents >= 0", name="amounts"),
        CheckConstraint("total_cents = subtotal_cents - discounts_cents + shipping_cents", name="totals"),
        CheckConstraint("nudge_at <= expires_at", name="deadlines"),
        Index("uq_orders_retry_of", "retry_of", unique=True, postgresql_where=text("retry_of IS NOT NULL")),
        Index(None, "cart_id"),
        Index(None, "buyer_store_id", "created_at", "id"),
        Index(None, "vendor_store_id", "created_at", "id"),
        Index(None, "buyer_store_id", "status", "created_at", "id"),
        Index(None, "vendor_store_id", "status", "created_at", "id"),
        Index("ix_orders_deadline", "expires_at", "id", postgresql_where=text("status = 'pending'")),
        Index(
            "ix_orders_nudge",
            "nudge_at",
            "id",
            postgresql_where=text("status = 'pending' AND nudged_at IS NULL"),
        ),
        Index("ix_orders_ready", "ready_at", "id", postgresql_where=text("status = 'ready_for_dispatch'")),
        Index("ix_orders_delivered", "delivered_at", "id", postgresql_where=text("status = 'delivered'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(Text, comment="how people name it")
    checkout_group_id: Mapped[UUID]
    cart_id: Mapped[UUID] = mapped_column(ForeignKey("cart_records.id"))
    buyer_store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    vendor_store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    status: Mapped[str] = mapped_column(Text)
    currency: Mapped[str] = mapped_column(Text)
    subtotal_cents: Mapped[int] = mapped_column(comment="of the lines that are not rejected")
    discounts_cents: Mapped[int] = mapped_column(comment="volume and promo")
    shipping_cents: Mapped[int]
    total_cents: Mapped[int]
    payment_method: Mapped[str] = mapped_column(Text)
    shipping_address: Mapped[dict[str, Any]] = mapped_column(JSONB)
    shipping_line: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="{code, title, price_cents}"
    )
    promo: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="{id, code, type, value, discount_cents}, as the cart had it"
    )
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, comment="of the cart's group")
    attribution: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="the store ad that led here, as checkout chose it"
    )
    retry_of: Mapped[UUID | None] = mapped_column(ForeignKey("orders.id"), comment="the expired order it repeats")
    expires_at: Mapped[datetime] = mapped_column(comment="undecided from here on, it expires")
    nudge_at: Mapped[datetime] = mapped_column(comment="undecided from here on, the vendor is nudged")
    nudged_at: Mapped[datetime | None] = mapped_column(comment="last, by the clock or by the buyer")
    decided_at: Mapped[datetime | None] = mapped_column(comment="when its last line was")
    decision_reason: Mapped[str | None] = mapped_column(Text)
    canceled_at: Mapped[datetime | None]
    cancel_reason: Mapped[str | None] = mapped_column(Text)
    expired_at: Mapped[datetime | None]
    ready_at: Mapped[datetime | None]
    in_transit_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    vendor_confirmed_paid_at: Mapped[datetime | None] = mapped_column(comment="the vendor's word, which moves no money")
    closed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    line_items: Mapped[list[OrderLineItem]] = relationship(
        order_by="OrderLineItem.position", lazy="raise", viewonly=True
    )
    payment_intent: Mapped[PaymentIntent] = relationship(lazy="raise", viewonly=True)


class OrderLineItem(Base):
    """A line, as the cart had it; its stock is held from checkout to pickup unless it is rejected."""

    __tablename__ = "order_line_items"
    __table_args__ = (
        UniqueConstraint("order_id", "position"),
        UniqueConstraint("order_id", "product_id"),
        CheckConstraint("status IN ('pending', 'accepted', 'rejected')", name="status"),
        CheckConstraint("quantity > 0", name="quantity"),
        CheckConstraint("line_total_cents BETWEEN 0 AND line_subtotal_cents", name="totals"),
        CheckConstraint("rejection_reason IS NULL OR status = 'rejected'", name="reason"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    buyer_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    vendor_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    position: Mapped[int] = mapped_column(SmallInteger, comment="order as in the cart, from 0")
    cart_item_id: Mapped[UUID]
    product_id: Mapped[UUID] = mapped_column(comment="no foreign key: an order must not wait for its products")
    title: Mapped[str] = mapped_column(Text)
    category: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int]
    unit_price_cents: Mapped[int]
    applied_volume_discount: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="{min_qty, type, value, discount_cents}"
    )
    moq: Mapped[int]
    max_qty: Mapped[int | None]
    line_subtotal_cents: Mapped[int]
    line_total_cents: Mapped[int]
    status: Mapped[str] = mapped_column(Text)
    rejection_reason: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None]
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, comment="of the cart's line")
    attribution: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="the product ad that led here, as checkout chose it"
    )


class PaymentIntent(Base):
    """What is owed for an order: its total. The ledger says what was paid."""

    __tablename__ = "payment_intents"
    __table_args__ = (
        UniqueConstraint("order_id"),
        CheckConstraint("method IN ('cash', 'ach')", name="method"),
        CheckConstraint("status IN ('unpaid', 'settled', 'paid', 'canceled')", name="status"),
        CheckConstraint("amount_cents >= 0", name="amount"),
        CheckConstraint("status NOT IN ('settled', 'paid') OR settled_at IS NOT NULL", name="settled"),
        CheckConstraint("(status = 'paid') = (paid_at IS NOT NULL)", name="paid"),
        Index("ix_payment_intents_settled", "settled_at", "id", postgresql_where=text("status = 'settled'")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    buyer_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    vendor_store_id: Mapped[UUID] = mapped_column(comment="the order's")
    method: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    amount_cents: Mapped[int]
    cash_collected_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    paid_at: Mapped[datetime | None]
    canceled_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

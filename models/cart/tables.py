"""Carts: the record, its lines, and a group for each vendor. A converted cart is kept as it was sold."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from models.database import Base


class CartRecord(Base):
    """A store's cart. It keeps its id from quote to quote; a store has at most one that is active."""

    __tablename__ = "cart_records"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'converted')", name="status"),
        CheckConstraint("payment_method IN ('cash', 'ach')", name="payment_method"),
        CheckConstraint("discounts_cents >= 0 AND total_cents = subtotal_cents - discounts_cents", name="totals"),
        CheckConstraint("total_cents >= 0", name="total"),
        CheckConstraint(
            "(status = 'converted') = (checkout_group_id IS NOT NULL)"
            " AND (status = 'converted') = (converted_at IS NOT NULL)"
            " AND (status = 'converted') = (payment_method IS NOT NULL)"
            " AND (status = 'converted') = (shipping_address IS NOT NULL)",
            name="converted",
        ),
        Index("ix_cart_records_active", "buyer_store_id", unique=True, postgresql_where=text("status = 'active'")),
        Index(None, "buyer_store_id", "created_at", "id"),
        Index(None, "checkout_group_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    buyer_store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    status: Mapped[str] = mapped_column(Text)
    currency: Mapped[str] = mapped_column(Text)
    valid_until: Mapped[datetime] = mapped_column(comment="the quote is good before it")
    subtotal_cents: Mapped[int]
    discounts_cents: Mapped[int] = mapped_column(comment="volume and promos")
    total_cents: Mapped[int]
    ok_items: Mapped[int] = mapped_column(SmallInteger, comment="lines that can be ordered")
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    promos_asked: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, comment="[{vendor_store_id, code}]")
    attribution_tokens: Mapped[list[str]] = mapped_column(JSONB, comment="those kept")
    attribution_claims: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, comment="of those, verified at the quote")
    checkout_group_id: Mapped[UUID | None]
    payment_method: Mapped[str | None] = mapped_column(Text)
    shipping_address: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    shipping_line: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    rejected_vendors: Mapped[list[dict[str, Any]] | None] = mapped_column(
        JSONB(none_as_null=True), comment="by the checkout: [{vendor_store_id, reason}]"
    )
    converted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    items: Mapped[list[CartItem]] = relationship(order_by="CartItem.position", lazy="raise", viewonly=True)
    vendor_groups: Mapped[list[CartVendorGroup]] = relationship(
        order_by="CartVendorGroup.position", lazy="raise", viewonly=True
    )


class CartItem(Base):
    """A line of the quote; what the catalogue said of the product then is copied."""

    __tablename__ = "cart_items"
    __table_args__ = (
        UniqueConstraint("cart_id", "product_id"),
        UniqueConstraint("cart_id", "position"),
        CheckConstraint("status IN ('ok', 'not_available', 'invalid')", name="status"),
        CheckConstraint("requested_qty > 0 AND quantity > 0", name="quantity"),
        CheckConstraint("line_total_cents BETWEEN 0 AND line_subtotal_cents", name="totals"),
        CheckConstraint("status <> 'ok' OR vendor_store_id IS NOT NULL", name="vendor"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    cart_id: Mapped[UUID] = mapped_column(ForeignKey("cart_records.id", ondelete="CASCADE"))
    buyer_store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    position: Mapped[int] = mapped_column(SmallInteger, comment="order as asked, from 0")
    product_id: Mapped[UUID] = mapped_column(comment="as asked: it need not exist")
    vendor_store_id: Mapped[UUID | None] = mapped_column(comment="null: nobody knows the product")
    title: Mapped[str | None] = mapped_column(Text)
    category: Mapped[str | None] = mapped_column(Text)
    requested_qty: Mapped[int]
    quantity: Mapped[int]
    unit_price_cents: Mapped[int]
    moq: Mapped[int | None]
    max_qty: Mapped[int | None]
    applied_volume_discount: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="{min_qty, type, value, discount_cents}"
    )
    line_subtotal_cents: Mapped[int]
    line_total_cents: Mapped[int]
    status: Mapped[str] = mapped_column(Text)
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)


class CartVendorGroup(Base):
    """What the quote says of one vendor."""

    __tablename__ = "cart_vendor_groups"
    __table_args__ = (
        UniqueConstraint("cart_id", "position"),
        CheckConstraint("status IN ('ok', 'invalid')", name="status"),
        CheckConstraint("discounts_cents >= 0 AND total_cents = subtotal_cents - discounts_cents", name="totals"),
        CheckConstraint("total_cents >= 0", name="total"),
    )

    cart_id: Mapped[UUID] = mapped_column(ForeignKey("cart_records.id", ondelete="CASCADE"), primary_key=True)
    vendor_store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"), primary_key=True)
    buyer_store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    position: Mapped[int] = mapped_column(SmallInteger, comment="order of the vendors' first lines, from 0")
    status: Mapped[str] = mapped_column(Text)
    promo: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="{id, code, type, value, discount_cents}"
    )
    subtotal_cents: Mapped[int]
    discounts_cents: Mapped[int]
    total_cents: Mapped[int]
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)

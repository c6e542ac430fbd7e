"""Products, what is in stock of them, and vendors' promos."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Computed, ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from models.database import Base

LISTED = text("active AND deleted_at IS NULL")
THERE = text("deleted_at IS NULL")
CATEGORIES = (
    "category IN ('flower', 'preroll', 'edible', 'concentrate', 'vape', 'beverage', 'tincture', 'topical', 'seed',"
    " 'accessory')"
)
SEARCH = (
    "setweight(to_tsvector('english', title), 'A') || setweight(to_tsvector('english', coalesce(description, '')), 'B')"
)


class Product(Base):
    """A product. A deleted one keeps its row, which orders refer to, and gives its SKU away."""

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint(CATEGORIES, name="category"),
        CheckConstraint("unit IN ('unit', 'gram', 'ounce', 'pound', 'case')", name="unit"),
        CheckConstraint("price_cents > 0", name="price"),
        CheckConstraint("moq >= 1 AND max_qty >= moq", name="quantities"),
        Index("uq_products_store_id_sku", "store_id", "sku", unique=True, postgresql_where=THERE),
        Index("ix_products_of_store", "store_id", "created_at", "id", postgresql_where=THERE),
        Index("ix_products_newest", "created_at", "id", postgresql_where=LISTED),
        Index("ix_products_price", "price_cents", "id", postgresql_where=LISTED),
        Index("ix_products_store_price", "store_id", "price_cents", "id", postgresql_where=LISTED),
        Index("ix_products_category_newest", "category", "created_at", "id", postgresql_where=LISTED),
        Index("ix_products_category_price", "category", "price_cents", "id", postgresql_where=LISTED),
        Index("ix_products_search", "search", postgresql_using="gin", postgresql_where=LISTED),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    sku: Mapped[str] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    category: Mapped[str] = mapped_column(Text)
    unit: Mapped[str] = mapped_column(Text)
    price_cents: Mapped[int] = mapped_column(comment="the list price of one unit")
    moq: Mapped[int] = mapped_column(comment="smallest quantity of an order")
    max_qty: Mapped[int | None] = mapped_column(comment="largest quantity of an order")
    active: Mapped[bool]
    volume_discounts: Mapped[list[dict[str, Any]]] = mapped_column(
        JSONB, comment="[{min_qty, type, value}], by min_qty: percent in basis points, fixed_price in cents a unit"
    )
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    search: Mapped[str] = mapped_column(TSVECTOR, Computed(SEARCH, persisted=True), deferred=True)


class Inventory(Base):
    """The stock of one product: a row from the product's first moment on. Locked in the order of product_id."""

    __tablename__ = "inventory"
    __table_args__ = (
        CheckConstraint("0 <= reserved AND reserved <= on_hand", name="reserved"),
        Index(None, "store_id", "product_id"),
    )

    product_id: Mapped[UUID] = mapped_column(ForeignKey("products.id"), primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"), comment="the product's")
    on_hand: Mapped[int]
    reserved: Mapped[int] = mapped_column(comment="by orders that were not picked up yet")
    updated_at: Mapped[datetime] = mapped_column(comment="when its vendor last set it")


class Promo(Base):
    """A vendor's promo code. A deleted one gives its code away."""

    __tablename__ = "promos"
    __table_args__ = (
        CheckConstraint("type IN ('percent', 'amount')", name="type"),
        CheckConstraint("value > 0 AND (type <> 'percent' OR value <= 10000)", name="value"),
        CheckConstraint("ends_at > starts_at", name="window"),
        Index("uq_promos_store_id_code_folded", "store_id", "code_folded", unique=True, postgresql_where=THERE),
        Index("ix_promos_of_store", "store_id", "created_at", "id", postgresql_where=THERE),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID] = mapped_column(ForeignKey("stores.id"))
    code: Mapped[str] = mapped_column(Text, comment="as the vendor writes it")
    code_folded: Mapped[str] = mapped_column(Text, comment="codes ignore case")
    type: Mapped[str] = mapped_column(Text)
    value: Mapped[int] = mapped_column(comment="percent in basis points, amount in cents")
    starts_at: Mapped[datetime | None] = mapped_column(comment="included; null: always")
    ends_at: Mapped[datetime | None] = mapped_column(comment="not included; null: never")
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]

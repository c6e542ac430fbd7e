"""carts: records, lines, groups by vendor"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

STORE = "NULLIF(current_setting('packstream.store_id', true), '')::uuid"
# A quote replaces lines and groups; the record stays, and with it what was sold.
GRANTED = {
    "cart_records": "SELECT, INSERT, UPDATE",
    "cart_items": "SELECT, INSERT, DELETE",
    "cart_vendor_groups": "SELECT, INSERT, DELETE",
}


def when_there(role: str, statement: str) -> str:
    """The statement, where the role exists: roles belong to the server, not to the database."""
    quoted = statement.replace("'", "''")
    return (
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN EXECUTE '{quoted}'; END IF; END $$"
    )


def upgrade() -> None:
    _records()
    _items()
    _groups()
    for table, privileges in GRANTED.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        for role, policy, condition in (
            ("packstream_app", "tenant", f"buyer_store_id = {STORE}"),
            ("packstream_service", "service", "true"),
        ):
            op.execute(when_there(role, f"GRANT {privileges} ON {table} TO {role}"))
            rule = f"CREATE POLICY {policy} ON {table} TO {role} USING ({condition}) WITH CHECK ({condition})"
            op.execute(when_there(role, rule))


def _records() -> None:
    op.create_table(
        "cart_records",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("valid_until", sa.DateTime(timezone=True), nullable=False, comment="the quote is good before it"),
        sa.Column("subtotal_cents", sa.BigInteger(), nullable=False),
        sa.Column("discounts_cents", sa.BigInteger(), nullable=False, comment="volume and promos"),
        sa.Column("total_cents", sa.BigInteger(), nullable=False),
        sa.Column("ok_items", sa.SmallInteger(), nullable=False, comment="lines that can be ordered"),
        sa.Column("warnings", postgresql.JSONB(), nullable=False),
        sa.Column("promos_asked", postgresql.JSONB(), nullable=False, comment="[{vendor_store_id, code}]"),
        sa.Column("attribution_tokens", postgresql.JSONB(), nullable=False, comment="those kept"),
        sa.Column("attribution_claims", postgresql.JSONB(), nullable=False, comment="of those, verified at the quote"),
        sa.Column("checkout_group_id", sa.Uuid(), nullable=True),
        sa.Column("payment_method", sa.Text(), nullable=True),
        sa.Column("shipping_address", postgresql.JSONB(), nullable=True),
        sa.Column("shipping_line", postgresql.JSONB(), nullable=True),
        sa.Column("converted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('active', 'converted')", name=op.f("ck_cart_records_status")),
        sa.CheckConstraint("payment_method IN ('cash', 'ach')", name=op.f("ck_cart_records_payment_method")),
        sa.CheckConstraint(
            "discounts_cents >= 0 AND total_cents = subtotal_cents - discounts_cents",
            name=op.f("ck_cart_records_totals"),
        ),
        sa.CheckConstraint("total_cents >= 0", name=op.f("ck_cart_records_total")),
        sa.CheckConstraint(
            "(status = 'converted') = (checkout_group_id IS NOT NULL)"
            " AND (status = 'converted') = (converted_at IS NOT NULL)"
            " AND (status = 'converted') = (payment_method IS NOT NULL)"
            " AND (status = 'converted') = (shipping_address IS NOT NULL)",
            name=op.f("ck_cart_records_converted"),
        ),
        sa.ForeignKeyConstraint(["buyer_store_id"], ["stores.id"], name=op.f("fk_cart_records_buyer_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cart_records")),
    )
    op.create_index(
        "ix_cart_records_active",
        "cart_records",
        ["buyer_store_id"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        op.f("ix_cart_records_buyer_store_id_created_at_id"), "cart_records", ["buyer_store_id", "created_at", "id"]
    )
    op.create_index(op.f("ix_cart_records_checkout_group_id"), "cart_records", ["checkout_group_id"])


def _items() -> None:
    op.create_table(
        "cart_items",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("cart_id", sa.Uuid(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False, comment="order as asked, from 0"),
        sa.Column("product_id", sa.Uuid(), nullable=False, comment="as asked: it need not exist"),
        sa.Column("vendor_store_id", sa.Uuid(), nullable=True, comment="null: nobody knows the product"),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("category", sa.Text(), nullable=True),
        sa.Column("requested_qty", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit_price_cents", sa.BigInteger(), nullable=False),
        sa.Column("moq", sa.BigInteger(), nullable=True),
        sa.Column("max_qty", sa.BigInteger(), nullable=True),
        sa.Column(
            "applied_volume_discount",
            postgresql.JSONB(),
            nullable=True,
            comment="{min_qty, type, value, discount_cents}",
        ),
        sa.Column("line_subtotal_cents", sa.BigInteger(), nullable=False),
        sa.Column("line_total_cents", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("warnings", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("status IN ('ok', 'not_available', 'invalid')", name=op.f("ck_cart_items_status")),
        sa.CheckConstraint("requested_qty > 0 AND quantity > 0", name=op.f("ck_cart_items_quantity")),
        sa.CheckConstraint("line_total_cents BETWEEN 0 AND line_subtotal_cents", name=op.f("ck_cart_items_totals")),
        sa.CheckConstraint("status <> 'ok' OR vendor_store_id IS NOT NULL", name=op.f("ck_cart_items_vendor")),
        sa.ForeignKeyConstraint(
            ["cart_id"], ["cart_records.id"], name=op.f("fk_cart_items_cart_id_cart_records"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["buyer_store_id"], ["stores.id"], name=op.f("fk_cart_items_buyer_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cart_items")),
        sa.UniqueConstraint("cart_id", "position", name=op.f("uq_cart_items_cart_id_position")),
        sa.UniqueConstraint("cart_id", "product_id", name=op.f("uq_cart_items_cart_id_product_id")),
    )


def _groups() -> None:
    op.create_table(
        "cart_vendor_groups",
        sa.Column("cart_id", sa.Uuid(), nullable=False),
        sa.Column("vendor_store_id", sa.Uuid(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False, comment="order of the vendors' first lines, from 0"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("promo", postgresql.JSONB(), nullable=True, comment="{id, code, type, value, discount_cents}"),
        sa.Column("subtotal_cents", sa.BigInteger(), nullable=False),
        sa.Column("discounts_cents", sa.BigInteger(), nullable=False),
        sa.Column("total_cents", sa.BigInteger(), nullable=False),
        sa.Column("warnings", postgresql.JSONB(), nullable=False),
        sa.CheckConstraint("status IN ('ok', 'invalid')", name=op.f("ck_cart_vendor_groups_status")),
        sa.CheckConstraint(
            "discounts_cents >= 0 AND total_cents = subtotal_cents - discounts_cents",
            name=op.f("ck_cart_vendor_groups_totals"),
        ),
        sa.CheckConstraint("total_cents >= 0", name=op.f("ck_cart_vendor_groups_total")),
        sa.ForeignKeyConstraint(
            ["cart_id"],
            ["cart_records.id"],
            name=op.f("fk_cart_vendor_groups_cart_id_cart_records"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["vendor_store_id"], ["stores.id"], name=op.f("fk_cart_vendor_groups_vendor_store_id_stores")
        ),
        sa.ForeignKeyConstraint(
            ["buyer_store_id"], ["stores.id"], name=op.f("fk_cart_vendor_groups_buyer_store_id_stores")
        ),
        sa.PrimaryKeyConstraint("cart_id", "vendor_store_id", name=op.f("pk_cart_vendor_groups")),
        sa.UniqueConstraint("cart_id", "position", name=op.f("uq_cart_vendor_groups_cart_id_position")),
    )


def downgrade() -> None:
    op.drop_table("cart_vendor_groups")
    op.drop_table("cart_items")
    op.drop_table("cart_records")

"""orders: the order, its lines, its payment intent"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

STORE = "NULLIF(current_setting('packstream.store_id', true), '')::uuid"
TABLES = ("orders", "order_line_items", "payment_intents")
ROLES = ("packstream_app", "packstream_service")
BUYER = f"buyer_store_id = {STORE}"
EITHER = f"buyer_store_id = {STORE} OR vendor_store_id = {STORE}"
# Both stores see an order and move it on; only a buyer places one, and nobody deletes one.
TENANT_POLICIES = {
    "seen": f"FOR SELECT TO packstream_app USING ({EITHER})",
    "placed": f"FOR INSERT TO packstream_app WITH CHECK ({BUYER})",
    "moved": f"FOR UPDATE TO packstream_app USING ({EITHER}) WITH CHECK ({EITHER})",
}


def when_there(role: str, statement: str) -> str:
    """The statement, where the role exists: roles belong to the server, not to the database."""
    quoted = statement.replace("'", "''")
    return (
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN EXECUTE '{quoted}'; END IF; END $$"
    )


def upgrade() -> None:
    op.execute("CREATE SEQUENCE order_numbers")
    _orders()
    _order_line_items()
    _payment_intents()
    for role in ROLES:
        op.execute(when_there(role, f"GRANT USAGE ON SEQUENCE order_numbers TO {role}"))
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        for role in ROLES:
            op.execute(when_there(role, f"GRANT SELECT, INSERT, UPDATE ON {table} TO {role}"))
        for policy, rule in TENANT_POLICIES.items():
            op.execute(when_there("packstream_app", f"CREATE POLICY {policy} ON {table} {rule}"))
        service = f"CREATE POLICY service ON {table} TO packstream_service USING (true) WITH CHECK (true)"
        op.execute(when_there("packstream_service", service))


def _orders() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False, comment="how people name it"),
        sa.Column("checkout_group_id", sa.Uuid(), nullable=False),
        sa.Column("cart_id", sa.Uuid(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False),
        sa.Column("vendor_store_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("subtotal_cents", sa.BigInteger(), nullable=False, comment="of the lines that are not rejected"),
        sa.Column("discounts_cents", sa.BigInteger(), nullable=False, comment="volume and promo"),
        sa.Column("shipping_cents", sa.BigInteger(), nullable=False),
        sa.Column("total_cents", sa.BigInteger(), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("shipping_address", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "shipping_line",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="{code, title, price_cents}",
        ),
        sa.Column(
            "promo",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="{id, code, type, value, discount_cents}, as the cart had it",
        ),
        sa.Column("warnings", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="of the cart's group"),
        sa.Column(
            "attribution",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="the store ad that led here, as checkout chose it",
        ),
        sa.Column("retry_of", sa.Uuid(), nullable=True, comment="the expired order it repeats"),
        sa.Column(
            "expires_at", sa.DateTime(timezone=True), nullable=False, comment="undecided from here on, it expires"
        ),
        sa.Column(
            "nudge_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="undecided from here on, the vendor is nudged",
        ),
        sa.Column("nudged_at", sa.DateTime(timezone=True), nullable=True, comment="last, by the clock or by the buyer"),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True, comment="when its last line was"),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_reason", sa.Text(), nullable=True),
        sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("in_transit_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "vendor_confirmed_paid_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="the vendor's word, which moves no money",
        ),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("payment_method IN ('cash', 'ach')", name=op.f("ck_orders_payment_method")),
        sa.CheckConstraint(
            "status IN ('pending', 'accepted', 'partially_accepted', 'rejected', 'canceled', 'expired',"
            " 'ready_for_dispatch', 'in_transit', 'delivered', 'closed')",
            name=op.f("ck_orders_status"),
        ),
        sa.CheckConstraint(
            "discounts_cents BETWEEN 0 AND subtotal_cents AND shipping_cents >= 0", name=op.f("ck_orders_amounts")
        ),
        sa.CheckConstraint("nudge_at <= expires_at", name=op.f("ck_orders_deadlines")),
        sa.CheckConstraint(
            "total_cents = subtotal_cents - discounts_cents + shipping_cents", name=op.f("ck_orders_totals")
        ),
        sa.ForeignKeyConstraint(["buyer_store_id"], ["stores.id"], name=op.f("fk_orders_buyer_store_id_stores")),
        sa.ForeignKeyConstraint(["cart_id"], ["cart_records.id"], name=op.f("fk_orders_cart_id_cart_records")),
        sa.ForeignKeyConstraint(["retry_of"], ["orders.id"], name=op.f("fk_orders_retry_of_orders")),
        sa.ForeignKeyConstraint(["vendor_store_id"], ["stores.id"], name=op.f("fk_orders_vendor_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint(
            "checkout_group_id", "vendor_store_id", name=op.f("uq_orders_checkout_group_id_vendor_store_id")
        ),
        sa.UniqueConstraint("number", name=op.f("uq_orders_number")),
    )
    op.create_index(
        op.f("ix_orders_buyer_store_id_created_at_id"), "orders", ["buyer_store_id", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_orders_buyer_store_id_status_created_at_id"),
        "orders",
        ["buyer_store_id", "status", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_orders_cart_id"), "orders", ["cart_id"], unique=False)
    op.create_index(
        "ix_orders_deadline",
        "orders",
        ["expires_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_orders_delivered",
        "orders",
        ["delivered_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'delivered'"),
    )
    op.create_index(
        "ix_orders_nudge",
        "orders",
        ["nudge_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'pending' AND nudged_at IS NULL"),
    )
    op.create_index(
        "ix_orders_ready",
        "orders",
        ["ready_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'ready_for_dispatch'"),
    )
    op.create_index(
        op.f("ix_orders_vendor_store_id_created_at_id"), "orders", ["vendor_store_id", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_orders_vendor_store_id_status_created_at_id"),
        "orders",
        ["vendor_store_id", "status", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "uq_orders_retry_of", "orders", ["retry_of"], unique=True, postgresql_where=sa.text("retry_of IS NOT NULL")
    )


def _order_line_items() -> None:
    op.create_table(
        "order_line_items",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("vendor_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("position", sa.SmallInteger(), nullable=False, comment="order as in the cart, from 0"),
        sa.Column("cart_item_id", sa.Uuid(), nullable=False),
        sa.Column(
            "product_id", sa.Uuid(), nullable=False, comment="no foreign key: an order must not wait for its products"
        ),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit_price_cents", sa.BigInteger(), nullable=False),
        sa.Column(
            "applied_volume_discount",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="{min_qty, type, value, discount_cents}",
        ),
        sa.Column("moq", sa.BigInteger(), nullable=False),
        sa.Column("max_qty", sa.BigInteger(), nullable=True),
        sa.Column("line_subtotal_cents", sa.BigInteger(), nullable=False),
        sa.Column("line_total_cents", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("rejection_reason", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("warnings", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="of the cart's line"),
        sa.Column(
            "attribution",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="the product ad that led here, as checkout chose it",
        ),
        sa.CheckConstraint("rejection_reason IS NULL OR status = 'rejected'", name=op.f("ck_order_line_items_reason")),
        sa.CheckConstraint("status IN ('pending', 'accepted', 'rejected')", name=op.f("ck_order_line_items_status")),
        sa.CheckConstraint(
            "line_total_cents BETWEEN 0 AND line_subtotal_cents", name=op.f("ck_order_line_items_totals")
        ),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_order_line_items_quantity")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_line_items_order_id_orders")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_line_items")),
        sa.UniqueConstraint("order_id", "position", name=op.f("uq_order_line_items_order_id_position")),
        sa.UniqueConstraint("order_id", "product_id", name=op.f("uq_order_line_items_order_id_product_id")),
    )


def _payment_intents() -> None:
    op.create_table(
        "payment_intents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("vendor_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("cash_collected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(status = 'paid') = (paid_at IS NOT NULL)", name=op.f("ck_payment_intents_paid")),
        sa.CheckConstraint("method IN ('cash', 'ach')", name=op.f("ck_payment_intents_method")),
        sa.CheckConstraint(
            "status IN ('unpaid', 'settled', 'paid', 'canceled')", name=op.f("ck_payment_intents_status")
        ),
        sa.CheckConstraint(
            "status NOT IN ('settled', 'paid') OR settled_at IS NOT NULL", name=op.f("ck_payment_intents_settled")
        ),
        sa.CheckConstraint("amount_cents >= 0", name=op.f("ck_payment_intents_amount")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_payment_intents_order_id_orders")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_intents")),
        sa.UniqueConstraint("order_id", name=op.f("uq_payment_intents_order_id")),
    )
    op.create_index(
        "ix_payment_intents_settled",
        "payment_intents",
        ["settled_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'settled'"),
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("DROP SEQUENCE order_numbers")

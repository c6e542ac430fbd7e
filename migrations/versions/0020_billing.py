"""billing: customers, payment methods, subscriptions, invoices, Stripe's events; usage charges at Stripe"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.access import STORE, service_table, tenant_table

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

OWN = f"store_id = {STORE}"
LIVE = sa.text("status NOT IN ('canceled', 'incomplete_expired') AND replaced_at IS NULL")
ZERO = sa.text("0")
USAGE = ("stripe_id", "billed_at", "attempts", "first_attempt_at", "next_attempt_at", "last_error")


def upgrade() -> None:
    _customers()
    _subscriptions()
    _charges()
    _service_tables()
    _usage_charges()
    service_table("billing_customers", "SELECT, INSERT")
    tenant_table("payment_methods", OWN, "SELECT, INSERT")
    tenant_table("subscriptions", OWN, "SELECT, INSERT, UPDATE")
    tenant_table("charges", OWN, "SELECT", service_privileges="SELECT, INSERT, UPDATE")
    service_table("stripe_events", "SELECT, INSERT, UPDATE")
    service_table("billing_checks", "SELECT")


def _time(name: str, *, nullable: bool = False, comment: str | None = None) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, comment=comment)


def _text(name: str, *, nullable: bool = False, comment: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable, comment=comment)


def _store(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f(f"fk_{table}_store_id_stores"))


def _customers() -> None:
    op.create_table(
        "billing_customers",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        _text("stripe_customer_id"),
        _time("created_at"),
        _store("billing_customers"),
        sa.PrimaryKeyConstraint("store_id", name=op.f("pk_billing_customers")),
        sa.UniqueConstraint("stripe_customer_id", name=op.f("uq_billing_customers_stripe_customer_id")),
    )
    op.create_table(
        "payment_methods",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        _text("stripe_payment_method_id"),
        _text("kind"),
        _text("brand", nullable=True),
        _text("last4", nullable=True),
        sa.Column("exp_month", sa.SmallInteger(), nullable=True),
        sa.Column("exp_year", sa.SmallInteger(), nullable=True),
        _time("created_at"),
        _store("payment_methods"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_methods")),
        sa.UniqueConstraint("stripe_payment_method_id", name=op.f("uq_payment_methods_stripe_payment_method_id")),
    )
    op.create_index(op.f("ix_payment_methods_store_id_created_at"), "payment_methods", ["store_id", "created_at"])


def _subscriptions() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        _text("stripe_subscription_id"),
        _text("stripe_customer_id"),
        _text("status", comment="Stripe's"),
        _time("state_at", comment="as of when, by Stripe: older news changes nothing"),
        _text("request", nullable=True, comment="the request that made it, as Stripe's metadata has it"),
        _text("stripe_payment_method_id", nullable=True),
        _time("current_period_end", nullable=True),
        _time("canceled_at", nullable=True),
        _time("replaced_at", nullable=True, comment="the store has another one that counts"),
        _time("created_at"),
        _time("updated_at"),
        sa.CheckConstraint(
            "status IN ('incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'unpaid', 'paused',"
            " 'canceled')",
            name=op.f("ck_subscriptions_status"),
        ),
        _store("subscriptions"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
        sa.UniqueConstraint("stripe_subscription_id", name=op.f("uq_subscriptions_stripe_subscription_id")),
    )
    op.create_index("uq_subscriptions_live", "subscriptions", ["store_id"], unique=True, postgresql_where=LIVE)
    op.create_index(op.f("ix_subscriptions_store_id_created_at"), "subscriptions", ["store_id", "created_at"])
    op.create_index(op.f("ix_subscriptions_stripe_customer_id"), "subscriptions", ["stripe_customer_id"])


def _charges() -> None:
    op.create_table(
        "charges",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        _text("stripe_invoice_id"),
        _text("stripe_subscription_id", nullable=True),
        _text("number", nullable=True),
        _text("status", comment="Stripe's"),
        _time("state_at", comment="as of when, by Stripe: older news changes nothing"),
        sa.Column("amount_due_cents", sa.BigInteger(), nullable=False),
        sa.Column("amount_paid_cents", sa.BigInteger(), nullable=False),
        _text("currency"),
        _time("period_start", nullable=True),
        _time("period_end", nullable=True),
        _time("paid_at", nullable=True),
        _time("created_at"),
        sa.CheckConstraint(
            "status IN ('draft', 'open', 'paid', 'uncollectible', 'void')", name=op.f("ck_charges_status")
        ),
        _store("charges"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_charges")),
        sa.UniqueConstraint("stripe_invoice_id", name=op.f("uq_charges_stripe_invoice_id")),
    )
    op.create_index(op.f("ix_charges_store_id_created_at_id"), "charges", ["store_id", "created_at", "id"])


def _service_tables() -> None:
    op.create_table(
        "stripe_events",
        _text("id"),
        _text("type"),
        _time("created_at", comment="by Stripe"),
        _time("received_at"),
        sa.Column("store_id", sa.Uuid(), nullable=True),
        _text("outcome", comment="what followed from it"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stripe_events")),
    )
    op.create_index(op.f("ix_stripe_events_received_at"), "stripe_events", ["received_at"])
    op.create_table(
        "billing_checks",
        sa.Column("day", sa.Date(), nullable=False),
        _time("checked_at"),
        sa.Column("ok", sa.Boolean(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_billing_checks")),
    )


def _usage_charges() -> None:
    for column in (
        _text("stripe_id", nullable=True, comment="of the invoice item that it became"),
        _time("billed_at", nullable=True),
        sa.Column(
            "attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="to hand it to Stripe"
        ),
        _time("first_attempt_at", nullable=True, comment="wall time"),
        _time("next_attempt_at", nullable=True, comment="wall time: not before, a claim or a pause runs"),
        _text("last_error", nullable=True),
    ):
        op.add_column("usage_charges", column)
    billed = "(status = 'billed') = (stripe_id IS NOT NULL)"
    op.create_check_constraint(op.f("ck_usage_charges_billed"), "usage_charges", billed)
    own = ["store_id", "created_at", "id"]
    op.create_index(op.f("ix_usage_charges_store_id_created_at_id"), "usage_charges", own)
    cleared = sa.text("status = 'cleared'")
    op.create_index("ix_usage_charges_cleared", "usage_charges", ["for_date", "id"], postgresql_where=cleared)
    there = sa.text("stripe_id IS NOT NULL")
    op.create_index("uq_usage_charges_stripe_id", "usage_charges", ["stripe_id"], unique=True, postgresql_where=there)


def downgrade() -> None:
    for index in ("uq_usage_charges_stripe_id", "ix_usage_charges_cleared", "ix_usage_charges_store_id_created_at_id"):
        op.drop_index(index, table_name="usage_charges")
    op.drop_constraint("ck_usage_charges_billed", "usage_charges")
    for column in USAGE:
        op.drop_column("usage_charges", column)
    for table in (
        "billing_checks",
        "stripe_events",
        "charges",
        "subscriptions",
        "payment_methods",
        "billing_customers",
    ):
        op.drop_table(table)

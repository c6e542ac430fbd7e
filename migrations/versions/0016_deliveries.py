"""deliveries: which agent has which order"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.access import STORE, tenant_table

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "delivery_assignments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("vendor_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False, comment="false: the agent took it from the queue"),
        sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("picked_up_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("canceled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('assigned', 'picked_up', 'delivered', 'canceled')", name=op.f("ck_delivery_assignments_status")
        ),
        sa.CheckConstraint(
            "(status = 'canceled') = (canceled_at IS NOT NULL)", name=op.f("ck_delivery_assignments_canceled")
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_delivery_assignments_order_id_orders")),
        sa.ForeignKeyConstraint(["agent_id"], ["users.id"], name=op.f("fk_delivery_assignments_agent_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_assignments")),
    )
    op.create_index(
        "uq_delivery_assignments_order_id",
        "delivery_assignments",
        ["order_id"],
        unique=True,
        postgresql_where=sa.text("status <> 'canceled'"),
    )
    op.create_index(
        op.f("ix_delivery_assignments_agent_id_assigned_at_id"),
        "delivery_assignments",
        ["agent_id", "assigned_at", "id"],
    )
    op.create_index(
        "ix_delivery_assignments_carried",
        "delivery_assignments",
        ["agent_id"],
        postgresql_where=sa.text("status IN ('assigned', 'picked_up')"),
    )
    op.create_index("ix_users_agents", "users", ["id"], postgresql_where=sa.text("role = 'agent'"))
    _access()


def _access() -> None:
    """Both stores see who brings an order; all that theirs can do to it is to cancel it with the order."""
    tenant_table(
        "delivery_assignments",
        f"buyer_store_id = {STORE} OR vendor_store_id = {STORE}",
        "SELECT, UPDATE (status, canceled_at)",
        service_privileges="SELECT, INSERT, UPDATE",
    )


def downgrade() -> None:
    op.drop_table("delivery_assignments")
    op.drop_index("ix_users_agents", table_name="users")

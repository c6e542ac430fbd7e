"""warehouse_backfilled, warehouse_backfills: which rows a backfill wrote, and how far one has come"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.access import service_table

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "warehouse_backfilled",
        sa.Column("row_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("row_id", name=op.f("pk_warehouse_backfilled")),
    )
    op.create_table(
        "warehouse_backfills",
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=False, comment="of the last order or day that is done"),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, comment="wall time"),
        sa.PrimaryKeyConstraint("section", name=op.f("pk_warehouse_backfills")),
    )
    service_table("warehouse_backfilled", "SELECT")
    service_table("warehouse_backfills", "SELECT")


def downgrade() -> None:
    op.drop_table("warehouse_backfills")
    op.drop_table("warehouse_backfilled")

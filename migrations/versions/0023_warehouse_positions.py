"""warehouse_positions, warehouse_streams: how far facts have come on their way to the warehouse"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.access import service_table

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "warehouse_positions",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column(
            "next_offset",
            sa.BigInteger(),
            nullable=False,
            comment="of the first record whose rows are not known to be written",
        ),
        sa.Column(
            "pending_until",
            sa.BigInteger(),
            nullable=True,
            comment="rows of records from next_offset on, this one not included, may be written",
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, comment="wall time"),
        sa.CheckConstraint("pending_until > next_offset", name=op.f("ck_warehouse_positions_pending")),
        sa.PrimaryKeyConstraint("topic", "partition", name=op.f("pk_warehouse_positions")),
    )
    op.create_table(
        "warehouse_streams",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("row_offset", sa.BigInteger(), nullable=False, comment="of the next row in the stream"),
        sa.CheckConstraint("row_offset >= 0", name=op.f("ck_warehouse_streams_row_offset")),
        sa.ForeignKeyConstraint(
            ["topic", "partition"],
            ["warehouse_positions.topic", "warehouse_positions.partition"],
            name=op.f("fk_warehouse_streams_topic_partition_warehouse_positions"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("topic", "partition", "table_name", name=op.f("pk_warehouse_streams")),
    )
    service_table("warehouse_positions", "SELECT")
    service_table("warehouse_streams", "SELECT")


def downgrade() -> None:
    op.drop_table("warehouse_streams")
    op.drop_table("warehouse_positions")

"""waiting lane of the outbox"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'packstream_app') THEN
    GRANT INSERT, UPDATE ON outbox_failures TO packstream_app;
    GRANT INSERT ON ad_shards TO packstream_app;
  END IF;
END $$
"""

# A queue: its dead rows are as many as its rows ever were, so it is vacuumed by their number, not by a share.
VACUUM = """
ALTER TABLE outbox_events SET (
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_scale_factor = 0,
  autovacuum_vacuum_insert_threshold = 100000, autovacuum_vacuum_cost_delay = 0
)
"""


def upgrade() -> None:
    op.drop_index(op.f("ix_outbox_events_aggregatetype_aggregateid_seq"), table_name="outbox_events")
    op.create_index(
        "ix_outbox_events_waiting",
        "outbox_events",
        ["aggregatetype", "aggregateid", "seq"],
        unique=False,
        postgresql_where=sa.text("lane = -1"),
    )
    op.create_check_constraint(op.f("ck_outbox_events_lane"), "outbox_events", "lane BETWEEN -1 AND 31")
    op.add_column(
        "outbox_failures",
        sa.Column(
            "lane",
            sa.SmallInteger(),
            nullable=False,
            server_default="0",
            comment="the aggregate's, where its rows return to",
        ),
    )
    op.alter_column("outbox_failures", "lane", server_default=None)
    op.alter_column("outbox_failures", "next_attempt_at", nullable=True, comment="wall time; null: a dead letter")
    op.create_unique_constraint(
        op.f("uq_outbox_failures_aggregatetype_aggregateid"), "outbox_failures", ["aggregatetype", "aggregateid"]
    )
    op.create_index(
        op.f("ix_outbox_failures_lane_next_attempt_at"), "outbox_failures", ["lane", "next_attempt_at"], unique=False
    )
    op.execute(VACUUM)
    op.execute(GRANTS)


def downgrade() -> None:
    op.drop_index(op.f("ix_outbox_failures_lane_next_attempt_at"), table_name="outbox_failures")
    op.drop_constraint(op.f("uq_outbox_failures_aggregatetype_aggregateid"), "outbox_failures")
    op.execute("DELETE FROM outbox_failures WHERE next_attempt_at IS NULL")
    op.alter_column("outbox_failures", "next_attempt_at", nullable=False, comment=None)
    op.drop_column("outbox_failures", "lane")
    op.drop_constraint(op.f("ck_outbox_events_lane"), "outbox_events")
    op.drop_index("ix_outbox_events_waiting", table_name="outbox_events")
    op.create_index(
        op.f("ix_outbox_events_aggregatetype_aggregateid_seq"),
        "outbox_events",
        ["aggregatetype", "aggregateid", "seq"],
        unique=False,
    )
    op.execute(
        "ALTER TABLE outbox_events RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,"
        " autovacuum_vacuum_insert_scale_factor, autovacuum_vacuum_insert_threshold, autovacuum_vacuum_cost_delay)"
    )

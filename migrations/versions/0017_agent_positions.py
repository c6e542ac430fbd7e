"""agent_positions: how far each agent has come; views of lag and dead letters for operators"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.access import service_table

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

VIEWS = {
    "ops_agent_lag": """
        SELECT agent, topic, sum(greatest(0, end_offset - applied_offset - 1))::bigint AS lag,
               min(updated_at) AS updated_at
        FROM agent_positions GROUP BY agent, topic
    """,
    "ops_outbox_lag": """
        SELECT aggregatetype, count(*) AS pending, min(created_at) AS oldest_at, now() - min(created_at) AS age
        FROM outbox_events GROUP BY aggregatetype
    """,
    "ops_dead_letters": """
        SELECT source, topic, reason, status, count(*) AS letters, min(created_at) AS oldest_at,
               max(created_at) AS newest_at
        FROM dead_letters GROUP BY source, topic, reason, status
    """,
}


def upgrade() -> None:
    op.create_table(
        "agent_positions",
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "applied_offset",
            sa.BigInteger(),
            nullable=False,
            comment="of the last record whose effect is durable; -1: none yet",
        ),
        sa.Column(
            "end_offset",
            sa.BigInteger(),
            nullable=False,
            comment="of the next record to be written, as the worker knew",
        ),
        sa.Column("worker", sa.Text(), nullable=False, comment="host and pid of the worker that said so"),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="wall time; old: nobody has the partition",
        ),
        sa.PrimaryKeyConstraint("agent", "topic", "partition", name=op.f("pk_agent_positions")),
    )
    service_table("agent_positions", "SELECT, INSERT, UPDATE")
    for name, query in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    for name in VIEWS:
        op.execute(f"DROP VIEW {name}")
    op.drop_table("agent_positions")

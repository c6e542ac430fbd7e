"""when an agent has dealt with the replay of a dead letter"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "dead_letters",
        sa.Column(
            "settled_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="wall time at which an agent dealt with its replay",
        ),
    )


def downgrade() -> None:
    op.drop_column("dead_letters", "settled_at")

"""keep a day's last reconciliation"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "ad_days",
        sa.Column(
            "reconciliation",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=True,
            comment="the last report of `packstream reconcile`",
        ),
    )


def downgrade() -> None:
    op.drop_column("ad_days", "reconciliation")

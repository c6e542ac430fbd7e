"""who got an e-mail that came back"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_email_deliveries_bounced",
        "email_deliveries",
        ["user_id"],
        postgresql_where=sa.text("bounced_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_email_deliveries_bounced", "email_deliveries")

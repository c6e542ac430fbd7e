"""carts keep which vendors a checkout could order nothing of"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "cart_records",
        sa.Column(
            "rejected_vendors",
            postgresql.JSONB(),
            nullable=True,
            comment="by the checkout: [{vendor_store_id, reason}]",
        ),
    )


def downgrade() -> None:
    op.drop_column("cart_records", "rejected_vendors")

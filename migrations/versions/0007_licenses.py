"""licences"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'packstream_app') THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON licenses TO packstream_app;
  END IF;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "licenses",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("media_id", sa.Uuid(), nullable=False, comment="the document, attached in media_attachments"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("issuing_state", sa.Text(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=False),
        sa.Column("expires_on", sa.Date(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "warned_at", sa.DateTime(timezone=True), nullable=True, comment="when its expiry was announced, once"
        ),
        sa.Column("expired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("type IN ('producer', 'grower', 'dispensary', 'merchant')", name=op.f("ck_licenses_type")),
        sa.CheckConstraint("status IN ('pending', 'verified', 'rejected', 'expired')", name=op.f("ck_licenses_status")),
        sa.CheckConstraint("expires_on >= issued_on", name=op.f("ck_licenses_period")),
        sa.CheckConstraint(
            "status <> 'rejected' OR decision_reason IS NOT NULL", name=op.f("ck_licenses_rejected_why")
        ),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_licenses_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_licenses")),
    )
    op.create_index(op.f("ix_licenses_store_id_created_at_id"), "licenses", ["store_id", "created_at", "id"])
    op.create_index(op.f("ix_licenses_status_created_at_id"), "licenses", ["status", "created_at", "id"])
    op.create_index("ix_licenses_expires_on", "licenses", ["status", "expires_on"])
    op.execute(GRANTS)


def downgrade() -> None:
    op.drop_table("licenses")

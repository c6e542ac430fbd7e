"""drafts of products, made of certificates of analysis"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.access import STORE, tenant_table

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "product_drafts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("coa_media_id", sa.Uuid(), nullable=True, comment="null: the media were deleted"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column(
            "failure", sa.Text(), nullable=True, comment="media_deleted, unreadable, nothing_found, refused, gave_up"
        ),
        sa.Column(
            "fields", postgresql.JSONB(astext_type=sa.Text()), nullable=False, comment="what the certificate says"
        ),
        sa.Column(
            "confidence",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="0 to 1, by the names of fields",
        ),
        sa.Column("product_id", sa.Uuid(), nullable=True),
        sa.Column("claim", sa.Uuid(), nullable=True, comment="of the worker that reads it until due_at"),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="while processing, by the wall clock: from here on to be claimed",
        ),
        sa.Column("attempts", sa.BigInteger(), nullable=False, comment="to read it, that began"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('processing', 'ready', 'failed', 'published')", name=op.f("ck_product_drafts_status")
        ),
        sa.CheckConstraint(
            "(status = 'published') = (product_id IS NOT NULL)", name=op.f("ck_product_drafts_published")
        ),
        sa.CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name=op.f("ck_product_drafts_failed")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_product_drafts_store_id_stores")),
        sa.ForeignKeyConstraint(
            ["coa_media_id"], ["media.id"], name=op.f("fk_product_drafts_coa_media_id_media"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["product_id"], ["products.id"], name=op.f("fk_product_drafts_product_id_products")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_product_drafts")),
    )
    op.create_index(
        op.f("ix_product_drafts_store_id_created_at_id"), "product_drafts", ["store_id", "created_at", "id"]
    )
    op.create_index(op.f("ix_product_drafts_coa_media_id"), "product_drafts", ["coa_media_id"])
    op.create_index(
        "ix_product_drafts_due", "product_drafts", ["due_at"], postgresql_where=sa.text("status = 'processing'")
    )
    tenant_table("product_drafts", f"store_id = {STORE}", "SELECT, INSERT, UPDATE")


def downgrade() -> None:
    op.drop_table("product_drafts")

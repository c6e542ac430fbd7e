"""media, attachments, deletions"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'packstream_app') THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON media, media_attachments, media_derived TO packstream_app;
    GRANT SELECT, INSERT, UPDATE ON media_deletions TO packstream_app;
  END IF;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "media_deletions",
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("object_names", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="deleted, stale, failed, late_upload, orphan"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column(
            "objects_deleted", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="all in all"
        ),
        sa.Column(
            "objects_missing",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="at the last attempt",
        ),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('pending', 'done')", name=op.f("ck_media_deletions_status")),
        sa.PrimaryKeyConstraint("media_id", name=op.f("pk_media_deletions")),
    )
    op.create_index(
        "ix_media_deletions_pending",
        "media_deletions",
        ["requested_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "media",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False, comment="the client's name for it; no object is called so"),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True, comment="why it failed: size_mismatch, content_mismatch …"),
        sa.Column("generation", sa.BigInteger(), nullable=True, comment="of the object that was checked"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('license', 'product', 'coa', 'store_logo', 'store_banner', 'avatar', 'ad_creative')",
            name=op.f("ck_media_kind"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'uploaded', 'processing', 'ready', 'failed')", name=op.f("ck_media_status")
        ),
        sa.CheckConstraint("size_bytes BETWEEN 1 AND 20971520", name=op.f("ck_media_size")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_media_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_media")),
    )
    op.create_index(op.f("ix_media_store_id_created_at_id"), "media", ["store_id", "created_at", "id"], unique=False)
    op.create_index(
        "ix_media_unfinished",
        "media",
        ["status", "created_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('pending', 'failed')"),
    )
    op.create_table(
        "media_attachments",
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False, comment="order within the slot, from 0"),
        sa.Column("store_id", sa.Uuid(), nullable=False, comment="the media's"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("position >= 0", name=op.f("ck_media_attachments_position")),
        sa.ForeignKeyConstraint(["media_id"], ["media.id"], name=op.f("fk_media_attachments_media_id_media")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_media_attachments_store_id_stores")),
        sa.PrimaryKeyConstraint("media_id", "entity_type", "entity_id", "slot", name=op.f("pk_media_attachments")),
        sa.UniqueConstraint(
            "entity_type",
            "entity_id",
            "slot",
            "position",
            name=op.f("uq_media_attachments_entity_type_entity_id_slot_position"),
        ),
    )
    op.create_table(
        "media_derived",
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["media_id"], ["media.id"], name=op.f("fk_media_derived_media_id_media")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_media_derived_store_id_stores")),
        sa.PrimaryKeyConstraint("media_id", "kind", name=op.f("pk_media_derived")),
    )
    op.alter_column("ads", "creative_media_id", comment="as its attachment says; goes with the media")
    op.create_index(op.f("ix_ads_creative_media_id"), "ads", ["creative_media_id"], unique=False)
    # Nobody could name media before there were any, so there is nothing to validate row by row under the lock.
    op.create_foreign_key(
        op.f("fk_ads_creative_media_id_media"), "ads", "media", ["creative_media_id"], ["id"], ondelete="SET NULL"
    )
    op.execute(GRANTS)


def downgrade() -> None:
    op.drop_constraint(op.f("fk_ads_creative_media_id_media"), "ads", type_="foreignkey")
    op.drop_index(op.f("ix_ads_creative_media_id"), table_name="ads")
    op.alter_column("ads", "creative_media_id", comment=None)
    op.drop_table("media_derived")
    op.drop_table("media_attachments")
    op.drop_index(
        "ix_media_unfinished", table_name="media", postgresql_where=sa.text("status IN ('pending', 'failed')")
    )
    op.drop_index(op.f("ix_media_store_id_created_at_id"), table_name="media")
    op.drop_table("media")
    op.drop_index(
        "ix_media_deletions_pending",
        table_name="media_deletions",
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.drop_table("media_deletions")

"""notifications, e-mail deliveries, e-mail opt-outs"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# The API marks notifications as read and shows e-mails to operators; agents write both.
GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'packstream_app') THEN
    GRANT SELECT, UPDATE ON notifications TO packstream_app;
    GRANT SELECT, UPDATE ON email_deliveries TO packstream_app;
    GRANT SELECT, INSERT, DELETE ON email_opt_outs TO packstream_app;
  END IF;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False, comment="the request's"),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("link", sa.Text(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_notifications_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint("event_id", name=op.f("uq_notifications_event_id")),
    )
    op.create_index(op.f("ix_notifications_created_at"), "notifications", ["created_at"])
    op.create_index(op.f("ix_notifications_store_id_created_at_id"), "notifications", ["store_id", "created_at", "id"])
    op.create_index(
        "ix_notifications_unread",
        "notifications",
        ["store_id", "created_at", "id"],
        postgresql_where=sa.text("read_at IS NULL"),
    )
    _create_email_deliveries()
    op.create_table(
        "email_opt_outs",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_email_opt_outs_store_id_stores")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_email_opt_outs_user_id_users")),
        sa.PrimaryKeyConstraint("user_id", "store_id", name=op.f("pk_email_opt_outs")),
    )
    op.execute(GRANTS)


def _create_email_deliveries() -> None:
    op.create_table(
        "email_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False, comment="the request's event id; the Message-ID is made of it"),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("notification_id", sa.Uuid(), nullable=True),
        sa.Column("values", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True, comment="wall time; of queued ones"),
        sa.Column("claim", sa.Uuid(), nullable=True, comment="of the attempt that sends it, or sent it last"),
        sa.Column(
            "claimed_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="wall time; after it nobody knows what became of it",
        ),
        sa.Column("provider_id", sa.Text(), nullable=True, comment="what the provider calls it"),
        sa.Column("detail", sa.Text(), nullable=True, comment="the last answer or error, without addresses"),
        sa.Column(
            "bounced_at", sa.DateTime(timezone=True), nullable=True, comment="when the provider told of its return"
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="wall time"),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True, comment="wall time"),
        sa.CheckConstraint(
            "status IN ('queued', 'sending', 'sent', 'refused', 'failed', 'skipped', 'unknown')",
            name=op.f("ck_email_deliveries_status"),
        ),
        sa.CheckConstraint(
            "(status = 'queued') = (next_attempt_at IS NOT NULL)", name=op.f("ck_email_deliveries_queued")
        ),
        sa.CheckConstraint(
            "status <> 'sending' OR (claim IS NOT NULL AND claimed_until IS NOT NULL)",
            name=op.f("ck_email_deliveries_claimed"),
        ),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_email_deliveries_store_id_stores")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_email_deliveries_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_email_deliveries")),
        sa.UniqueConstraint("notification_id", "user_id", name=op.f("uq_email_deliveries_notification_id_user_id")),
    )
    op.create_index(op.f("ix_email_deliveries_created_at"), "email_deliveries", ["created_at"])
    op.create_index(
        op.f("ix_email_deliveries_status_created_at_id"), "email_deliveries", ["status", "created_at", "id"]
    )
    op.create_index(
        "ix_email_deliveries_queued",
        "email_deliveries",
        ["next_attempt_at"],
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "ix_email_deliveries_sending",
        "email_deliveries",
        ["claimed_until"],
        postgresql_where=sa.text("status = 'sending'"),
    )


def downgrade() -> None:
    op.drop_table("email_opt_outs")
    op.drop_table("email_deliveries")
    op.drop_table("notifications")

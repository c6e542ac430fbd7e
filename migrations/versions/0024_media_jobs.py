"""media that wait to be processed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.access import service_table

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "media_jobs",
        sa.Column("media_id", sa.Uuid(), nullable=False),
        sa.Column("claim", sa.Uuid(), nullable=True, comment="of the worker that has it until due_at"),
        sa.Column(
            "due_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="by the wall clock; from here on anybody may claim it",
        ),
        sa.Column(
            "attempts",
            sa.BigInteger(),
            nullable=False,
            comment="that began; one that an outage ended does not count",
        ),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["media_id"], ["media.id"], name=op.f("fk_media_jobs_media_id_media"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("media_id", name=op.f("pk_media_jobs")),
    )
    op.create_index(op.f("ix_media_jobs_due_at"), "media_jobs", ["due_at"])
    service_table("media_jobs", "SELECT")  # agents are the owner; it goes with the media, whoever deletes those


def downgrade() -> None:
    op.drop_table("media_jobs")

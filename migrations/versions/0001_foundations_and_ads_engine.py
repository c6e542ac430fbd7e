"""foundations and ads engine"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BUMP = """
CREATE FUNCTION bump_ad_catalog_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public AS $$
BEGIN
  UPDATE ad_catalog_version SET version = version + 1 WHERE id = 1;
  RETURN NULL;
END $$
"""
TRIGGERS = (
    ("ads_bump_catalog", "INSERT OR UPDATE OR DELETE", "ads"),
    ("stores_bump_catalog", "UPDATE OF kyc_status, subscription_active, state, name", "stores"),
)
# The API's role is not the owner. It writes the outbox but never reads or empties it, and only reads what agents write.
GRANTS = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'packstream_app') THEN
    GRANT USAGE ON SCHEMA public TO packstream_app;
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO packstream_app;
    REVOKE SELECT ON outbox_archive FROM packstream_app;
    GRANT INSERT, UPDATE, DELETE ON users, stores, memberships, ads TO packstream_app;
    GRANT INSERT ON audit_log TO packstream_app;
    GRANT INSERT ON outbox_events TO packstream_app;
    GRANT UPDATE ON dead_letters, logical_clock TO packstream_app;
    GRANT INSERT ON logical_clock TO packstream_app;
    GRANT INSERT ON inbox TO packstream_app;
  END IF;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "ad_adjustments",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("ad_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('impression', 'click')", name=op.f("ck_ad_adjustments_kind")),
        sa.CheckConstraint("reason IN ('day_closed', 'too_late')", name=op.f("ck_ad_adjustments_reason")),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_ad_adjustments")),
    )
    op.create_index(op.f("ix_ad_adjustments_day"), "ad_adjustments", ["day"], unique=False)
    op.create_table(
        "ad_catalog_version",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_ad_catalog_version_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ad_catalog_version")),
    )
    op.create_table(
        "ad_days",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("charged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reconciled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_ad_days")),
    )
    op.create_table(
        "ad_gate_epochs",
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False, comment="of the Redis server that holds it"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "lost_at", sa.DateTime(timezone=True), nullable=True, comment="logical time at which the loss was found"
        ),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('open', 'lost')", name=op.f("ck_ad_gate_epochs_state")),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_ad_gate_epochs")),
    )
    op.create_table(
        "ad_shards",
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "ticked_until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="events with exp + skew at or before it are refused",
        ),
        sa.PrimaryKeyConstraint("shard", name=op.f("pk_ad_shards")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False, comment="user:<id>, command:<os user> or a process's name"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object_type", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=True),
        sa.Column(
            "change",
            postgresql.JSONB(astext_type=sa.Text()),
            nullable=False,
            comment="what changed: {field: [before, after]}",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(
        op.f("ix_audit_log_object_type_object_id_created_at"),
        "audit_log",
        ["object_type", "object_id", "created_at"],
        unique=False,
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False, comment="relay, or the agent's name"),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=False, comment="-1: never published"),
        sa.Column(
            "offset", sa.BigInteger(), nullable=False, comment="the record's; of a relay's letter the outbox seq"
        ),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=True),
        sa.Column("event_type", sa.Text(), nullable=True),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="a code: undecodable, unknown_schema, unknown_ad, refused …"
        ),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=True),
        sa.CheckConstraint("status IN ('parked', 'replayed', 'discarded')", name=op.f("ck_dead_letters_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint(
            "source", "topic", "partition", "offset", name=op.f("uq_dead_letters_source_topic_partition_offset")
        ),
    )
    op.create_index(
        "ix_dead_letters_parked",
        "dead_letters",
        ["source", "topic", "key"],
        unique=False,
        postgresql_where=sa.text("status = 'parked'"),
    )
    op.create_index(
        op.f("ix_dead_letters_status_created_at_id"), "dead_letters", ["status", "created_at", "id"], unique=False
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("consumer", "event_id", name=op.f("pk_inbox")),
    )
    op.create_table(
        "logical_clock",
        sa.Column("id", sa.SmallInteger(), nullable=False),
        sa.Column("offset_us", sa.BigInteger(), nullable=False),
        sa.Column("floor_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("ck_logical_clock_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logical_clock")),
    )
    op.create_table(
        "outbox_archive",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("aggregatetype", sa.Text(), nullable=False),
        sa.Column("aggregateid", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", "published_at", name=op.f("pk_outbox_archive")),
        postgresql_partition_by="RANGE (published_at)",
    )
    op.create_index(
        op.f("ix_outbox_archive_aggregatetype_aggregateid_seq"),
        "outbox_archive",
        ["aggregatetype", "aggregateid", "seq"],
        unique=False,
    )
    op.create_table(
        "outbox_events",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("aggregatetype", sa.Text(), nullable=False, comment="the topic, without its prefix"),
        sa.Column("aggregateid", sa.Text(), nullable=False, comment="the record's key"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False, comment="Avro, single-object encoding"),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False, comment="logical time"),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="wall time",
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox_events")),
        sa.UniqueConstraint("id", name=op.f("uq_outbox_events_id")),
    )
    op.create_index(
        op.f("ix_outbox_events_aggregatetype_aggregateid_seq"),
        "outbox_events",
        ["aggregatetype", "aggregateid", "seq"],
        unique=False,
    )
    op.create_index(op.f("ix_outbox_events_lane_seq"), "outbox_events", ["lane", "seq"], unique=False)
    op.create_table(
        "outbox_failures",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("aggregatetype", sa.Text(), nullable=False),
        sa.Column("aggregateid", sa.Text(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("attempts > 0", name=op.f("ck_outbox_failures_attempts")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox_failures")),
    )
    op.create_table(
        "outbox_lanes",
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("lane", name=op.f("pk_outbox_lanes")),
    )
    op.create_table(
        "stores",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("address", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="two letters; a copy of address.state, for the serve path"
        ),
        sa.Column("kyc_status", sa.Text(), nullable=False),
        sa.Column("subscription_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kyc_status IN ('pending', 'verified', 'rejected', 'expired')", name=op.f("ck_stores_kyc_status")
        ),
        sa.CheckConstraint("type IN ('buyer', 'vendor')", name=op.f("ck_stores_type")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stores")),
    )
    op.create_index(op.f("ix_stores_state_type"), "stores", ["state", "type"], unique=False)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True, comment="Argon2id; null until an invite is accepted"),
        sa.Column("first_name", sa.Text(), nullable=False),
        sa.Column("last_name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('user', 'agent', 'admin')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index("uq_users_email_lower", "users", [sa.literal_column("lower(email)")], unique=True)
    op.create_table(
        "ad_day_closures",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("ads", sa.BigInteger(), nullable=False, comment="rollups that this shard wrote"),
        sa.Column("watermark", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["day"], ["ad_days.day"], name=op.f("fk_ad_day_closures_day_ad_days")),
        sa.PrimaryKeyConstraint("day", "shard", name=op.f("pk_ad_day_closures")),
    )
    op.create_table(
        "ads",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("billing_model", sa.Text(), nullable=False),
        sa.Column("placement", sa.Text(), nullable=False),
        sa.Column("target_type", sa.Text(), nullable=False),
        sa.Column("target_product_id", sa.Uuid(), nullable=True),
        sa.Column("bid_cpm_cents", sa.BigInteger(), nullable=False),
        sa.Column("daily_budget_cents", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("headline", sa.Text(), nullable=False),
        sa.Column("creative_media_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(target_type = 'product') = (target_product_id IS NOT NULL)", name=op.f("ck_ads_target")),
        sa.CheckConstraint("billing_model = 'cpm'", name=op.f("ck_ads_billing_model")),
        sa.CheckConstraint("placement IN ('home', 'category', 'search')", name=op.f("ck_ads_placement")),
        sa.CheckConstraint("status IN ('draft', 'active', 'paused', 'archived')", name=op.f("ck_ads_status")),
        sa.CheckConstraint("target_type IN ('store', 'product')", name=op.f("ck_ads_target_type")),
        sa.CheckConstraint("bid_cpm_cents BETWEEN 1 AND 100000", name=op.f("ck_ads_bid")),
        sa.CheckConstraint("daily_budget_cents BETWEEN 100 AND 10000000", name=op.f("ck_ads_budget")),
        sa.CheckConstraint("ends_at > starts_at", name=op.f("ck_ads_flight")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_ads_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ads")),
    )
    op.create_index("ix_ads_active", "ads", ["placement"], unique=False, postgresql_where=sa.text("status = 'active'"))
    op.create_index(op.f("ix_ads_store_id_created_at_id"), "ads", ["store_id", "created_at", "id"], unique=False)
    op.create_table(
        "memberships",
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'manager', 'staff')", name=op.f("ck_memberships_role")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_memberships_store_id_stores")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_memberships_user_id_users")),
        sa.PrimaryKeyConstraint("store_id", "user_id", name=op.f("pk_memberships")),
    )
    op.create_index(op.f("ix_memberships_user_id"), "memberships", ["user_id"], unique=False)
    op.create_table(
        "usage_charges",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("for_date", sa.Date(), nullable=False),
        sa.Column("spend_micros", sa.BigInteger(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('recorded', 'cleared', 'billed')", name=op.f("ck_usage_charges_status")),
        sa.CheckConstraint("type = 'ad_spend'", name=op.f("ck_usage_charges_type")),
        sa.CheckConstraint("spend_micros > 0 AND amount_cents >= 0", name=op.f("ck_usage_charges_amount")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_usage_charges_store_id_stores")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_charges")),
        sa.UniqueConstraint("store_id", "type", "for_date", name=op.f("uq_usage_charges_store_id_type_for_date")),
    )
    op.create_index(op.f("ix_usage_charges_for_date"), "usage_charges", ["for_date"], unique=False)
    op.create_table(
        "ad_daily_rollups",
        sa.Column("ad_id", sa.Uuid(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("store_id", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.SmallInteger(), nullable=False),
        sa.Column("impressions", sa.BigInteger(), nullable=False),
        sa.Column("clicks", sa.BigInteger(), nullable=False),
        sa.Column("spend_micros", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "impressions >= 0 AND clicks >= 0 AND spend_micros >= 0", name=op.f("ck_ad_daily_rollups_counts")
        ),
        sa.ForeignKeyConstraint(["ad_id"], ["ads.id"], name=op.f("fk_ad_daily_rollups_ad_id_ads")),
        sa.ForeignKeyConstraint(["store_id"], ["stores.id"], name=op.f("fk_ad_daily_rollups_store_id_stores")),
        sa.PrimaryKeyConstraint("ad_id", "day", name=op.f("pk_ad_daily_rollups")),
    )
    op.create_index(op.f("ix_ad_daily_rollups_day_store_id"), "ad_daily_rollups", ["day", "store_id"], unique=False)
    op.execute("CREATE TABLE outbox_archive_rest PARTITION OF outbox_archive DEFAULT")
    op.execute("INSERT INTO outbox_lanes (lane) SELECT generate_series(0, 31)")
    op.execute("INSERT INTO logical_clock (id, offset_us) VALUES (1, 0)")
    op.execute("INSERT INTO ad_catalog_version (id, version) VALUES (1, 1)")
    op.execute(BUMP)
    for name, event, table in TRIGGERS:
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION bump_ad_catalog_version()"
        )
    op.execute(GRANTS)


def downgrade() -> None:
    op.drop_index(op.f("ix_ad_daily_rollups_day_store_id"), table_name="ad_daily_rollups")
    op.drop_table("ad_daily_rollups")
    op.drop_index(op.f("ix_usage_charges_for_date"), table_name="usage_charges")
    op.drop_table("usage_charges")
    op.drop_index(op.f("ix_memberships_user_id"), table_name="memberships")
    op.drop_table("memberships")
    op.drop_index(op.f("ix_ads_store_id_created_at_id"), table_name="ads")
    op.drop_index("ix_ads_active", table_name="ads", postgresql_where=sa.text("status = 'active'"))
    op.drop_table("ads")
    op.drop_table("ad_day_closures")
    op.drop_index("uq_users_email_lower", table_name="users")
    op.drop_table("users")
    op.drop_index(op.f("ix_stores_state_type"), table_name="stores")
    op.drop_table("stores")
    op.drop_table("outbox_lanes")
    op.drop_table("outbox_failures")
    op.drop_index(op.f("ix_outbox_events_lane_seq"), table_name="outbox_events")
    op.drop_index(op.f("ix_outbox_events_aggregatetype_aggregateid_seq"), table_name="outbox_events")
    op.drop_table("outbox_events")
    op.drop_index(op.f("ix_outbox_archive_aggregatetype_aggregateid_seq"), table_name="outbox_archive")
    op.drop_table("outbox_archive")
    op.drop_table("logical_clock")
    op.drop_table("inbox")
    op.drop_index(op.f("ix_dead_letters_status_created_at_id"), table_name="dead_letters")
    op.drop_index("ix_dead_letters_parked", table_name="dead_letters", postgresql_where=sa.text("status = 'parked'"))
    op.drop_table("dead_letters")
    op.drop_index(op.f("ix_audit_log_object_type_object_id_created_at"), table_name="audit_log")
    op.drop_table("audit_log")
    op.drop_table("ad_shards")
    op.drop_table("ad_gate_epochs")
    op.drop_table("ad_days")
    op.drop_table("ad_catalog_version")
    op.drop_index(op.f("ix_ad_adjustments_day"), table_name="ad_adjustments")
    op.drop_table("ad_adjustments")
    op.execute("DROP FUNCTION bump_ad_catalog_version")

"""row-level security: the second wall between stores"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

STORE = "NULLIF(current_setting('packstream.store_id', true), '')::uuid"
USER = "NULLIF(current_setting('packstream.user_id', true), '')::uuid"

# What a caller who acts for a store may see and write, beside the queries' own conditions.
POLICIES = {
    "stores": f"id = {STORE}",
    "memberships": f"store_id = {STORE} OR user_id = {USER}",
    "users": f"id = {USER} OR id IN (SELECT user_id FROM memberships WHERE store_id = {STORE})",
    "invites": f"store_id = {STORE}",
    "ads": f"store_id = {STORE}",
    "ad_daily_rollups": f"store_id = {STORE}",
    "usage_charges": f"store_id = {STORE}",
    "media": f"store_id = {STORE}",
    "media_derived": f"store_id = {STORE}",
    "media_attachments": f"store_id = {STORE}",
    "licenses": f"store_id = {STORE}",
    "notifications": f"store_id = {STORE}",
    "audit_log": f"store_id = {STORE}",
    "idempotency_keys": f"scope IN ({STORE}::text, {USER}::text)",
}
# Some may be written where they cannot be read.
WRITABLE = {"audit_log": f"store_id = {STORE} OR store_id IS NULL"}
# What no store has a part in: the service role reads it.
OPERATIONS = (
    "dead_letters",
    "outbox_events",
    "outbox_failures",
    "outbox_lanes",
    "inbox",
    "ad_days",
    "ad_day_closures",
    "ad_adjustments",
    "ad_gate_epochs",
    "email_deliveries",
)
SAME_GRANTS = """
DO $$
DECLARE held record;
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'packstream_service')
     AND EXISTS (SELECT FROM pg_roles WHERE rolname = 'packstream_app') THEN
    GRANT USAGE ON SCHEMA public TO packstream_service;
    FOR held IN SELECT table_name, privilege_type FROM information_schema.role_table_grants
                WHERE grantee = 'packstream_app' AND table_schema = 'public'
    LOOP
      EXECUTE format('GRANT %s ON %I TO packstream_service', held.privilege_type, held.table_name);
    END LOOP;
  END IF;
END $$
"""


def when_there(role: str, statement: str) -> str:
    """The statement, where the role exists: roles belong to the server, not to the database."""
    quoted = statement.replace("'", "''")
    return (
        f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN EXECUTE '{quoted}'; END IF; END $$"
    )


def upgrade() -> None:
    op.execute(SAME_GRANTS)
    for table, condition in POLICIES.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        writable = WRITABLE.get(table, condition)
        tenant = f"CREATE POLICY tenant ON {table} TO packstream_app USING ({condition}) WITH CHECK ({writable})"
        op.execute(when_there("packstream_app", tenant))
        service = f"CREATE POLICY service ON {table} TO packstream_service USING (true) WITH CHECK (true)"
        op.execute(when_there("packstream_service", service))
    for table in OPERATIONS:
        op.execute(when_there("packstream_app", f"REVOKE SELECT, UPDATE, DELETE ON {table} FROM packstream_app"))


def downgrade() -> None:
    for table in POLICIES:
        for policy in ("tenant", "service"):
            op.execute(f"DROP POLICY IF EXISTS {policy} ON {table}")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for table in OPERATIONS:
        op.execute(when_there("packstream_app", f"GRANT SELECT ON {table} TO packstream_app"))

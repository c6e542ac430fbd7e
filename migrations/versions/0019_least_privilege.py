"""the app role keeps what requests of a store use: no writes beyond the store, nothing of operations"""

from __future__ import annotations

from alembic import op

from migrations.access import APP, SERVICE, STORE, USER, grant, when_there

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

UNUSED = {
    "users": "INSERT, DELETE",
    "stores": "INSERT, DELETE",
    "memberships": "INSERT",
    "invites": "INSERT, UPDATE",
    "logical_clock": "INSERT, UPDATE",
    "ad_shards": "INSERT",
    "inbox": "INSERT",
    "outbox_failures": "INSERT",
    "email_opt_outs": "SELECT, INSERT, DELETE",
    "outbox_archive_rest": "SELECT",
}
OWN = f"USING (store_id = {STORE}) WITH CHECK (store_id = {STORE})"
COLLEAGUES = f"id = {USER} OR id IN (SELECT user_id FROM memberships WHERE store_id = {STORE})"


def upgrade() -> None:
    for table, privileges in UNUSED.items():
        when_there(APP, f"REVOKE {privileges} ON {table} FROM {APP}")
    when_there(SERVICE, f"REVOKE SELECT ON outbox_archive_rest FROM {SERVICE}")
    _drop("memberships", "tenant")
    when_there(APP, f"CREATE POLICY tenant ON memberships TO {APP} {OWN}")
    when_there(APP, f"CREATE POLICY own ON memberships FOR SELECT TO {APP} USING (user_id = {USER})")
    _drop("users", "tenant")
    when_there(APP, f"CREATE POLICY seen ON users FOR SELECT TO {APP} USING ({COLLEAGUES})")
    when_there(APP, f"CREATE POLICY own ON users FOR UPDATE TO {APP} USING (id = {USER}) WITH CHECK (id = {USER})")
    op.execute("ALTER TABLE media_deletions ENABLE ROW LEVEL SECURITY")
    when_there(APP, f"CREATE POLICY tenant ON media_deletions TO {APP} {OWN}")
    when_there(SERVICE, f"CREATE POLICY service ON media_deletions TO {SERVICE} USING (true) WITH CHECK (true)")
    op.execute("ALTER FUNCTION bump_ad_catalog_version() SET search_path = public, pg_temp")


def downgrade() -> None:
    op.execute("ALTER FUNCTION bump_ad_catalog_version() SET search_path = public")
    _drop("media_deletions", "tenant", "service")
    op.execute("ALTER TABLE media_deletions DISABLE ROW LEVEL SECURITY")
    _drop("users", "seen", "own")
    when_there(APP, f"CREATE POLICY tenant ON users TO {APP} USING ({COLLEAGUES})")
    _drop("memberships", "tenant", "own")
    when_there(APP, f"CREATE POLICY tenant ON memberships TO {APP} USING (store_id = {STORE} OR user_id = {USER})")
    for table, privileges in UNUSED.items():
        grant(privileges, table, roles=(APP,))
    grant("SELECT", "outbox_archive_rest", roles=(SERVICE,))


def _drop(table: str, *policies: str) -> None:
    for policy in policies:
        op.execute(f"DROP POLICY IF EXISTS {policy} ON {table}")

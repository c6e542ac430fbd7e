"""ad events: a flush of the collector in one round trip"""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

ROLES = ("packstream_app", "packstream_service")
SIGNATURE = (
    "append_ad_batches(bigint[], int[], bigint[], uuid[], text[], text[], text[], bytea[], smallint[], jsonb[],"
    " timestamptz[])"
)

# What models.ads.writes.record_events does, where no tick has passed any event (`excluded_at_s`: from which second of a
# shard's tick on one of its events is refused); else nothing, and false. Runs with the caller's rights. VOLATILE: each
# statement has a snapshot of its own, so the ticks are read as they are once all locks are held.
FUNCTION = """
CREATE FUNCTION append_ad_batches(
  lock_keys bigint[], shards int[], excluded_at_s bigint[],
  ids uuid[], aggregatetypes text[], aggregateids text[], types text[], payloads bytea[], lanes smallint[],
  header_objects jsonb[], occurred_ats timestamptz[]
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(key) FROM unnest(lock_keys) AS key;
  PERFORM FROM unnest(shards, excluded_at_s) AS batch(number, at_s)
    JOIN ad_shards ON ad_shards.shard = batch.number
    WHERE floor(extract(epoch FROM ad_shards.ticked_until)) >= batch.at_s;
  IF FOUND THEN
    RETURN false;
  END IF;
  INSERT INTO outbox_events (id, aggregatetype, aggregateid, type, payload, lane, headers, occurred_at)
    SELECT * FROM unnest(ids, aggregatetypes, aggregateids, types, payloads, lanes, header_objects, occurred_ats);
  RETURN true;
END $$
"""


def when_there(role: str, statement: str) -> str:
    """The statement, where the role exists: roles belong to the server, not to the database."""
    return f"DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN {statement}; END IF; END $$"


def upgrade() -> None:
    op.execute(FUNCTION)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {SIGNATURE} FROM PUBLIC")
    for role in ROLES:
        op.execute(when_there(role, f"GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {role}"))


def downgrade() -> None:
    op.execute(f"DROP FUNCTION {SIGNATURE}")

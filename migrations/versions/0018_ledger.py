"""the ledger: events, postings, seals, and the triggers that keep them as they were written"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.access import service_table

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TABLES = ("ledger_events", "ledger_postings", "ledger_seals")
DEFINER = "SECURITY DEFINER SET search_path = public, pg_temp"
SEALING = "hashtextextended('packstream:ledger', 0)"
GENESIS = "decode(repeat('00', 32), 'hex')"

# What is written stays. Grants say so too; this holds for the owner as well.
KEEP = """
CREATE FUNCTION ledger_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the ledger is append-only: % of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = '42501';
END $$
"""
# An event is the order's next, on a day that is not sealed; until it is committed, no day can be. Whoever could not see
# a seal that was committed a moment ago may not write.
APPEND = f"""
CREATE FUNCTION ledger_append() RETURNS trigger LANGUAGE plpgsql {DEFINER} AS $$
DECLARE newest record;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the ledger is written by read committed transactions' USING ERRCODE = '25001';
  END IF;
  PERFORM pg_advisory_xact_lock_shared({SEALING});
  IF EXISTS (SELECT FROM ledger_seals WHERE day >= NEW.day) THEN
    RAISE EXCEPTION 'the day % of the ledger is sealed', NEW.day USING ERRCODE = '23514';
  END IF;
  SELECT sequence, hash INTO newest FROM ledger_events WHERE order_id = NEW.order_id ORDER BY sequence DESC LIMIT 1;
  IF NEW.sequence <> COALESCE(newest.sequence, 0) + 1 OR NEW.prev_hash <> COALESCE(newest.hash, {GENESIS}) THEN
    RAISE EXCEPTION 'event % does not follow the last one of order %', NEW.sequence, NEW.order_id
      USING ERRCODE = '23514';
  END IF;
  RETURN NEW;
END $$
"""
SEAL = f"""
CREATE FUNCTION ledger_seal() RETURNS trigger LANGUAGE plpgsql {DEFINER} AS $$
DECLARE newest record;
BEGIN
  PERFORM pg_advisory_xact_lock({SEALING});
  SELECT day, hash INTO newest FROM ledger_seals ORDER BY day DESC LIMIT 1;
  IF NEW.day <> COALESCE(newest.day + 1, NEW.day) OR NEW.prev_hash <> COALESCE(newest.hash, {GENESIS}) THEN
    RAISE EXCEPTION 'the seal of % does not follow the last one', NEW.day USING ERRCODE = '23514';
  END IF;
  RETURN NEW;
END $$
"""
# At commit: an event has two sides or more, which sum to zero, and whose debits are its amount.
BALANCED = f"""
CREATE FUNCTION ledger_balanced() RETURNS trigger LANGUAGE plpgsql {DEFINER} AS $$
DECLARE
  event uuid := (to_jsonb(NEW) ->> TG_ARGV[0])::uuid;
  sides record;
BEGIN
  SELECT count(*) AS count, sum(amount_cents) AS total, COALESCE(sum(amount_cents) FILTER (WHERE amount_cents > 0), 0)
    AS debits INTO sides FROM ledger_postings WHERE event_id = event;
  IF sides.count < 2 OR sides.total <> 0
     OR sides.debits <> (SELECT amount_cents FROM ledger_events WHERE id = event) THEN
    RAISE EXCEPTION 'the postings of ledger event % do not balance', event USING ERRCODE = '23514';
  END IF;
  RETURN NULL;
END $$
"""
TRIGGERS = (
    "CREATE TRIGGER append BEFORE INSERT ON ledger_events FOR EACH ROW EXECUTE FUNCTION ledger_append()",
    "CREATE TRIGGER seal BEFORE INSERT ON ledger_seals FOR EACH ROW EXECUTE FUNCTION ledger_seal()",
    (
        "CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON ledger_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION ledger_balanced('id')"
    ),
    (
        "CREATE CONSTRAINT TRIGGER balanced AFTER INSERT ON ledger_postings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        " EXECUTE FUNCTION ledger_balanced('event_id')"
    ),
    *(
        f"CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} EXECUTE FUNCTION ledger_keep()"
        for table in TABLES
    ),
)
FUNCTIONS = {
    "ledger_keep": KEEP,
    "ledger_append": APPEND,
    "ledger_seal": SEAL,
    "ledger_balanced": BALANCED,
}


def upgrade() -> None:
    _events()
    _postings()
    _seals()
    for name, function in FUNCTIONS.items():
        op.execute(function)
        op.execute(f"REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC")
    for trigger in TRIGGERS:
        op.execute(trigger)
    service_table("ledger_events", "SELECT, INSERT")
    service_table("ledger_postings", "SELECT, INSERT")
    service_table("ledger_seals", "SELECT")  # days are sealed by housekeeping, which is the owner


def _events() -> None:
    op.create_table(
        "ledger_events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, comment="within the order, from 1, without a gap"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False, comment="what moved: the sum of the debits"),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("buyer_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("vendor_store_id", sa.Uuid(), nullable=False, comment="the order's"),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "day", sa.Date(), nullable=False, comment="on which it is booked: its UTC day, unless that was sealed"
        ),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column(
            "prev_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="of the order's event before it; zeros for the first",
        ),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 over all the rest and the postings"),
        sa.CheckConstraint(
            "type IN ('cash_collected', 'ach_settled', 'vendor_payout')", name=op.f("ck_ledger_events_type")
        ),
        sa.CheckConstraint("amount_cents >= 0", name=op.f("ck_ledger_events_amount")),
        sa.CheckConstraint("sequence >= 1", name=op.f("ck_ledger_events_sequence")),
        sa.CheckConstraint("day >= (occurred_at AT TIME ZONE 'UTC')::date", name=op.f("ck_ledger_events_day")),
        sa.CheckConstraint(
            "octet_length(prev_hash) = 32 AND octet_length(hash) = 32", name=op.f("ck_ledger_events_hashes")
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_ledger_events_order_id_orders")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_events")),
        sa.UniqueConstraint("order_id", "sequence", name=op.f("uq_ledger_events_order_id_sequence")),
        sa.UniqueConstraint("order_id", "type", name=op.f("uq_ledger_events_order_id_type")),
    )
    op.create_index(op.f("ix_ledger_events_day_order_id_sequence"), "ledger_events", ["day", "order_id", "sequence"])


def _postings() -> None:
    op.create_table(
        "ledger_postings",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False, comment="debit above zero, credit below"),
        sa.CheckConstraint(
            "account IN ('cash', 'bank', 'vendor_payable', 'platform_fees')", name=op.f("ck_ledger_postings_account")
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["ledger_events.id"], name=op.f("fk_ledger_postings_event_id_ledger_events")
        ),
        sa.PrimaryKeyConstraint("event_id", "account", name=op.f("pk_ledger_postings")),
    )


def _seals() -> None:
    op.create_table(
        "ledger_seals",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column(
            "events_hash",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 over the hashes of the day's events, by order and sequence",
        ),
        sa.Column("prev_hash", sa.LargeBinary(), nullable=False, comment="of the seal before it; zeros for the first"),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 over all the rest"),
        sa.Column("sealed_at", sa.DateTime(timezone=True), nullable=False, comment="logical time"),
        sa.CheckConstraint("events >= 0", name=op.f("ck_ledger_seals_events")),
        sa.CheckConstraint(
            "octet_length(events_hash) = 32 AND octet_length(prev_hash) = 32 AND octet_length(hash) = 32",
            name=op.f("ck_ledger_seals_hashes"),
        ),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_ledger_seals")),
    )


def downgrade() -> None:
    for table in ("ledger_postings", "ledger_events", "ledger_seals"):
        op.drop_table(table)
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}()")

"""What each database role may do with each table, and which rows it sees, written down. test_access_matrix.py holds
Postgres to it. A new table needs its line in TABLES, a function that acts with its owner's rights one in DEFINERS.

``app`` is the API's role while a request acts for a store, ``service`` what it takes on for everything else (sign-in,
serve, admins). The owner (migrations, agents, relay) may do all; ``cdc`` is given one table by ops/debezium/outbox.sql.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from migrations.access import APP, SERVICE


class Policy(NamedTuple):
    """A policy as Postgres prints it, with :store and :user for what a transaction says of its caller."""

    role: str
    command: str
    using: str | None
    check: str | None = None


class Wall(NamedTuple):
    """Which rows the roles see. `columns` say whose a row is: a ``store``'s, ``another``'s beside it, a ``user``'s."""

    policies: Mapping[str, Policy]
    columns: Mapping[str, str]


class Access(NamedTuple):
    """Privileges of the two roles, by their initials, and the wall; without one, row-level security is off."""

    app: str
    service: str
    wall: Wall | None = None


PRIVILEGES: Final = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE", "X": "USAGE"}
SERVICE_SEES_ALL: Final = {"service": Policy(SERVICE, "ALL", "true", "true")}


def _of(column: str) -> Wall:
    """Rows of the caller's store alone, for all commands."""
    own = f"({column} = :store)"
    return Wall({"tenant": Policy(APP, "ALL", own, own), **SERVICE_SEES_ALL}, {column: "store"})


def _and(wall: Wall, **policies: Policy) -> Wall:
    """The same with other policies, or more of them."""
    return wall._replace(policies={**wall.policies, **policies})


OWN: Final = _of("store_id")
OWN_CART: Final = _of("buyer_store_id")
ITSELF: Final = _of("id")
OWN_OR_NOBODYS: Final = _and(
    OWN, tenant=Policy(APP, "ALL", "(store_id = :store)", "((store_id = :store) OR (store_id IS NULL))")
)
EITHER_STORE: Final = "((buyer_store_id = :store) OR (vendor_store_id = :store))"
# The same, so that the planner expects no less than there is.
OPAQUE: Final = "CASE WHEN (buyer_store_id = :store) THEN true ELSE (vendor_store_id = :store) END"
ORDERS: Final = Wall(  # both stores see an order and move it on; only its buyer places it
    {
        "seen": Policy(APP, "SELECT", OPAQUE),
        "placed": Policy(APP, "INSERT", None, "(buyer_store_id = :store)"),
        "moved": Policy(APP, "UPDATE", OPAQUE, OPAQUE),
        **SERVICE_SEES_ALL,
    },
    {"buyer_store_id": "store", "vendor_store_id": "another"},
)
ON_SALE: Final = _and(  # besides its own a store sees what is on sale to it
    OWN,
    shown=Policy(
        APP,
        "SELECT",
        "(active AND (deleted_at IS NULL) AND (store_id = ANY (ARRAY( SELECT selling_vendors(( SELECT stores.state"
        " FROM stores WHERE (stores.id = :store))) AS selling_vendors))))",
    ),
)
MEMBERSHIPS: Final = _and(OWN, own=Policy(APP, "SELECT", "(user_id = :user)"))  # in which other stores one is
USERS: Final = Wall(  # people see those of their store, and change themselves
    {
        "seen": Policy(
            APP,
            "SELECT",
            "((id = :user) OR (id IN ( SELECT memberships.user_id FROM memberships"
            " WHERE (memberships.store_id = :store))))",
        ),
        "own": Policy(APP, "UPDATE", "(id = :user)", "(id = :user)"),
        **SERVICE_SEES_ALL,
    },
    {"id": "user"},
)
IN_SCOPE: Final = "(scope = ANY (ARRAY[(:store)::text, (:user)::text]))"
KEYS: Final = Wall({"tenant": Policy(APP, "ALL", IN_SCOPE, IN_SCOPE), **SERVICE_SEES_ALL}, {"scope": "store"})
SERVICE_ALONE: Final = Wall(SERVICE_SEES_ALL, {})  #: what `migrations.access.service_table` makes

EITHER: Final = Wall(
    {"tenant": Policy(APP, "ALL", EITHER_STORE, EITHER_STORE), **SERVICE_SEES_ALL},
    {"buyer_store_id": "store", "vendor_store_id": "another"},
)
WALLS: Final[Mapping[str, Wall]] = {name: value for name, value in globals().items() if isinstance(value, Wall)}

TABLES: Final[Mapping[str, Access]] = {
    # Identity and stores
    "users": Access("SU", "SIUD", USERS),
    "stores": Access("SU", "SIUD", ITSELF),
    "memberships": Access("SUD", "SIUD", MEMBERSHIPS),
    "invites": Access("SD", "SIUD", OWN),
    # Media and licences
    "media": Access("SIUD", "SIUD", OWN),
    "media_derived": Access("SIUD", "SIUD", OWN),
    "media_attachments": Access("SIUD", "SIUD", OWN),
    "media_deletions": Access("SIU", "SIU", OWN),
    "product_drafts": Access("SIU", "SIU", OWN),
    "media_jobs": Access("", "S", SERVICE_ALONE),
    "licenses": Access("SIUD", "SIUD", OWN),
    # Catalogue
    "products": Access("SIU", "SIU", ON_SALE),
    "inventory": Access("SIU", "SIU", OWN),
    "promos": Access("SIU", "SIU", OWN),
    # Carts and orders
    "cart_records": Access("SIU", "SIU", OWN_CART),
    "cart_items": Access("SID", "SID", OWN_CART),
    "cart_vendor_groups": Access("SID", "SID", OWN_CART),
    "orders": Access("SIU", "SIU", ORDERS),
    "order_line_items": Access("SIU", "SIU", ORDERS),
    "payment_intents": Access("SIU", "SIU", ORDERS),
    "order_numbers": Access("X", "X"),
    "delivery_assignments": Access("S UPDATE of canceled_at, status", "SIU", EITHER),
    # Money: what is written stays
    "ledger_events": Access("", "SI", SERVICE_ALONE),
    "ledger_postings": Access("", "SI", SERVICE_ALONE),
    "ledger_seals": Access("", "S", SERVICE_ALONE),
    # Billing
    "billing_customers": Access("", "SI", SERVICE_ALONE),
    "payment_methods": Access("SI", "SI", OWN),
    "subscriptions": Access("SIU", "SIU", OWN),
    "charges": Access("S", "SIU", OWN),
    "stripe_events": Access("", "SIU", SERVICE_ALONE),
    "billing_checks": Access("", "S", SERVICE_ALONE),
    # Ads and what they cost
    "ads": Access("SIUD", "SIUD", OWN),
    "ad_daily_rollups": Access("S", "S", OWN),
    "usage_charges": Access("S", "S", OWN),
    "ad_catalog_version": Access("S", "S"),
    "ad_shards": Access("S", "SI"),
    "ad_days": Access("", "S"),
    "ad_day_closures": Access("", "S"),
    "ad_adjustments": Access("", "S"),
    "ad_gate_epochs": Access("", "S"),
    # Notifications
    "notifications": Access("SU", "SU", OWN),
    "email_deliveries": Access("", "SU"),
    "email_opt_outs": Access("", "SID"),
    # Streams and operations
    "outbox_events": Access("I", "SI"),
    "outbox_archive": Access("", ""),
    "outbox_archive_rest": Access("", ""),
    "outbox_failures": Access("", "SIU"),
    "outbox_lanes": Access("", "S"),
    "inbox": Access("", "SI"),
    "dead_letters": Access("", "SU"),
    "logical_clock": Access("S", "SIU"),
    "alembic_version": Access("S", "S"),
    "agent_positions": Access("", "SIU", SERVICE_ALONE),
    "warehouse_positions": Access("", "S", SERVICE_ALONE),
    "warehouse_streams": Access("", "S", SERVICE_ALONE),
    "warehouse_backfilled": Access("", "S", SERVICE_ALONE),
    "warehouse_backfills": Access("", "S", SERVICE_ALONE),
    "ops_agent_lag": Access("", ""),
    "ops_dead_letters": Access("", ""),
    "ops_outbox_lag": Access("", ""),
    # What everything leaves behind
    "audit_log": Access("SI", "SI", OWN_OR_NOBODYS),
    "idempotency_keys": Access("SIU", "SIU", KEYS),
}
#: Functions that act with their owner's rights, and who may call them; those of triggers are called by nobody.
DEFINERS: Final[Mapping[str, tuple[str, ...]]] = {
    "selling_vendors": (APP, SERVICE),
    "products_for_quote": (APP, SERVICE),
    "promos_by_code": (APP, SERVICE),
    "available_qty": (APP, SERVICE),
    "reserve_stock": (APP, SERVICE),
    "release_stock": (APP, SERVICE),
    "take_stock": (APP, SERVICE),
}

HOW: Final = """
Postgres and tests/contracts/access_matrix.py differ. Think about who should have what; then change the migration, or
write down in TABLES (or DEFINERS) what Postgres has:
{lines}
"""

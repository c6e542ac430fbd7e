"""orders: policies whose shape does not mislead the planner

As an OR of two equalities the policy counts, in estimates, as one more condition on the store: of a store with many
orders hardly any are expected, and all of them are read and sorted for a page. Nobody looks into a CASE: what it lets
through is half, and the page comes from the index in its order. It lets the same rows through as before.
"""

from __future__ import annotations

from typing import Final

from migrations.access import APP, STORE, when_there

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLES: Final = ("orders", "order_line_items", "payment_intents")
EITHER: Final = f"buyer_store_id = {STORE} OR vendor_store_id = {STORE}"
OPAQUE: Final = f"CASE WHEN buyer_store_id = {STORE} THEN true ELSE vendor_store_id = {STORE} END"


def upgrade() -> None:
    _let_through(OPAQUE)


def downgrade() -> None:
    _let_through(EITHER)


def _let_through(condition: str) -> None:
    for table in TABLES:
        when_there(APP, f"ALTER POLICY seen ON {table} USING ({condition})")
        when_there(APP, f"ALTER POLICY moved ON {table} USING ({condition}) WITH CHECK ({condition})")

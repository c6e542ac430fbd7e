"""What Postgres has of orders after checkout: plain SQL, and the ledger's own check."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, Final

import asyncpg

from models.database import make_engine, make_sessions
from models.ledger import checking
from ops.demo.courses import LedgerSums, OrderState, StoredOrders
from ops.settings import Settings

STATES: Final = """
SELECT o.id, o.status, o.total_cents, i.status AS payment, o.nudged_at IS NOT NULL AS nudged
FROM orders o JOIN payment_intents i ON i.order_id = o.id
"""
SHELVES: Final = "SELECT product_id, on_hand, reserved FROM inventory"
TOLD: Final = """
SELECT type, count(*) FROM outbox_archive WHERE aggregatetype = 'orders' AND type <> 'checkout_converted' GROUP BY 1
"""


async def read_orders(db: asyncpg.Connection[Any], settings: Settings, now: datetime) -> StoredOrders:
    """Orders, shelves, books and events; `now` is what the logical clock shows."""
    return StoredOrders(
        now=now,
        states={str(id_): OrderState(*facts) for id_, *facts in await db.fetch(STATES)},
        shelves={str(product): (there, held) for product, there, held in await db.fetch(SHELVES)},
        ledger=await _ledger(settings),
        told=Counter({row["type"]: row["count"] for row in await db.fetch(TOLD)}),
    )


async def _ledger(settings: Settings) -> LedgerSums:
    """As `packstream ledger check` finds it."""
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="packstream-demo")
    try:
        async with make_sessions(engine).begin() as tx:
            await checking.one_moment(tx)
            found = await checking.check(tx)
    finally:
        await engine.dispose()
    faults = [f"{fault.code}: {fault.detail}" for fault in found.faults]
    return LedgerSums(faults, found.events, dict(found.balances))

"""What Postgres has of sales when all is settled: plain SQL, as an auditor would write it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import asyncpg

from ops.demo.receipts import OrderFacts, OrderKey, StoredSales

ORDERS: Final = """
SELECT o.checkout_group_id, o.vendor_store_id, (o.created_at AT TIME ZONE 'UTC')::date AS day, o.buyer_store_id,
       sum(l.line_total_cents)::bigint AS ordered_cents, sum(l.quantity)::bigint AS units,
       o.attribution ->> 'jti' AS ad_event
FROM orders o JOIN order_line_items l ON l.order_id = o.id GROUP BY o.id
"""
UNLIKE: Final = """
SELECT o.id FROM orders o
JOIN order_line_items l ON l.order_id = o.id LEFT JOIN payment_intents i ON i.order_id = o.id
GROUP BY o.id, i.id
HAVING coalesce(sum(l.line_total_cents) FILTER (WHERE l.status <> 'rejected'), 0) <> o.total_cents
       OR i.amount_cents IS DISTINCT FROM o.total_cents
"""
TOLD: Final = "SELECT aggregateid, count(*) FROM outbox_archive WHERE type = 'checkout_converted' GROUP BY 1"


async def read_sales(db: asyncpg.Connection[Any]) -> StoredSales:
    """Orders as they were placed, and the events that were published."""
    return StoredSales(
        orders={
            OrderKey(str(group), str(vendor)): OrderFacts(day, str(buyer), *facts)
            for group, vendor, day, buyer, *facts in await db.fetch(ORDERS)
        },
        unlike=[str(row["id"]) for row in await db.fetch(UNLIKE)],
        told=Counter({row[0]: row[1] for row in await db.fetch(TOLD)}),
    )

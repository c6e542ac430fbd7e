"""What checkouts left in Postgres and on the topics: all of each, once, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from agents.kafka import connection
from ops.kafka_read import read_topic
from schemas.codec import decode
from schemas.records import CheckoutConverted, NotificationRequested
from schemas.registry import TOPICS
from tests.faults.system import System

RELEASED: Final = ("rejected", "canceled", "expired")

# Each says what is half done of the orders of these buyers ($1); there must be none.
HALF_DONE: Final = {
    "carts that are neither active nor converted to the end": """
        SELECT id FROM cart_records WHERE buyer_store_id = ANY ($1) AND status = 'converted' AND NOT EXISTS
        (SELECT FROM orders o WHERE o.checkout_group_id = cart_records.checkout_group_id)
        """,
    "orders whose cart is not theirs": """
        SELECT o.id FROM orders o LEFT JOIN cart_records c ON c.id = o.cart_id
        AND c.checkout_group_id = o.checkout_group_id AND c.buyer_store_id = o.buyer_store_id
        WHERE o.buyer_store_id = ANY ($1) AND c.id IS NULL
        """,
    "carts with more than one group": """
        SELECT cart_id FROM orders WHERE buyer_store_id = ANY ($1)
        GROUP BY cart_id HAVING count(DISTINCT checkout_group_id) > 1
        """,
    "more than one order of a group and vendor": """
        SELECT checkout_group_id FROM orders WHERE buyer_store_id = ANY ($1)
        GROUP BY checkout_group_id, vendor_store_id HAVING count(*) > 1
        """,
    "orders whose lines do not add up": """
        SELECT o.id FROM orders o LEFT JOIN order_line_items l ON l.order_id = o.id AND l.status <> 'rejected'
        WHERE o.buyer_store_id = ANY ($1) GROUP BY o.id
        HAVING o.total_cents <> coalesce(sum(l.line_total_cents), 0)
        """,
    "orders without one intent of their total": """
        SELECT o.id FROM orders o LEFT JOIN payment_intents i ON i.order_id = o.id AND i.amount_cents = o.total_cents
        AND (i.status = 'canceled') = (o.status = ANY ($2)) WHERE o.buyer_store_id = ANY ($1)
        GROUP BY o.id HAVING count(i.id) <> 1
        """,
    "lines of the cart that the group lacks": """
        SELECT i.id FROM cart_items i JOIN cart_records c ON c.id = i.cart_id AND c.status = 'converted'
        WHERE c.buyer_store_id = ANY ($1) AND i.status = 'ok'
        AND NOT EXISTS (SELECT FROM order_line_items l WHERE l.cart_item_id = i.id)
        AND NOT EXISTS (SELECT FROM jsonb_array_elements(c.rejected_vendors) r
                        WHERE r ->> 'vendor_store_id' = i.vendor_store_id::text)
        """,
    "keys without an answer": """
        SELECT key FROM idempotency_keys WHERE scope = ANY (SELECT unnest($1::uuid[])::text) AND status IS NULL
        """,
}


async def half_done(system: System, buyers: Iterable[str]) -> dict[str, list[Any]]:
    """Everything that is wrong, by what it is."""
    stores = [UUID(buyer) for buyer in buyers]
    found = {}
    for what, sql in HALF_DONE.items():
        arguments = (stores, list(RELEASED)) if "$2" in sql else (stores,)
        if rows := await system.rows(sql, *arguments):
            found[what] = [row[0] for row in rows]
    return found


async def stock_off(system: System, on_hand: Mapping[str, int]) -> dict[str, tuple[Any, ...]]:
    """Products of which not exactly that is reserved which orders hold; `on_hand` is what there is."""
    rows = await system.rows(
        "SELECT i.product_id, i.on_hand, i.reserved, coalesce(sum(l.quantity), 0)::bigint AS held FROM inventory i"
        " LEFT JOIN (order_line_items l JOIN orders o ON o.id = l.order_id AND NOT o.status = ANY ($2))"
        " ON l.product_id = i.product_id AND l.status <> 'rejected' WHERE i.product_id = ANY ($1) GROUP BY 1",
        [UUID(product) for product in on_hand],
        list(RELEASED),
    )
    assert len(rows) == len(on_hand)
    return {
        str(product): (there, reserved, held)
        for product, there, reserved, held in rows
        if there != on_hand[str(product)] or reserved != held or held > there
    }


async def groups_of(system: System, buyers: Iterable[str]) -> dict[str, set[str]]:
    """Order ids by checkout group."""
    sql = "SELECT checkout_group_id, id FROM orders WHERE buyer_store_id = ANY ($1)"
    found: dict[str, set[str]] = {}
    for group, order in await system.rows(sql, [UUID(buyer) for buyer in buyers]):
        found.setdefault(str(group), set()).add(str(order))
    return found


async def events_off(system: System, groups: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Groups without exactly one `checkout_converted` and one notification, counted by event on the topics."""
    await system.outbox_drained()
    told, noted = Counter[str](), Counter[str]()
    for topic, counter in (("orders", told), ("notifications", noted)):
        seen: set[UUID] = set()
        async for batch in read_topic(connection(system.settings), TOPICS[topic].name):
            for record in batch:
                event = decode(record.value)
                if event.event_id in seen:  # a relay that was killed may repeat itself
                    continue
                seen.add(event.event_id)
                if isinstance(event, CheckoutConverted):
                    counter[str(event.checkout_group_id)] += 1
                elif isinstance(event, NotificationRequested) and event.kind == "checkout":
                    counter[str(event.subject_id)] += 1
    return {group: (told[group], noted[group]) for group in groups if (told[group], noted[group]) != (1, 1)}

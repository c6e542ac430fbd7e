"""Among a million orders every list of them is found by an index, in its order, at the cost of a page."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from models.database import SessionFactory, make_engine, new_id
from models.delivery import reads as delivery
from models.orders import expiring, reads
from models.orders.rules import OrderStatus
from models.stores.rules import StoreType
from models.tenancy import SCOPE, Tenant, make_scoped_sessions
from ops.settings import Settings
from tests.local_stack import Database, Stack, settings_for
from tests.plans import Node, looked_at, plans_of, walk

START = datetime(2027, 1, 1, tzinfo=UTC)
BUYER, VENDOR = new_id(), new_id()
PAGE = 26
ROWS_MAX = 200  #: that a page of orders with a line and an intent each may look at
TABLES = ("orders", "order_line_items", "payment_intents")
# The stores under test have one order in twenty, or in nineteen; a tenth of all are in each of the ten statuses.
FILL = """
INSERT INTO stores (id, name, type, address, state, kyc_status, subscription_active, created_at, updated_at)
SELECT CASE n WHEN 0 THEN :buyer WHEN 1 THEN :vendor ELSE gen_random_uuid() END, 'Store ' || n,
       CASE WHEN n % 2 = 0 THEN 'buyer' ELSE 'vendor' END, '{}', 'OR', 'verified', true, :start, :start
FROM generate_series(0, 199) n;
INSERT INTO orders (id, number, checkout_group_id, cart_id, buyer_store_id, vendor_store_id, status, currency,
                    subtotal_cents, discounts_cents, shipping_cents, total_cents, payment_method, shipping_address,
                    warnings, expires_at, nudge_at, ready_at, delivered_at, created_at, updated_at)
SELECT gen_random_uuid(), 'PS-' || n, gen_random_uuid(), gen_random_uuid(),
       CASE n % 20 WHEN 0 THEN :buyer ELSE s.buyers[n % 99 + 1] END,
       CASE n % 19 WHEN 0 THEN :vendor ELSE s.vendors[n % 99 + 1] END,
       k.status, 'USD', 1000, 0, 0, 1000, 'cash', '{"city": "Portland", "state": "OR", "postal_code": "97201"}', '[]',
       t.at + interval '1 day', t.at + interval '12 hours', CASE k.status WHEN 'ready_for_dispatch' THEN t.at END,
       CASE k.status WHEN 'delivered' THEN t.at END, t.at, t.at
FROM generate_series(1, :orders) n,
     (SELECT array_agg(id) FILTER (WHERE type = 'buyer' AND id <> :buyer) AS buyers,
             array_agg(id) FILTER (WHERE type = 'vendor' AND id <> :vendor) AS vendors FROM stores) s,
     LATERAL (SELECT CAST(:start AS timestamptz) + n / 3 * interval '1 second' AS at) t,
     LATERAL (SELECT (ARRAY['pending', 'accepted', 'partially_accepted', 'rejected', 'canceled', 'expired',
                            'ready_for_dispatch', 'in_transit', 'delivered', 'closed'])[n / 100 % 10 + 1] AS status) k;
INSERT INTO order_line_items (id, order_id, buyer_store_id, vendor_store_id, position, cart_item_id, product_id, title,
                              category, quantity, unit_price_cents, moq, line_subtotal_cents, line_total_cents, status,
                              warnings)
SELECT gen_random_uuid(), id, buyer_store_id, vendor_store_id, 0, id, id, 'Blue Dream', 'flower', 1, 1000, 1, 1000,
       1000, 'pending', '[]'
FROM orders;
INSERT INTO payment_intents (id, order_id, buyer_store_id, vendor_store_id, method, status, amount_cents, settled_at,
                             paid_at, created_at, updated_at)
SELECT gen_random_uuid(), id, buyer_store_id, vendor_store_id, 'cash', k.status, 1000,
       CASE WHEN k.status <> 'unpaid' THEN created_at END, CASE k.status WHEN 'paid' THEN created_at END, created_at,
       created_at
FROM orders o, LATERAL (SELECT CASE o.status WHEN 'closed' THEN 'paid' WHEN 'delivered' THEN 'settled'
                                             ELSE 'unpaid' END AS status) k
"""

ONE = "SELECT id, checkout_group_id FROM orders WHERE buyer_store_id = :buyer LIMIT 1"


async def fill(settings: Settings, orders: int) -> None:
    """So many orders, of a hundred stores of each kind. Nobody looks whether the foreign keys lead anywhere."""
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="test")
    values = {"buyer": BUYER, "vendor": VENDOR, "start": START, "orders": orders}
    async with engine.begin() as tx:
        await tx.execute(text("SET LOCAL statement_timeout = 0"))
        await tx.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in FILL.split(";"):
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            await tx.execute(text(statement), used)
        await tx.execute(text("ANALYZE"))
    await engine.dispose()


def check(name: str, found: int, plans: list[Node]) -> None:
    """A whole page, found by indexes; the orders come in their order, none is sorted."""
    assert found == PAGE, name
    for plan in plans:
        nodes = list(walk(plan))
        scans = [node for node in nodes if node.get("Relation Name") in TABLES]
        assert scans, name
        assert [node for node in scans if node["Node Type"] == "Seq Scan"] == [], name
        if any(node["Relation Name"] == "orders" for node in scans):
            assert [node for node in nodes if "Sort" in node["Node Type"]] == [], name
        rows = sum(looked_at(node) for node in scans)
        assert rows <= ROWS_MAX, (name, rows)


async def check_stores_lists(sessions: SessionFactory, orders: int) -> None:
    middle = START + timedelta(seconds=orders // 6)
    filters: dict[str, dict[str, Any]] = {
        "all": {},
        "from a cursor on": {"after": (middle, new_id())},
        "a time": {"since": START + timedelta(seconds=orders // 12), "before": middle},
        "a time, from a cursor on": {"since": START, "before": START + timedelta(days=30), "after": (middle, new_id())},
    } | {
        f"{status}, {where}": {"status": status, **more}
        for status in (OrderStatus.PENDING, OrderStatus.CLOSED)
        for where, more in (
            ("newest", {}),
            ("a time", {"since": START, "before": START + timedelta(days=30)}),
            ("from a cursor on", {"after": (START + timedelta(seconds=orders // 4), new_id())}),
        )
    }
    for perspective, store in ((StoreType.BUYER, BUYER), (StoreType.VENDOR, VENDOR)):
        for name, wanted in filters.items():
            async with sessions(info={SCOPE: lambda tenant=store: Tenant(tenant, tenant)}) as tx:
                read = reads.orders_of(tx, store_id=store, perspective=perspective, limit=PAGE, **wanted)
                check(f"{perspective}: {name}", *await plans_of(tx, read))


async def check_lists_of_all_stores(sessions: SessionFactory, orders: int) -> None:
    after = (START + timedelta(seconds=orders // 12), new_id())
    lists: dict[str, Any] = {"to dispatch": delivery.queue, "to pay out": reads.payable}
    for name, read in lists.items():
        for place in (None, after):
            async with sessions() as tx:
                check(f"{name}, after {place}", *await plans_of(tx, read(tx, limit=PAGE, after=place)))
    late = START + timedelta(days=30)
    for name, due in (
        ("to expire", lambda tx: expiring.overdue(tx, before=late, limit=PAGE)),
        ("to nudge", lambda tx: expiring.unnudged(tx, before=late, limit=PAGE, now=START)),
    ):
        async with sessions() as tx:
            check(name, *await plans_of(tx, due(tx)))


async def check_single_orders(sessions: SessionFactory) -> None:
    async with sessions() as tx:
        row = (await tx.execute(text(ONE), {"buyer": BUYER})).one()
    singles: dict[str, Any] = {
        "by id": lambda tx: reads.order(tx, row.id, store_id=BUYER),
        "of a checkout": lambda tx: reads.group(tx, row.checkout_group_id),
        "retried": lambda tx: reads.retry_of(tx, row.id),
    }
    for name, read in singles.items():
        async with sessions() as tx:
            _, plans = await plans_of(tx, listed(read(tx)))
            for node in (node for plan in plans for node in walk(plan)):
                assert node["Node Type"] != "Seq Scan", name
                assert looked_at(node) <= PAGE, name


async def listed(read: Coroutine[Any, Any, Any]) -> Sequence[Any]:
    found: UUID | Any = await read
    return found if isinstance(found, Sequence) else [found]


@pytest.mark.parametrize(
    "orders", [60_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_every_list_of_orders_is_read_by_an_index(stack: Stack, database: Database, orders: int) -> None:
    settings = settings_for(stack, database)
    await fill(settings, orders)
    engine = make_engine(settings.sqlalchemy_app_url, pool_size=1, application="test")
    sessions = make_scoped_sessions(engine)
    await check_stores_lists(sessions, orders)
    await check_lists_of_all_stores(sessions, orders)
    await check_single_orders(sessions)
    await engine.dispose()

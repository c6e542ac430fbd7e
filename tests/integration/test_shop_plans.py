"""At 200,000 products every list of the catalogue is found by an index, in pages that cost what a page costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from models.catalog import reads
from models.catalog.reads import ShopFilter
from models.catalog.rules import Sort
from models.database import make_engine, new_id
from models.tenancy import SCOPE, Tenant, make_scoped_sessions
from ops.settings import Settings
from tests.local_stack import Database, Stack, settings_for
from tests.plans import Node, looked_at, plans_of, walk

PRODUCTS = 200_000
VENDORS = 400
START = datetime(2027, 1, 1, tzinfo=UTC)
BUYER, VENDOR = new_id(), new_id()
ROWS_MAX = 4_000  #: that a page may look at; of 200,000
FILL = f"""
INSERT INTO stores (id, name, type, address, state, kyc_status, subscription_active, created_at, updated_at)
SELECT CASE n WHEN 0 THEN :buyer WHEN 1 THEN :vendor ELSE gen_random_uuid() END, 'Store ' || n,
       CASE n WHEN 0 THEN 'buyer' ELSE 'vendor' END, '{{}}', (ARRAY['OR', 'WA', 'CA', 'NV'])[n % 4 + 1],
       'verified', true, :start, :start
FROM generate_series(0, {VENDORS}) n;
UPDATE stores SET state = 'OR' WHERE id = :vendor;
INSERT INTO products (id, store_id, sku, title, description, category, unit, price_cents, moq, active,
                      volume_discounts, created_at, updated_at)
SELECT gen_random_uuid(), v.ids[n % {VENDORS} + 1], 'SKU-' || n,
       (ARRAY['Blue', 'Green', 'Purple', 'Golden'])[n / 7 % 4 + 1] || ' w' || n % 97, 'from batch b' || n / 40,
       (ARRAY['flower', 'preroll', 'edible', 'vape', 'seed'])[n % 5 + 1], 'ounce', 100 + n % 5000, 1, n % 50 > 0,
       '[]', CAST(:start AS timestamptz) + (n / 3) * interval '1 second', :start
FROM generate_series(1, {PRODUCTS}) n, (SELECT array_agg(id) AS ids FROM stores WHERE type = 'vendor') v;
INSERT INTO inventory (product_id, store_id, on_hand, reserved, updated_at)
SELECT id, store_id, 10, 1, :start FROM products
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def fill(settings: Settings) -> None:
    """A catalogue of that size."""
    engine = make_engine(settings.sqlalchemy_url, pool_size=1, application="test")
    async with engine.begin() as tx:
        await tx.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in FILL.split(";"):
            names = {"buyer": BUYER, "vendor": VENDOR, "start": START}
            await tx.execute(text(statement), {name: value for name, value in names.items() if f":{name}" in statement})
        await tx.execute(text("ANALYZE"))
    await engine.dispose()


def check(name: str, found: int, plans: list[Node]) -> None:
    scanned = [node for plan in plans for node in walk(plan) if node.get("Relation Name") in ("products", "inventory")]
    assert found == 26, name
    assert scanned, name
    assert [node for node in scanned if node["Node Type"] == "Seq Scan"] == [], name
    rows = sum(looked_at(node) for node in scanned)
    assert rows <= ROWS_MAX, (name, rows)


async def test_no_list_of_the_catalogue_reads_the_whole_table(stack: Stack, database: Database) -> None:
    settings = settings_for(stack, database)
    await fill(settings)
    engine = make_engine(settings.sqlalchemy_app_url, pool_size=1, application="test")
    sessions = make_scoped_sessions(engine)
    late, dear = (START + timedelta(seconds=40_000), new_id()), (2500, new_id())
    shops: dict[str, tuple[ShopFilter, Sort, Any]] = {
        "newest": (ShopFilter(), Sort.NEWEST, None),
        "newest, on": (ShopFilter(), Sort.NEWEST, late),
        "cheapest": (ShopFilter(), Sort.PRICE_ASC, None),
        "cheapest, on": (ShopFilter(), Sort.PRICE_ASC, dear),
        "dearest, on": (ShopFilter(), Sort.PRICE_DESC, dear),
        "category": (ShopFilter(category="seed"), Sort.NEWEST, late),
        "category, cheapest": (ShopFilter(category="seed"), Sort.PRICE_ASC, dear),
        "price range": (ShopFilter(min_price_cents=2000, max_price_cents=2100), Sort.PRICE_DESC, None),
        "price range, newest": (ShopFilter(min_price_cents=2000, max_price_cents=2100), Sort.NEWEST, None),
        "search": (ShopFilter(q="w77 blue"), Sort.NEWEST, None),
        "search of a common word": (ShopFilter(q="purple"), Sort.NEWEST, None),
        "search, cheapest, in a category": (ShopFilter(q="w77", category="seed"), Sort.PRICE_ASC, None),
        "vendor": (ShopFilter(vendor_store_id=VENDOR), Sort.NEWEST, None),
        "vendor, cheapest": (ShopFilter(vendor_store_id=VENDOR), Sort.PRICE_ASC, None),
    }
    for name, (wanted, sort, after) in shops.items():
        async with sessions(info={SCOPE: lambda: Tenant(BUYER, BUYER)}) as tx:
            read = reads.browse(tx, wanted, buyer_store_id=BUYER, sort=sort, limit=26, after=after)
            check(name, *await plans_of(tx, read))
    for name, own in (("products of a vendor", reads.products_of), ("stock of a vendor", reads.stock_of)):
        async with sessions(info={SCOPE: lambda: Tenant(VENDOR, VENDOR)}) as tx:
            check(name, *await plans_of(tx, own(tx, VENDOR, limit=26, after=late)))
    await engine.dispose()

"""The API with vendors, products and buyers who are signed in, for benches of carts and checkouts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from models.database import new_id
from models.identity.gateway import Sessions
from models.identity.rules import ActiveStore, Role, StoreRole
from models.identity.tokens import AccessTokens
from models.redis import RedisLink
from ops.bench.marketplace import ADDRESS, api_ready
from ops.bench.site import BenchSite, site
from ops.stack.errors import StackError

VENDORS: Final = 4
PRODUCTS: Final = 100
ON_HAND: Final = 1_000_000_000
PRICE_CENTS: Final = 1_250
QUANTITY: Final = 2

STORES: Final = """
INSERT INTO stores (id, name, type, address, state, kyc_status, subscription_active, created_at, updated_at)
SELECT id, 'bench', $2, '{}', $3, 'verified', true, $4, $4 FROM unnest($1::uuid[]) AS id
"""
PRODUCT_ROWS: Final = """
INSERT INTO products (id, store_id, sku, title, category, unit, price_cents, moq, active, volume_discounts, created_at,
                      updated_at)
SELECT id, store_id, id::text, 'Bench ' || id, 'flower', 'ounce', $3, 1, true, '[]', $4, $4
FROM unnest($1::uuid[], $2::uuid[]) AS made(id, store_id)
"""
STOCK: Final = """
INSERT INTO inventory (product_id, store_id, on_hand, reserved, updated_at)
SELECT id, store_id, $3, 0, $4 FROM unnest($1::uuid[], $2::uuid[]) AS made(id, store_id)
"""
# The first cart is copied to all others: what a quote wrote for one buyer is what it would have written for each.
COPIES: Final = """
WITH made AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS made(template, cart, store)), cart AS (
  INSERT INTO cart_records (id, buyer_store_id, status, currency, valid_until, subtotal_cents, discounts_cents,
    total_cents, ok_items, warnings, promos_asked, attribution_tokens, attribution_claims, created_at, updated_at)
  SELECT made.cart, made.store, c.status, c.currency, c.valid_until, c.subtotal_cents, c.discounts_cents, c.total_cents,
    c.ok_items, c.warnings, c.promos_asked, c.attribution_tokens, c.attribution_claims, c.created_at, c.updated_at
  FROM cart_records c JOIN made ON made.template = c.id
), items AS (
  INSERT INTO cart_items (id, cart_id, buyer_store_id, position, product_id, vendor_store_id, title, category,
    requested_qty, quantity, unit_price_cents, moq, max_qty, applied_volume_discount, line_subtotal_cents,
    line_total_cents, status, warnings)
  SELECT uuidv7(), made.cart, made.store, i.position, i.product_id, i.vendor_store_id, i.title, i.category,
    i.requested_qty, i.quantity, i.unit_price_cents, i.moq, i.max_qty, i.applied_volume_discount, i.line_subtotal_cents,
    i.line_total_cents, i.status, i.warnings
  FROM cart_items i JOIN made ON made.template = i.cart_id
)
INSERT INTO cart_vendor_groups (cart_id, vendor_store_id, buyer_store_id, position, status, promo, subtotal_cents,
  discounts_cents, total_cents, warnings)
SELECT made.cart, g.vendor_store_id, made.store, g.position, g.status, g.promo, g.subtotal_cents, g.discounts_cents,
  g.total_cents, g.warnings
FROM cart_vendor_groups g JOIN made ON made.template = g.cart_id
"""
CHECKS: Final = {
    "orders that are not one a group and vendor": """
        SELECT checkout_group_id FROM orders GROUP BY checkout_group_id, vendor_store_id HAVING count(*) > 1
        """,
    "converted carts without orders": """
        SELECT id FROM cart_records c WHERE status = 'converted' AND NOT EXISTS
        (SELECT FROM orders o WHERE o.checkout_group_id = c.checkout_group_id AND o.total_cents > 0)
        """,
    "orders whose lines or intent do not add up": """
        SELECT o.id FROM orders o JOIN order_line_items l ON l.order_id = o.id
        JOIN payment_intents i ON i.order_id = o.id
        GROUP BY o.id, i.id HAVING sum(l.line_total_cents) <> o.total_cents OR i.amount_cents <> o.total_cents
        """,
    "stock that is not held by lines": """
        SELECT i.product_id FROM inventory i LEFT JOIN order_line_items l ON l.product_id = i.product_id
        GROUP BY i.product_id HAVING i.reserved <> coalesce(sum(l.quantity), 0)
        """,
    "checkouts without exactly two events": """
        WITH events AS (SELECT aggregateid, count(*) AS told FROM outbox_events GROUP BY aggregateid)
        SELECT c.id FROM cart_records c LEFT JOIN events g ON g.aggregateid = c.checkout_group_id::text
        LEFT JOIN events b ON b.aggregateid = c.buyer_store_id::text
        WHERE c.status = 'converted' AND (g.told, b.told) IS DISTINCT FROM (1, 1)
        """,
}


@dataclass(frozen=True, slots=True)
class Buyer:
    """A buyer store, with the Authorization header of a session that acts for it."""

    store_id: UUID
    user_id: UUID
    bearer: str


class BenchShop:
    """Makes buyers and carts, as many as a bench needs."""

    def __init__(self, found: BenchSite, db: asyncpg.Connection[Any], link: RedisLink) -> None:
        settings = found.settings
        self.site, self.db = found, db
        self.products: list[UUID] = []
        self._tokens = AccessTokens(settings.jwt_keys, ttl_s=settings.access_token_ttl_s)
        self._sessions = Sessions(
            link, ttl_s=settings.refresh_token_ttl_s, access_ttl_s=settings.access_token_ttl_s, limit_scale=1
        )

    @property
    def port(self) -> int:
        return int(self.site.addresses["PORT"])

    async def stock(self) -> None:
        """Vendors that may sell, and their products: neighbours in the list are of different vendors."""
        now, vendors = datetime.now(UTC), [new_id() for _ in range(VENDORS)]
        self.products = [new_id() for _ in range(PRODUCTS)]
        stores = [vendors[n % VENDORS] for n in range(PRODUCTS)]
        await self.db.execute(STORES, vendors, "vendor", ADDRESS["state"], now)
        await self.db.execute(PRODUCT_ROWS, self.products, stores, PRICE_CENTS, now)
        await self.db.execute(STOCK, self.products, stores, ON_HAND, now)

    async def buyers(self, count: int) -> list[Buyer]:
        """New stores, signed in."""
        stores, user, now = [new_id() for _ in range(count)], new_id(), datetime.now(UTC)
        await self.db.execute(STORES, stores, "buyer", ADDRESS["state"], now)
        return [await self._signed_in(store, user) for store in stores]

    async def _signed_in(self, store_id: UUID, user_id: UUID) -> Buyer:
        session_id, _ = await self._sessions.open(user_id, Role.USER, store_id)
        active = ActiveStore(store_id, "buyer", StoreRole.OWNER)
        token = self._tokens.sign(user_id, session_id, Role.USER, active, issued_at_s=int(time.time()))
        return Buyer(store_id, user_id, f"Bearer {token}")

    async def carts(self, templates: Sequence[UUID], buyers: Sequence[Buyer]) -> list[UUID]:
        """A cart for each buyer, who has none yet, as those given in turn; quotes are good for the whole bench."""
        carts = [new_id() for _ in buyers]
        copied = [templates[n % len(templates)] for n in range(len(buyers))]
        good_until = datetime.now(UTC) + timedelta(hours=4)
        await self.db.execute("UPDATE cart_records SET valid_until = $2 WHERE id = ANY ($1)", templates, good_until)
        await self.db.execute(COPIES, copied, carts, [buyer.store_id for buyer in buyers])
        await self.db.execute("ANALYZE")
        return carts

    async def check(self) -> None:
        """StackError, by name, where what the bench has done does not add up, or was not written durably."""
        for setting in ("synchronous_commit", "fsync"):
            if await self.db.fetchval(f"SHOW {setting}") != "on":
                raise StackError(f"{setting} is off: these numbers mean nothing")
        for what, sql in CHECKS.items():
            if wrong := await self.db.fetch(sql):
                raise StackError(f"{what}: {len(wrong)}, the first: {wrong[0][0]}")


@asynccontextmanager
async def shop() -> AsyncIterator[BenchShop]:
    """Start everything that a request needs; gone afterwards. Nobody relays: what is published stays where it was."""
    async with site("postgres", "redis") as found:
        process, link = (
            found.process("api", "api", environment={"LOG_LEVEL": "warning"}),
            RedisLink(found.addresses["REDIS_URL"]),
        )
        db = await asyncpg.connect(found.addresses["DATABASE_URL"])
        try:
            process.start()
            await link.connect()
            made = BenchShop(found, db, link)
            await made.stock()
            await api_ready(found, {"api": process})
            yield made
        finally:
            await link.close()
            await db.close()
            await process.stop()

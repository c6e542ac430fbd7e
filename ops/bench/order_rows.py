"""Orders as rows, for benches that need many of them at once, and the events that their checkouts would have left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from models.database import new_id
from ops.bench.ad_rows import STATE
from ops.bench.ad_topic import ACTOR, producer
from ops.settings import Settings
from schemas.codec import encode
from schemas.records import CheckoutConverted, OrderSnapshot, ShipTo
from streams.topics import ORDERS

AT_ONCE: Final = 5_000
ON_HAND: Final = 10_000_000
CENTS: Final = 1_000
ADDRESS: Final = '{"line1": "1 Main St", "city": "Portland", "state": "OR", "postal_code": "97201", "country": "US"}'

_STORE: Final = text(
    "INSERT INTO stores (id, name, type, address, state, kyc_status, subscription_active, created_at, updated_at)"
    " VALUES (:id, 'bench', :type, '{}', :state, 'verified', true, :now, :now)"
)
_PRODUCT: Final = text(
    "INSERT INTO products"
    " (id, store_id, sku, title, category, unit, price_cents, moq, active, volume_discounts, created_at, updated_at)"
    " VALUES (:product, :vendor, 'bench', 'bench', 'flower', 'ounce', 1000, 1, true, '[]', :now, :now)"
)
_INVENTORY: Final = text(
    "INSERT INTO inventory (product_id, store_id, on_hand, reserved, updated_at)"
    " VALUES (:product, :vendor, :on_hand, :orders, :now)"
)
_CART: Final = text(
    "INSERT INTO cart_records (id, buyer_store_id, status, currency, valid_until, subtotal_cents, discounts_cents,"
    " total_cents, ok_items, warnings, promos_asked, attribution_tokens, attribution_claims, checkout_group_id,"
    " payment_method, shipping_address, converted_at, created_at, updated_at)"
    " VALUES (:cart, :buyer, 'converted', 'USD', :now, 1000, 0, 1000, 1, '[]', '[]', '[]', '[]', :cart, 'cash',"
    " CAST(:address AS jsonb), :now, :now, :now)"
)
_ORDERS: Final = text(
    "INSERT INTO orders (id, number, checkout_group_id, cart_id, buyer_store_id, vendor_store_id, status, currency,"
    " subtotal_cents, discounts_cents, shipping_cents, total_cents, payment_method, shipping_address, warnings,"
    " nudge_at, expires_at, nudged_at, created_at, updated_at)"
    " SELECT u.id, 'B-' || u.id, u.group_id, :cart, :buyer, :vendor, 'pending', 'USD', 1000, 0, 0, 1000, 'cash',"
    " CAST(:address AS jsonb), '[]', u.nudge_at, u.expires_at, CASE WHEN u.nudged THEN u.nudge_at END, :now, :now"
    " FROM unnest(CAST(:ids AS uuid[]),"
    " CAST(:groups AS uuid[]), CAST(:nudges AS timestamptz[]), CAST(:ends AS timestamptz[]),"
    " CAST(:nudged AS boolean[])) AS u(id, group_id, nudge_at, expires_at, nudged)"
)
_LINES: Final = text(
    "INSERT INTO order_line_items (id, order_id, buyer_store_id, vendor_store_id, position, cart_item_id, product_id,"
    " title, category, quantity, unit_price_cents, moq, line_subtotal_cents, line_total_cents, status, warnings)"
    " SELECT uuidv7(), id, :buyer, :vendor, 0, uuidv7(), :product, 'bench', 'flower', 1, 1000, 1, 1000, 1000,"
    " 'pending', '[]' FROM unnest(CAST(:ids AS uuid[])) AS u(id)"
)
_INTENTS: Final = text(
    "INSERT INTO payment_intents (id, order_id, buyer_store_id, vendor_store_id, method, status, amount_cents,"
    " created_at, updated_at) SELECT uuidv7(), id, :buyer, :vendor, 'cash', 'unpaid', 1000, :now, :now"
    " FROM unnest(CAST(:ids AS uuid[])) AS u(id)"
)


@dataclass(frozen=True, slots=True)
class BenchOrder:
    """A pending order, in a checkout group of its own."""

    id: UUID
    group: UUID
    nudge_at: datetime
    expires_at: datetime
    nudged: bool = False


class Orders:
    """Orders of one line each between two stores of their own. They hold what they are for of a product's stock.

    Those whose time to be nudged is past were nudged.
    """

    def __init__(self, deadlines: Sequence[tuple[datetime, datetime]]) -> None:
        now = datetime.now(UTC)
        self.orders = [BenchOrder(new_id(), new_id(), nudge, end, nudge < now) for nudge, end in deadlines]
        self._common: dict[str, Any] = {name: new_id() for name in ("buyer", "vendor", "product", "cart")}
        self._common |= {"now": now, "address": ADDRESS}

    async def insert(self, settings: Settings) -> None:
        """As rows, without any event."""
        common = self._common
        stores = [{"id": common[kind], "type": kind, "state": STATE, "now": common["now"]} for kind in STORE_TYPES]
        engine = create_async_engine(settings.sqlalchemy_url)
        try:
            async with engine.begin() as tx:
                await tx.execute(_STORE, stores)
                for statement in (_PRODUCT, _INVENTORY, _CART):
                    await tx.execute(statement, common | {"on_hand": ON_HAND, "orders": len(self.orders)})
            for begin in range(0, len(self.orders), AT_ONCE):
                async with engine.begin() as tx:
                    rows = common | _columns(self.orders[begin : begin + AT_ONCE])
                    for statement in (_ORDERS, _LINES, _INTENTS):
                        await tx.execute(statement, rows)
        finally:
            await engine.dispose()

    async def tell(self, brokers: str) -> None:
        """What their checkouts would have told, an event each, straight into the topic."""
        async with producer(brokers) as sender:
            for begin in range(0, len(self.orders), AT_ONCE):
                part = self.orders[begin : begin + AT_ONCE]
                sent = [
                    await sender.send(ORDERS, encode(self._event(one)), key=str(one.group).encode()) for one in part
                ]
                await asyncio.gather(*sent)

    def _event(self, order: BenchOrder) -> CheckoutConverted:
        common = self._common
        return CheckoutConverted(
            event_id=order.group,
            occurred_at=common["now"],
            actor=ACTOR,
            checkout_group_id=order.group,
            cart_id=common["cart"],
            buyer_store_id=common["buyer"],
            currency="USD",
            total_cents=CENTS,
            orders=[self._snapshot(order)],
        )

    def _snapshot(self, order: BenchOrder) -> OrderSnapshot:
        common = self._common
        return OrderSnapshot(
            order_id=order.id,
            number=f"B-{order.id}",
            checkout_group_id=order.group,
            cart_id=common["cart"],
            buyer_store_id=common["buyer"],
            vendor_store_id=common["vendor"],
            status="pending",
            currency="USD",
            subtotal_cents=CENTS,
            discounts_cents=0,
            shipping_cents=0,
            total_cents=CENTS,
            payment_method="cash",
            payment_intent_id=order.id,
            payment_status="unpaid",
            ship_to=ShipTo(city="Portland", state=STATE, postal_code="97201", country="US"),
            created_at=common["now"],
            nudge_at=order.nudge_at,
            expires_at=order.expires_at,
            lines=[],
            nudged_at=order.nudge_at if order.nudged else None,
        )


STORE_TYPES: Final = ("buyer", "vendor")


def _columns(orders: Sequence[BenchOrder]) -> dict[str, Any]:
    return {
        "ids": [order.id for order in orders],
        "groups": [order.group for order in orders],
        "nudges": [order.nudge_at for order in orders],
        "ends": [order.expires_at for order in orders],
        "nudged": [order.nudged for order in orders],
    }

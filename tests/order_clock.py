"""Drives orders by the test clock: a site with an API and a relay on it, orders placed at a time, the clock moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from models.outbox import OutboxArchive, OutboxEvent
from schemas.codec import decode
from tests.ads_driver import execute
from tests.api_driver import Api, Person, ok
from tests.cart_shop import open_shop, quote, stock
from tests.checkout_driver import check_out
from tests.order_driver import Placed

TABLES = (OutboxEvent.__tablename__, OutboxArchive.__tablename__)
HALF, TTL = timedelta(hours=12), timedelta(hours=24)


@dataclass
class Market:
    """A running API, one vendor, one buyer, an admin who moves the clock."""

    api: Api
    vendor: Person
    buyer: Person
    admin: Person
    products: list[str] = field(default_factory=list)

    @classmethod
    async def opened(cls, api: Api) -> Market:
        return cls(api, await open_shop(api), await api.register("buyer"), await api.register_admin())

    async def place(self, now: datetime) -> Placed:
        """An order of three pieces of a product of its own."""
        product = await stock(self.api, self.vendor)
        cart = await quote(self.api, self.buyer, (product, 3), now=now)
        done = await check_out(self.api, self.buyer, cart, now=now)
        return Placed(self.buyer, self.vendor, [product], done["vendor_orders"][0])

    async def clock(self) -> datetime:
        """The logical time, in whole seconds; at least a minute after the last time that was set."""
        (row,) = await execute(self.api, "SELECT max(floor_at) AS floor FROM logical_clock")
        now = max(row.floor or datetime.now(UTC), datetime.now(UTC)) + timedelta(minutes=1)
        return now.replace(microsecond=0)

    async def move(self, now: datetime) -> None:
        """Set the logical clock."""
        async with self.api.as_(self.admin) as client:
            ok(await client.post("/api/admin/ops/clock", json={"now": now.isoformat()}))

    async def events(self, *orders: Placed) -> Sequence[Any]:
        """What was told of the orders after their checkouts, published or not, in order."""
        groups = [order.order["checkout_group_id"] for order in orders]
        found = []
        for table in TABLES:
            found += await execute(
                self.api,
                f"SELECT seq, payload FROM {table} WHERE aggregatetype = 'orders' AND type <> 'checkout_converted'"
                " AND aggregateid = ANY (:groups)",
                groups=groups,
            )
        return [decode(row.payload) for row in sorted(found, key=lambda row: row.seq)]

    async def happened(self, *orders: Placed) -> Counter[tuple[str, str]]:
        """How often each event came of each order: (type, order id)."""
        return Counter((one.event_type, str(one.order.order_id)) for one in await self.events(*orders))

    async def heard(self, order: Placed) -> list[tuple[str, str]]:
        """Which stores were asked to be told of what about an order: (store id, kind), sorted."""
        found = []
        for table in TABLES:
            found += await execute(self.api, f"SELECT payload FROM {table} WHERE type = 'notification_requested'")
        events: list[Any] = [decode(row.payload) for row in found]
        return sorted((str(one.store_id), one.kind) for one in events if str(one.subject_id) == order.id)

    async def row(self, order: Placed) -> Any:
        """The order's row with its intent's status and what is held of its product."""
        (row,) = await execute(
            self.api,
            "SELECT o.*, p.status AS intent, i.reserved FROM orders o JOIN payment_intents p ON p.order_id = o.id"
            " JOIN order_line_items l ON l.order_id = o.id JOIN inventory i ON i.product_id = l.product_id"
            " WHERE o.id = :id",
            id=UUID(order.id),
        )
        return row

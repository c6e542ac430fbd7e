"""What a checkout came to, as it is kept on the cart and its orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from models.cart.reads import HeldCart
from models.database import Driver
from models.orders import reads as orders
from models.orders.reads import Order


class Checkout(NamedTuple):
    """A converted cart and its orders; `repeated`: it had been converted before."""

    cart: HeldCart
    vendor_orders: Sequence[Order]
    repeated: bool

    @property
    def checkout_group_id(self) -> UUID:
        assert self.cart.checkout_group_id is not None, "a converted cart has a group"
        return self.cart.checkout_group_id

    @property
    def rejected_vendors(self) -> list[dict[str, Any]]:
        return self.cart.rejected_vendors or []

    @property
    def total_cents(self) -> int:
        return sum(order.total_cents for order in self.vendor_orders)


async def of_converted(db: Driver, cart: HeldCart) -> Checkout:
    """The checkout that has converted the cart."""
    assert cart.checkout_group_id is not None, "a converted cart has a group"
    return Checkout(cart, await orders.group(db, cart.checkout_group_id), repeated=True)

"""Queries on carts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from models.cart.rules import CartStatus
from models.cart.tables import CartRecord
from models.database import Driver, send
from models.errors import NotFound

ABSENT: Final = "there is no such cart"


async def active(tx: AsyncSession, *, buyer_store_id: UUID) -> CartRecord:
    """The store's active cart with its lines and groups. NotFound where there is none."""
    query = select(CartRecord).where(
        CartRecord.buyer_store_id == buyer_store_id, CartRecord.status == CartStatus.ACTIVE
    )
    whole = query.options(selectinload(CartRecord.items), selectinload(CartRecord.vendor_groups))
    found = await tx.scalar(whole.execution_options(populate_existing=True))
    if found is None:
        raise NotFound(ABSENT)
    return found


# -- for checkout: of each row, in the order of the columns read, what a checkout needs -------------------------------


class HeldCart(NamedTuple):
    """A cart; what stands from `checkout_group_id` on is there once it is converted."""

    id: UUID
    buyer_store_id: UUID
    status: str
    currency: str
    valid_until: datetime
    attribution_tokens: list[str]
    checkout_group_id: UUID | None
    payment_method: str | None
    shipping_address: dict[str, Any] | None
    shipping_line: dict[str, Any] | None
    rejected_vendors: list[dict[str, Any]] | None

    def converted(
        self,
        *,
        checkout_group_id: UUID,
        payment_method: str,
        shipping_address: dict[str, Any],
        shipping_line: dict[str, Any] | None,
        rejected_vendors: Sequence[dict[str, Any]] = (),
    ) -> HeldCart:
        """The cart as it is after its checkout. `rejected_vendors`, of whom nothing was ordered:
        {vendor_store_id, reason}."""
        return self._replace(
            status=CartStatus.CONVERTED,
            checkout_group_id=checkout_group_id,
            payment_method=payment_method,
            shipping_address=shipping_address,
            shipping_line=shipping_line,
            rejected_vendors=list(rejected_vendors),
        )


class HeldLine(NamedTuple):
    """A line of the quote. One that is not ok may be of nobody's product."""

    id: UUID
    product_id: UUID
    vendor_store_id: UUID | None
    title: str | None
    category: str | None
    quantity: int
    unit_price_cents: int
    moq: int | None
    max_qty: int | None
    applied_volume_discount: dict[str, Any] | None
    line_subtotal_cents: int
    line_total_cents: int
    status: str
    warnings: list[dict[str, Any]]


class HeldGroup(NamedTuple):
    """What the quote says of one vendor."""

    subtotal_cents: int
    discounts_cents: int
    promo: dict[str, Any] | None
    warnings: list[dict[str, Any]]


class HeldQuote(NamedTuple):
    """The quote in force."""

    lines: Sequence[HeldLine]
    groups: Mapping[UUID, HeldGroup]


async def hold(db: Driver, cart_id: UUID, *, buyer_store_id: UUID) -> HeldCart:
    """One of the store's carts, of any status, held until the transaction ends. NotFound for any other id."""
    rows = await send(db, _HOLD, cart_id, buyer_store_id)
    if not rows:
        raise NotFound(ABSENT)
    return HeldCart._make(rows[0])


async def quote_of(db: Driver, cart_id: UUID) -> HeldQuote:
    """What a cart that the caller holds says. In a statement of its own: that of `hold` may have begun before the quote
    which it waited for."""
    rows = await send(db, _QUOTE, cart_id)
    lines = [HeldLine._make(row[:_OF_LINE]) for row in rows]
    groups = {line.vendor_store_id: HeldGroup._make(row[_OF_LINE:]) for line, row in zip(lines, rows, strict=True)}
    return HeldQuote(lines, {vendor: group for vendor, group in groups.items() if vendor is not None})


_OF_LINE: Final = len(HeldLine._fields)
_HOLD: Final = (
    f"SELECT {', '.join(HeldCart._fields)} FROM cart_records WHERE id = $1 AND buyer_store_id = $2 FOR UPDATE"
)
_QUOTE: Final = (
    f"SELECT {', '.join(f'line.{name}' for name in HeldLine._fields)},"
    f" {', '.join(f'of_vendor.{name}' for name in HeldGroup._fields)}"
    " FROM cart_items line LEFT JOIN cart_vendor_groups of_vendor USING (cart_id, vendor_store_id)"
    " WHERE cart_id = $1 ORDER BY line.position"
)

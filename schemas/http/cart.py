"""Quotes and carts over HTTP. What a buyer sends is what they want, never what it costs."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from schemas.http.common import Body, Id, Name, Shape, refuse_nul

ITEMS_MAX: Final = 100
TOKENS_MAX: Final = 20
QUANTITY_MAX: Final = 10_000_000  #: of one line; with it no sum of a cart leaves 64 bits

LineStatus = Literal["ok", "not_available", "invalid"]
GroupStatus = Literal["ok", "invalid"]
CartStatus = Literal["active", "converted"]
PaymentMethod = Literal["cash", "ach"]
Code = Literal[
    "clamped_to_moq",
    "clamped_to_max_qty",
    "insufficient_stock",
    "vendor_not_eligible",
    "product_unavailable",
    "invalid_promo",
]


class QuoteItem(Body):
    product_id: Id
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)]


class QuotePromo(Body):
    """A vendor's promo; its code ignores case."""

    vendor_store_id: Id
    code: Name


def _each_once(keys: Iterable[Hashable], what: str) -> None:
    seen = list(keys)
    if len(set(seen)) < len(seen):
        raise ValueError(f"each {what} may be named once")


def _products_once(items: list[QuoteItem]) -> list[QuoteItem]:
    _each_once((item.product_id for item in items), "product_id")
    return items


def _vendors_once(promos: list[QuotePromo]) -> list[QuotePromo]:
    _each_once((promo.vendor_store_id for promo in promos), "vendor_store_id")
    return promos


class NewQuote(Body):
    """What the buyer wants. Ad tokens say what led them here; one that is not valid is left out without a word."""

    items: Annotated[list[QuoteItem], Field(min_length=1, max_length=ITEMS_MAX), AfterValidator(_products_once)]
    promos: Annotated[list[QuotePromo], AfterValidator(_vendors_once)] = Field(
        default_factory=list, max_length=ITEMS_MAX
    )
    attribution_tokens: list[str] = Field(default_factory=list, max_length=TOKENS_MAX)

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """As of every body, but for tokens: those with a NUL are not valid, and so not stored."""
        if isinstance(value, dict):
            refuse_nul({name: field for name, field in value.items() if name != "attribution_tokens"})
        return value


class WarningOut(Shape):
    code: Code
    message: str


class VolumeDiscountOut(Shape):
    """The tier that applied: `value` is in basis points (percent) or cents a unit (fixed price)."""

    min_qty: int
    type: Literal["percent", "fixed_price"]
    value: int
    discount_cents: int


class PromoOut(Shape):
    """The promo that applied: `value` is in basis points (percent) or cents (amount)."""

    id: UUID
    code: str
    type: Literal["percent", "amount"]
    value: int
    discount_cents: int


class CartItemOut(Shape):
    """A line. Only `ok` lines count in totals; one of an unknown product has no vendor and no price."""

    id: UUID
    product_id: UUID
    vendor_store_id: UUID | None
    title: str | None
    requested_qty: int
    quantity: int
    unit_price_cents: int = Field(description="the list price")
    applied_volume_discount: VolumeDiscountOut | None
    line_subtotal_cents: int
    line_total_cents: int
    moq: int | None
    max_qty: int | None
    status: LineStatus
    warnings: list[WarningOut]


class CartGroupOut(Shape):
    """A vendor's part of the cart; `ok` when something can be ordered of them."""

    vendor_store_id: UUID
    status: GroupStatus
    promo: PromoOut | None
    subtotal_cents: int
    discounts_cents: int = Field(description="volume and promo")
    total_cents: int
    warnings: list[WarningOut]


class CartOut(Shape):
    """The store's cart as it was last quoted; the quote is good before `valid_until`."""

    id: UUID
    status: CartStatus
    currency: str
    valid_until: datetime
    items: list[CartItemOut]
    vendor_groups: list[CartGroupOut]
    subtotal_cents: int
    discounts_cents: int
    total_cents: int
    warnings: list[WarningOut]
    attribution_tokens: list[str] = Field(description="those that may attribute the checkout")
    checkout_group_id: UUID | None
    payment_method: PaymentMethod | None
    shipping_line: dict[str, Any] | None
    converted_at: datetime | None
    created_at: datetime
    updated_at: datetime

"""Cart arithmetic: what a quote says of each line, each vendor's group and the whole. Pure, in integer cents.

A line is judged in this order: is the product known, may its vendor sell, is it offered to this buyer, then the
quantity is raised to `moq` and lowered to `max_qty`, then held against the stock. Only `ok` lines count in totals; the
others are priced all the same, so that the buyer sees what they would cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from models.catalog.rules import BP, DiscountType, PromoType, VolumeDiscount
from models.errors import CartNotActive

CURRENCY: Final = "USD"


class CartStatus(StrEnum):
    ACTIVE = "active"
    CONVERTED = "converted"


class LineStatus(StrEnum):
    OK = "ok"
    NOT_AVAILABLE = "not_available"
    INVALID = "invalid"


class GroupStatus(StrEnum):
    """`ok` when something can be ordered of the vendor."""

    OK = "ok"
    INVALID = "invalid"


class WarningCode(StrEnum):
    CLAMPED_TO_MOQ = "clamped_to_moq"
    CLAMPED_TO_MAX_QTY = "clamped_to_max_qty"
    INSUFFICIENT_STOCK = "insufficient_stock"
    VENDOR_NOT_ELIGIBLE = "vendor_not_eligible"
    PRODUCT_UNAVAILABLE = "product_unavailable"
    INVALID_PROMO = "invalid_promo"


class Notice(NamedTuple):
    """A warning, as the buyer gets it."""

    code: WarningCode
    message: str


class AppliedTier(NamedTuple):
    """The volume discount of a line."""

    min_qty: int
    type: DiscountType
    value: int
    discount_cents: int


class Promo(NamedTuple):
    """A vendor's promo that is in force: `percent` in basis points, `amount` in cents."""

    id: UUID
    code: str
    type: PromoType
    value: int


class AppliedPromo(NamedTuple):
    id: UUID
    code: str
    type: PromoType
    value: int
    discount_cents: int


@dataclass(frozen=True, slots=True)
class Product:
    """A product as this buyer meets it."""

    id: UUID
    vendor_store_id: UUID
    title: str
    category: str
    price_cents: int
    moq: int
    max_qty: int | None
    available: int
    tiers: Sequence[VolumeDiscount]
    offered: bool  #: active, not deleted, in the buyer's state
    vendor_may_sell: bool


class Wanted(NamedTuple):
    """A line as the buyer asks for it."""

    product_id: UUID
    quantity: int


class AskedPromo(NamedTuple):
    vendor_store_id: UUID
    code: str


@dataclass(frozen=True, slots=True)
class Line:
    """A priced line; `product` is None where nobody knows it."""

    product_id: UUID
    product: Product | None
    requested_qty: int
    quantity: int
    unit_price_cents: int
    applied: AppliedTier | None
    subtotal_cents: int
    total_cents: int
    status: LineStatus
    warnings: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """What the quote says of one vendor."""

    vendor_store_id: UUID
    status: GroupStatus
    promo: AppliedPromo | None
    subtotal_cents: int
    discounts_cents: int  #: volume and promo
    total_cents: int
    warnings: tuple[Notice, ...]


@dataclass(frozen=True, slots=True)
class Quote:
    lines: tuple[Line, ...]
    groups: tuple[Group, ...]
    subtotal_cents: int
    discounts_cents: int
    total_cents: int
    warnings: tuple[Notice, ...]


NOT_SOLD: Final = Notice(WarningCode.VENDOR_NOT_ELIGIBLE, "the vendor may not sell at present")
UNKNOWN: Final = Notice(WarningCode.PRODUCT_UNAVAILABLE, "there is no such product")
NOT_OFFERED: Final = Notice(WarningCode.PRODUCT_UNAVAILABLE, "the product is not offered to you at present")


def check_convertible(status: CartStatus, *, valid_until: datetime, now: datetime) -> None:
    """CartNotActive unless a checkout may still take the quote: it is good before `valid_until`."""
    if status is not CartStatus.ACTIVE:
        raise CartNotActive("the cart has been converted")
    if now >= valid_until:
        raise CartNotActive("the quote has expired: ask for a new one")


def share(cents: int, basis_points: int) -> int:
    """That part of an amount, rounded once, half to even."""
    whole, rest = divmod(cents * basis_points, BP)
    return whole + (2 * rest > BP or (2 * rest == BP and whole % 2 == 1))


def tier_for(tiers: Iterable[VolumeDiscount], quantity: int) -> VolumeDiscount | None:
    """The tier with the highest `min_qty` not above the quantity."""
    return max((tier for tier in tiers if tier.min_qty <= quantity), key=lambda tier: tier.min_qty, default=None)


def volume_discount(tier: VolumeDiscount, *, unit_price_cents: int, quantity: int) -> int:
    """What the tier takes off a line: never more than the line, and never less than nothing."""
    subtotal = unit_price_cents * quantity
    off = share(subtotal, tier.value) if tier.type is DiscountType.PERCENT else subtotal - tier.value * quantity
    return min(max(off, 0), subtotal)


def promo_discount(promo: Promo, total_cents: int) -> int:
    """What the promo takes off a group's sum of line totals, which never falls below zero."""
    off = share(total_cents, promo.value) if promo.type is PromoType.PERCENT else promo.value
    return min(off, total_cents)


def clamp(product: Product, requested: int) -> tuple[int, tuple[Notice, ...]]:
    """The quantity that the product's bounds allow, and what was done to it. `max_qty` has the last word."""
    quantity, notices = requested, []
    if quantity < product.moq:
        quantity = product.moq
        notices.append(Notice(WarningCode.CLAMPED_TO_MOQ, f"the smallest order is {product.moq}"))
    if product.max_qty is not None and quantity > product.max_qty:
        quantity = product.max_qty
        notices.append(Notice(WarningCode.CLAMPED_TO_MAX_QTY, f"the largest order is {product.max_qty}"))
    return quantity, tuple(notices)


def judge(product: Product, requested: int) -> tuple[LineStatus, int, tuple[Notice, ...]]:
    """Status, quantity and warnings of a line whose product is known. What is not on sale keeps its quantity."""
    if not product.vendor_may_sell:
        return LineStatus.INVALID, requested, (NOT_SOLD,)
    if not product.offered:
        return LineStatus.NOT_AVAILABLE, requested, (NOT_OFFERED,)
    quantity, notices = clamp(product, requested)
    if quantity > product.available:
        short = Notice(WarningCode.INSUFFICIENT_STOCK, f"{product.available} are available")
        return LineStatus.NOT_AVAILABLE, quantity, (*notices, short)
    return LineStatus.OK, quantity, notices


def price_line(wanted: Wanted, product: Product | None) -> Line:
    """The line, judged and priced."""
    if product is None:
        return _unknown(wanted)
    status, quantity, notices = judge(product, wanted.quantity)
    subtotal = product.price_cents * quantity
    applied = _applied_tier(product, quantity)
    return Line(
        product_id=wanted.product_id,
        product=product,
        requested_qty=wanted.quantity,
        quantity=quantity,
        unit_price_cents=product.price_cents,
        applied=applied,
        subtotal_cents=subtotal,
        total_cents=subtotal - (applied.discount_cents if applied else 0),
        status=status,
        warnings=notices,
    )


def _unknown(wanted: Wanted) -> Line:
    return Line(
        product_id=wanted.product_id,
        product=None,
        requested_qty=wanted.quantity,
        quantity=wanted.quantity,
        unit_price_cents=0,
        applied=None,
        subtotal_cents=0,
        total_cents=0,
        status=LineStatus.INVALID,
        warnings=(UNKNOWN,),
    )


def _applied_tier(product: Product, quantity: int) -> AppliedTier | None:
    tier = tier_for(product.tiers, quantity)
    if tier is None:
        return None
    return AppliedTier(*tier, volume_discount(tier, unit_price_cents=product.price_cents, quantity=quantity))


def price_group(vendor_store_id: UUID, lines: Sequence[Line], asked: AskedPromo | None, promo: Promo | None) -> Group:
    """The vendor's group of `lines`. `promo` is what the code asked for stands for; None: it is not valid."""
    counted = [line for line in lines if line.status is LineStatus.OK]
    subtotal = sum(line.subtotal_cents for line in counted)
    lines_total = sum(line.total_cents for line in counted)
    applied = None if promo is None else AppliedPromo(*promo, promo_discount(promo, lines_total))
    total = lines_total - (applied.discount_cents if applied else 0)
    warnings = [NOT_SOLD] if any(NOT_SOLD in line.warnings for line in lines) else []
    if asked is not None and promo is None:
        warnings.append(Notice(WarningCode.INVALID_PROMO, f"the promo {asked.code} is not valid for this vendor now"))
    return Group(
        vendor_store_id=vendor_store_id,
        status=GroupStatus.OK if counted else GroupStatus.INVALID,
        promo=applied,
        subtotal_cents=subtotal,
        discounts_cents=subtotal - total,
        total_cents=total,
        warnings=tuple(warnings),
    )


def price_cart(
    wanted: Sequence[Wanted],
    products: Mapping[UUID, Product],
    asked: Sequence[AskedPromo],
    promos: Mapping[UUID, Promo],
) -> Quote:
    """The quote for what is wanted. `promos` has, by vendor, those of the asked that are in force."""
    lines = tuple(price_line(one, products.get(one.product_id)) for one in wanted)
    by_vendor: dict[UUID, list[Line]] = {}
    for line in lines:
        if line.product is not None:
            by_vendor.setdefault(line.product.vendor_store_id, []).append(line)
    codes = {one.vendor_store_id: one for one in asked}
    groups = tuple(
        price_group(vendor, its, codes.get(vendor), promos.get(vendor) if vendor in codes else None)
        for vendor, its in by_vendor.items()
    )
    return Quote(
        lines=lines,
        groups=groups,
        subtotal_cents=sum(group.subtotal_cents for group in groups),
        discounts_cents=sum(group.discounts_cents for group in groups),
        total_cents=sum(group.total_cents for group in groups),
        warnings=tuple(
            Notice(WarningCode.INVALID_PROMO, f"the promo {one.code} is for a vendor that is not in the cart")
            for one in asked
            if one.vendor_store_id not in by_vendor
        ),
    )

"""The catalogue: kinds, bounds, volume discounts, promo codes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from models.errors import Conflict, FieldError, ValidationFailed

BP: Final = 10_000  #: basis points of the whole


class Category(StrEnum):
    FLOWER = "flower"
    PREROLL = "preroll"
    EDIBLE = "edible"
    CONCENTRATE = "concentrate"
    VAPE = "vape"
    BEVERAGE = "beverage"
    TINCTURE = "tincture"
    TOPICAL = "topical"
    SEED = "seed"
    ACCESSORY = "accessory"


class Sort(StrEnum):
    """How the shop is sorted; equal ones by id."""

    NEWEST = "newest"
    PRICE_ASC = "price_asc"
    PRICE_DESC = "price_desc"


class DiscountType(StrEnum):
    PERCENT = "percent"  #: basis points
    FIXED_PRICE = "fixed_price"  #: cents a unit


class VolumeDiscount(NamedTuple):
    """A tier: in force from `min_qty` on, until a higher one is."""

    min_qty: int
    type: DiscountType
    value: int

    def unit_price(self, price_cents: int) -> int:
        """What a unit costs in this tier, exactly: in cents, times BP."""
        return price_cents * (BP - self.value) if self.type is DiscountType.PERCENT else self.value * BP


def check_terms(*, price_cents: int, moq: int, max_qty: int | None, tiers: Sequence[VolumeDiscount]) -> None:
    """ValidationFailed, naming each field, unless price, bounds and tiers (as they were sent) fit each other."""
    errors = [*_about_bounds(moq, max_qty), *_about_tiers(price_cents, tiers)]
    if errors:
        raise ValidationFailed(errors=errors)


def _about_bounds(moq: int, max_qty: int | None) -> Iterable[FieldError]:
    if max_qty is not None and max_qty < moq:
        yield FieldError("max_qty", "max_qty_below_moq", f"the largest order cannot be below the smallest, {moq}")


def _about_tiers(price_cents: int, tiers: Sequence[VolumeDiscount]) -> Iterable[FieldError]:
    """A buyer of more never pays more a unit: each tier is cheaper than the one before, the first than the list."""
    before_qty, before_price = 0, price_cents * BP
    for place, tier in sorted(enumerate(tiers), key=lambda numbered: numbered[1].min_qty):
        price = tier.unit_price(price_cents)
        if tier.min_qty == before_qty:
            yield FieldError(f"volume_discounts.{place}.min_qty", "tiers_overlap", "another tier begins here")
        elif price >= before_price:
            message = "a unit must cost less than with the smaller quantities before"
            yield FieldError(f"volume_discounts.{place}.value", "tiers_rise", message)
        before_qty, before_price = tier.min_qty, price


def in_order(tiers: Iterable[VolumeDiscount]) -> list[VolumeDiscount]:
    """As they are kept: by quantity."""
    return sorted(tiers, key=lambda tier: tier.min_qty)


def check_on_hand(on_hand: int, reserved: int) -> None:
    """Conflict when less would be there than orders have reserved."""
    if on_hand < reserved:
        raise Conflict(f"{reserved} are reserved by orders: on_hand cannot be below that")


class PromoType(StrEnum):
    PERCENT = "percent"  #: basis points
    AMOUNT = "amount"  #: cents


def fold_code(code: str) -> str:
    """What two spellings of a promo code have in common: they ignore case."""
    return code.strip().casefold()


def in_force(starts_at: datetime | None, ends_at: datetime | None, now: datetime) -> bool:
    """A promo's window has its start and not its end."""
    return (starts_at is None or starts_at <= now) and (ends_at is None or now < ends_at)

"""The catalogue over HTTP: products, stock, promos."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.http.common import Body, Id, Name, Prose, Shape, Time, without_nul

PRICE_CENTS_MAX: Final = 100_000_000  #: a million dollars a unit
QTY_MAX: Final = 1_000_000
ON_HAND_MAX: Final = 1_000_000_000
OFF_CENTS_MAX: Final = 1_000_000_000
BP: Final = 10_000
TIERS_MAX: Final = 20
GALLERY_MAX: Final = 20

Category = Literal[
    "flower", "preroll", "edible", "concentrate", "vape", "beverage", "tincture", "topical", "seed", "accessory"
]
Unit = Literal["unit", "gram", "ounce", "pound", "case"]
Sort = Literal["newest", "price_asc", "price_desc"]
DiscountType = Literal["percent", "fixed_price"]
PromoType = Literal["percent", "amount"]

Sku = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
Code = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
PriceCents = Annotated[int, Field(ge=1, le=PRICE_CENTS_MAX, description="list price of a unit")]
Quantity = Annotated[int, Field(ge=1, le=QTY_MAX)]
Gallery = Annotated[list[Id], Field(max_length=GALLERY_MAX, description="in the order shown, each once")]
PriceBound = Annotated[int, Field(ge=0, le=10**12)]


Words = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=200),
    AfterValidator(without_nul),
    Field(description='words of title and description; "a phrase", -without, or'),
]


class VolumeDiscountIn(Body):
    """A tier, in force from `min_qty` on: `percent` in basis points off, or `fixed_price` in cents a unit."""

    min_qty: Quantity
    type: DiscountType
    value: Annotated[int, Field(ge=1, le=PRICE_CENTS_MAX)]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.type == "percent" and self.value > BP:
            raise ValueError(f"a percentage is at most {BP} basis points")
        return self


Tiers = Annotated[list[VolumeDiscountIn], Field(max_length=TIERS_MAX, description="each cheaper than the one before")]


class NewProduct(Body):
    """A product to be sold: visible to buyers while it is active and its vendor may sell."""

    sku: Sku
    title: Name
    description: Prose | None = None
    category: Category
    unit: Unit
    price_cents: PriceCents
    moq: Quantity = 1
    max_qty: Quantity | None = None
    active: bool = True
    volume_discounts: Tiers = Field(default_factory=list)
    gallery_media_ids: Gallery = Field(default_factory=list)
    coa_media_id: Id | None = None


class ChangeProduct(Body):
    """What to change; what is not there stays. `description`, `max_qty` and `coa_media_id` may become null."""

    sku: Sku | None = None
    title: Name | None = None
    description: Prose | None = None
    category: Category | None = None
    unit: Unit | None = None
    price_cents: PriceCents | None = None
    moq: Quantity | None = None
    max_qty: Quantity | None = None
    active: bool | None = None
    volume_discounts: Tiers | None = None
    gallery_media_ids: Gallery | None = None
    coa_media_id: Id | None = None

    @model_validator(mode="after")
    def _no_null(self) -> Self:
        for name in self.model_fields_set - {"description", "max_qty", "coa_media_id"}:
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self

    def changes(self) -> dict[str, Any]:
        """The fields that were sent."""
        return self.model_dump(exclude_unset=True)


class VolumeDiscountOut(Shape):
    min_qty: int
    type: DiscountType
    value: int


class PictureOut(Shape):
    """Attached media; `url` is a signed read."""

    media_id: UUID
    content_type: str
    url: str


class VendorOut(Shape):
    """Who sells it."""

    store_id: UUID
    name: str
    logo_url: str | None


class ProductOut(Shape):
    """A product, the same to its vendor and to buyers."""

    id: UUID
    store_id: UUID
    sku: str
    title: str
    description: str | None
    category: Category
    unit: Unit
    price_cents: int
    currency: Literal["USD"] = "USD"
    moq: int
    max_qty: int | None
    active: bool
    volume_discounts: list[VolumeDiscountOut]
    gallery_media_ids: list[UUID]
    gallery: list[PictureOut]
    coa_media_id: UUID | None
    coa: PictureOut | None = Field(description="certificate of analysis")
    vendor: VendorOut
    available_qty: int = Field(description="what is there and not reserved")
    created_at: datetime
    updated_at: datetime


class SetStock(Body):
    on_hand: Annotated[int, Field(ge=0, le=ON_HAND_MAX)]


class StockOut(Shape):
    """`available` is what is on hand and not reserved by orders."""

    product_id: UUID
    on_hand: int
    reserved: int
    available: int


class StockProductOut(Shape):
    """Of which product."""

    id: UUID
    sku: str
    title: str
    category: Category
    unit: Unit
    price_cents: int
    active: bool


class StockLineOut(StockOut):
    product: StockProductOut
    updated_at: datetime


class NewPromo(Body):
    """`percent` in basis points or `amount` in cents off a cart's lines of this vendor, from `starts_at` to before
    `ends_at`."""

    code: Code
    type: PromoType
    value: Annotated[int, Field(ge=1, le=OFF_CENTS_MAX)]
    starts_at: Time | None = None
    ends_at: Time | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.type == "percent" and self.value > BP:
            raise ValueError(f"a percentage is at most {BP} basis points")
        if self.starts_at is not None and self.ends_at is not None and self.ends_at <= self.starts_at:
            raise ValueError("ends_at must be after starts_at")
        return self


class PromoOut(Shape):
    id: UUID
    code: str
    type: PromoType
    value: int
    starts_at: datetime | None
    ends_at: datetime | None
    created_at: datetime

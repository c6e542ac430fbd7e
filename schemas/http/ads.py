"""Ads over HTTP: what a vendor sends and sees, what serve and tracking answer."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from schemas.http.common import Body, Name, Shape, Time

Placement = Literal["home", "category", "search"]
TargetType = Literal["store", "product"]
AdStatus = Literal["draft", "active", "paused", "archived"]

BidCpmCents = Annotated[int, Field(ge=1, le=100_000, description="price of a thousand impressions")]
DailyBudgetCents = Annotated[int, Field(ge=100, le=10_000_000, description="of a UTC day")]
Reference = Annotated[UUID, Field(strict=False)]  #: to an object that may not exist: then 404


class CreateAd(Body):
    """A new ad; it is a draft until it is activated."""

    name: Name
    billing_model: Literal["cpm"] = "cpm"
    placement: Placement
    target_type: TargetType
    target_product_id: Reference | None = None
    bid_cpm_cents: BidCpmCents
    daily_budget_cents: DailyBudgetCents
    starts_at: Time
    ends_at: Time | None = None
    headline: Name
    creative_media_id: Reference | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_target(self.target_type, self.target_product_id)
        check_flight(self.starts_at, self.ends_at)
        return self


class ChangeAd(Body):
    """What to change; a field that is not there stays. `ends_at` and `creative_media_id` may be taken away by null.

    An active ad keeps its placement and target (pause it first, or in the same request); an archived one is final.
    """

    status: Literal["active", "paused", "archived"] | None = None
    name: Name | None = None
    placement: Placement | None = None
    target_type: TargetType | None = None
    target_product_id: Reference | None = None
    bid_cpm_cents: BidCpmCents | None = None
    daily_budget_cents: DailyBudgetCents | None = None
    starts_at: Time | None = None
    ends_at: Time | None = None
    headline: Name | None = None
    creative_media_id: Reference | None = None

    @model_validator(mode="after")
    def _no_null(self) -> Self:
        for name in self.model_fields_set - {"ends_at", "creative_media_id", "target_product_id"}:
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self

    def changes(self) -> dict[str, Any]:
        """The fields that were sent."""
        return self.model_dump(exclude_unset=True)


def check_target(target_type: str, target_product_id: UUID | None) -> None:
    """ValueError unless a product ad names its product, and a store ad none."""
    if (target_type == "product") != (target_product_id is not None):
        raise ValueError("target_product_id goes with target_type product, and only with it")


def check_flight(starts_at: datetime, ends_at: datetime | None) -> None:
    """ValueError unless the flight ends after it starts."""
    if ends_at is not None and ends_at <= starts_at:
        raise ValueError("ends_at must be after starts_at")


class AdOut(Shape):
    """An ad as its vendor sees it."""

    id: UUID
    store_id: UUID
    name: str
    billing_model: Literal["cpm"]
    placement: Placement
    target_type: TargetType
    target_product_id: UUID | None
    bid_cpm_cents: int
    daily_budget_cents: int
    starts_at: datetime
    ends_at: datetime | None
    headline: str
    creative_media_id: UUID | None
    status: AdStatus
    created_at: datetime
    updated_at: datetime


class LiveOut(Shape):
    """An ad's counters of the UTC day so far; everything before `as_of` is counted."""

    day: date
    impressions: int
    clicks: int
    spend_micros: int
    reserved_micros: int = Field(description="held for tokens that have not become impressions yet")
    budget_micros: int
    as_of: datetime | None
    lag_ms: int | None = Field(description="how far the counters are behind; null: nothing is known yet")


class ServedAd(Shape):
    """What to show."""

    ad_id: UUID
    headline: str
    image_url: str | None
    target_type: TargetType
    target_id: UUID
    vendor_store_id: UUID


class ServeOut(Shape):
    """The winner with its tokens, or why there is none."""

    request_id: UUID
    ad: ServedAd | None
    impression_token: str | None
    click_url: str | None = Field(description="path on this server")
    expires_at: datetime | None
    reason: Literal["no_candidates", "budget_exhausted", "gate_closed"] | None


class TrackImpression(Body):
    """The token that came with the ad shown."""

    token: str


class TrackOut(Shape):
    """`accepted` once, then `duplicate`."""

    status: Literal["accepted", "duplicate"]

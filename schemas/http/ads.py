"""Ads over HTTP: what a vendor sends and sees, what serve and tracking answer."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic import model_validator

Placement = Literal["home", "category", "search"]
TargetType = Literal["store", "product"]
AdStatus = Literal["draft", "active", "paused", "archived"]

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
YEARS = range(2000, 2101)


def _rfc_3339(value: object) -> object:
    if isinstance(value, str) and not RFC_3339.fullmatch(value):
        raise ValueError("expected an RFC 3339 time with an offset, such as 2027-01-31T12:00:00Z")
    if not isinstance(value, (str, datetime)):
        raise ValueError("expected an RFC 3339 time")
    return value


def _in_utc(value: datetime) -> datetime:
    if value.year not in YEARS:
        raise ValueError(f"the year must be from {YEARS[0]} to {YEARS[-1]}")
    return value.astimezone(UTC)


def _storable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters and broken Unicode are not allowed")
    return value


Time = Annotated[AwareDatetime, BeforeValidator(_rfc_3339), AfterValidator(_in_utc)]
Line = Annotated[
    str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_storable)
]
BidCpmCents = Annotated[int, Field(strict=True, ge=1, le=100_000, description="price of a thousand impressions")]
DailyBudgetCents = Annotated[int, Field(strict=True, ge=100, le=10_000_000, description="of a UTC day")]


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class CreateAd(Strict):
    """A new ad; it is a draft until it is activated."""

    name: Line
    billing_model: Literal["cpm"] = "cpm"
    placement: Placement
    target_type: TargetType
    target_product_id: UUID | None = None
    bid_cpm_cents: BidCpmCents
    daily_budget_cents: DailyBudgetCents
    starts_at: Time
    ends_at: Time | None = None
    headline: Line
    creative_media_id: UUID | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_target(self.target_type, self.target_product_id)
        check_flight(self.starts_at, self.ends_at)
        return self


class ChangeAd(Strict):
    """What to change; a field that is not there stays. `ends_at` and `creative_media_id` may be taken away by null.

    An active ad keeps its placement and target (pause it first, or in the same request); an archived one is final.
    """

    status: Literal["active", "paused", "archived"] | None = None
    name: Line | None = None
    placement: Placement | None = None
    target_type: TargetType | None = None
    target_product_id: UUID | None = None
    bid_cpm_cents: BidCpmCents | None = None
    daily_budget_cents: DailyBudgetCents | None = None
    starts_at: Time | None = None
    ends_at: Time | None = None
    headline: Line | None = None
    creative_media_id: UUID | None = None

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


class AdOut(BaseModel):
    """An ad as its vendor sees it."""

    model_config = ConfigDict(from_attributes=True)

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


class LiveOut(BaseModel):
    """An ad's counters of the UTC day so far; everything before `as_of` is counted."""

    day: date
    impressions: int
    clicks: int
    spend_micros: int
    reserved_micros: int = Field(description="held for tokens that have not become impressions yet")
    budget_micros: int
    as_of: datetime | None
    lag_ms: int | None = Field(description="how far the counters are behind; null: nothing is known yet")


class ServedAd(BaseModel):
    """What to show."""

    ad_id: UUID
    headline: str
    image_url: str | None
    target_type: TargetType
    target_id: UUID
    vendor_store_id: UUID


class ServeOut(BaseModel):
    """The winner with its tokens, or why there is none."""

    request_id: UUID
    ad: ServedAd | None
    impression_token: str | None
    click_url: str | None = Field(description="path on this server")
    expires_at: datetime | None
    reason: Literal["no_candidates", "budget_exhausted", "gate_closed"] | None


class TrackImpression(Strict):
    """The token that came with the ad shown."""

    token: str


class TrackOut(BaseModel):
    """`accepted` once, then `duplicate`."""

    status: Literal["accepted", "duplicate"]

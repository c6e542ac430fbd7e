"""Shapes of stores."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator

from schemas.http.common import Body, Id, Line, Name, Prose, Shape

StoreKind = Literal["buyer", "vendor"]
StoreRole = Literal["owner", "manager", "staff"]
Kyc = Literal["pending", "verified", "rejected", "expired"]
State = Annotated[str, StringConstraints(strip_whitespace=True, to_upper=True, pattern=r"^[A-Za-z]{2}$")]
PostalCode = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[0-9A-Za-z][0-9A-Za-z -]{1,11}$")]


class Address(Body):
    """A postal address in the United States; `lat` and `lng` in degrees."""

    line1: Name
    line2: Line | None = None
    city: Name
    state: State
    postal_code: PostalCode
    country: Literal["US"]
    lat: float | None = Field(None, ge=-90, le=90)
    lng: float | None = Field(None, ge=-180, le=180)


class NewStore(Body):
    name: Name
    type: StoreKind
    address: Address


class StoreChange(Body):
    """What `PATCH /stores/me` may change; a field left out stays, `description: null` clears it."""

    name: Name | None = None
    description: Prose | None = None
    address: Address | None = None
    logo_media_id: Id | None = None
    banner_media_id: Id | None = None

    @model_validator(mode="after")
    def _required_stay(self) -> Self:
        for field in ("name", "address"):
            if field in self.model_fields_set and getattr(self, field) is None:
                raise ValueError(f"{field} cannot be null")
        return self


class AddressOut(Shape):
    line1: str
    line2: str | None = None
    city: str
    state: str
    postal_code: str
    country: str
    lat: float | None = None
    lng: float | None = None


class StoreOut(Shape):
    """A store as its own members see it."""

    id: UUID
    name: str
    type: StoreKind
    description: str | None
    address: AddressOut
    kyc_status: Kyc
    subscription_active: bool
    logo_url: str | None = None
    banner_url: str | None = None
    created_at: datetime

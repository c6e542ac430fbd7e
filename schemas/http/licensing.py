"""Shapes of licences."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import StringConstraints, model_validator

from schemas.http.common import Body, Day, Id, Prose, Shape
from schemas.http.stores import State

Kind = Literal["producer", "grower", "dispensary", "merchant"]
Status = Literal["pending", "verified", "rejected", "expired"]
Number = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class NewLicense(Body):
    """A licence to be decided on; its document is uploaded media of kind `license`."""

    media_id: Id
    type: Kind
    number: Number
    issuing_state: State
    issued_on: Day
    expires_on: Day

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.expires_on < self.issued_on:
            raise ValueError("expires_on lies before issued_on")
        return self


class LicenseOut(Shape):
    id: UUID
    store_id: UUID
    media_id: UUID
    type: Kind
    number: str
    issuing_state: str
    issued_on: date
    expires_on: date
    status: Status
    decision_reason: str | None
    decided_at: datetime | None
    created_at: datetime


class LicenseDecision(Body):
    """`reason` is required to reject."""

    decision: Literal["approve", "reject"]
    reason: Prose | None = None

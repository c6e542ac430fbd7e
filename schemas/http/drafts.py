"""Drafts of products over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from schemas.http.common import Body, Id, Shape

DraftStatus = Literal["processing", "ready", "failed", "published"]


class NewDraft(Body):
    """A certificate of analysis (media of kind `coa`) that a product is to be drafted from."""

    coa_media_id: Id


class DraftOut(Shape):
    """What the certificate says, as far as it was found."""

    id: UUID
    status: DraftStatus
    failure: str | None = Field(description="why the status is failed")
    coa_media_id: UUID | None
    fields: dict[str, Any] = Field(
        description="title, category, labs, batch, potency, terpenes, contaminants, result, dates; if found"
    )
    confidence: dict[str, float] = Field(description="of each field, from 0 to 1")
    product_id: UUID | None = Field(description="the product that was made of it")
    created_at: datetime

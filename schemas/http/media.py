"""Media over HTTP, and the Pub/Sub push that tells of an uploaded object."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from schemas.http.common import Body, Shape

MediaKind = Literal["license", "product", "coa", "store_logo", "store_banner", "avatar", "ad_creative"]
MediaStatus = Literal["pending", "uploaded", "processing", "ready", "failed"]

PATH_PARTS = re.compile(r"[/\\]|[\x00-\x1f\x7f]|^\.{1,2}$")
SIZE_BYTES_MAX = 20 << 20


def plain_name(text: str) -> str:
    """A file's name; ValueError for a path and for control characters."""
    if PATH_PARTS.search(text):
        raise ValueError("a file's name, without a path")
    return text


FileName = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255), AfterValidator(plain_name)
]
ContentType = Annotated[str, StringConstraints(to_lower=True, max_length=100)]


class NewMedia(Body):
    """A file that is about to be uploaded: its type and size are bound into the upload's signature."""

    kind: MediaKind
    file_name: FileName
    content_type: ContentType
    size_bytes: int = Field(ge=1, le=SIZE_BYTES_MAX)


class DerivedOut(Shape):
    """Something made from the original."""

    kind: str
    content_type: str


class MediaOut(Shape):
    """Media as their store sees them."""

    id: UUID
    kind: MediaKind
    status: MediaStatus
    file_name: str
    content_type: str
    size_bytes: int
    derived: list[DerivedOut]
    failure: str | None = Field(description="why the status is failed")
    created_at: datetime


class UploadOut(Shape):
    """The request that uploads the content: once, with exactly these headers, before `expires_at`."""

    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str]
    expires_at: datetime


class MediaCreated(Shape):
    media: MediaOut
    upload: UploadOut


class MediaUrl(Shape):
    """A signed read."""

    url: str
    expires_at: datetime


class PushedAttributes(BaseModel):
    """What Cloud Storage says of an event, as a message's attributes."""

    model_config = ConfigDict(extra="ignore")

    event_type: str = Field(alias="eventType", max_length=100)
    bucket: str = Field(alias="bucketId", max_length=300)
    object_name: str = Field(alias="objectId", max_length=1100)


class PushedMessage(BaseModel):
    model_config = ConfigDict(extra="ignore")

    attributes: PushedAttributes
    message_id: str = Field("", alias="messageId", max_length=200)


class Push(BaseModel):
    """A Cloud Pub/Sub push request, as far as it matters here."""

    model_config = ConfigDict(extra="ignore")

    message: PushedMessage

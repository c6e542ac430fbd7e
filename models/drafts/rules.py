"""Drafts of products: made of a certificate of analysis, looked at by a vendor, published once. Pure.

What a certificate says is in `fields`, each with a confidence between 0 and 1 under the same name: `title`, `category`,
`labs`, `batch`, `potency`, `terpenes`, `contaminants`, `result`, `dates`. What was not found is left out.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

from models.errors import StateConflict

FIELDS: Final = ("title", "category", "labs", "batch", "potency", "terpenes", "contaminants", "result", "dates")


class DraftStatus(StrEnum):
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"
    PUBLISHED = "published"


class DraftFailure(StrEnum):
    """Why there is no draft."""

    MEDIA_DELETED = "media_deleted"
    UNREADABLE = "unreadable"  #: the certificate has no text that anybody here can read
    NOTHING_FOUND = "nothing_found"  #: there is text, but not that of a certificate
    REFUSED = "refused"  #: who reads certificates will not read this one
    GAVE_UP = "gave_up"


class Found(NamedTuple):
    """A field's value, and how sure it is: 1 is certain."""

    value: Any
    confidence: float


class Reading(NamedTuple):
    """What a certificate says; both by the names of FIELDS."""

    fields: dict[str, Any]
    confidence: dict[str, float]


def reading_of(found: dict[str, Found | None]) -> Reading:
    """The fields that were found, in the order of FIELDS; confidences to two places."""
    there = {name: one for name in FIELDS if (one := found.get(name)) is not None}
    return Reading(
        {name: one.value for name, one in there.items()},
        {name: round(min(max(one.confidence, 0.0), 1.0), 2) for name, one in there.items()},
    )


def check_publishable(status: DraftStatus) -> None:
    """StateConflict unless the draft is there and was not published before."""
    if status is not DraftStatus.READY:
        raise StateConflict(current=status, action="publish")

"""Media: kinds, what may be uploaded, the upload's lifecycle, and what an attachment means. Pure.

Lifecycle: a row is `pending` until its object is there, then `uploaded`, or `failed` when the content is not what was
announced; processing makes it `processing`, then `ready`, or `failed` when a picture or a video cannot be processed.
What is derived is an extra: media that passed the checks of their upload stay readable, unless they are a danger to
those who read them, and a document that only people can read is `ready`.

An attachment (media, entity, slot) is the only link between media and what uses it. Some attachments protect the media
from deletion, the others are taken away by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from models.errors import FieldError, MediaProtected, StateConflict, ValidationFailed

HEAD_BYTES: Final = 64  #: of an object, enough to tell its type

UPLOAD_TTL: Final = timedelta(minutes=15)  #: how long an upload's URL is good
READ_TTL: Final = timedelta(hours=1)  #: how long a read URL is good at first; at least half of it is left
STALE_AFTER: Final = UPLOAD_TTL + timedelta(minutes=15)  #: a pending row without an object is collected
UPLOAD_GRACE: Final = timedelta(seconds=5)  #: by the wall clock, whatever the logical one says
FAILED_KEPT: Final = timedelta(days=7)  #: then a failed upload is collected with its object
ORPHAN_AFTER: Final = timedelta(hours=1)  #: an object without a row is deleted
REDO_AFTER: Final = timedelta(minutes=10)  #: a deletion that nobody finished is done again


class MediaKind(StrEnum):
    LICENSE = "license"
    PRODUCT = "product"
    COA = "coa"
    STORE_LOGO = "store_logo"
    STORE_BANNER = "store_banner"
    AVATAR = "avatar"
    AD_CREATIVE = "ad_creative"


class MediaStatus(StrEnum):
    PENDING = "pending"
    UPLOADED = "uploaded"
    PROCESSING = "processing"
    READY = "ready"
    FAILED = "failed"


class Step(StrEnum):
    """What moves the lifecycle on."""

    ACCEPT = "accept"
    PROCESS = "process"
    FINISH = "finish"
    FAIL = "fail"


TRANSITIONS: Final[Mapping[tuple[MediaStatus, Step], MediaStatus]] = {
    (MediaStatus.PENDING, Step.ACCEPT): MediaStatus.UPLOADED,
    (MediaStatus.PENDING, Step.FAIL): MediaStatus.FAILED,
    (MediaStatus.UPLOADED, Step.PROCESS): MediaStatus.PROCESSING,
    (MediaStatus.PROCESSING, Step.FINISH): MediaStatus.READY,
    (MediaStatus.PROCESSING, Step.FAIL): MediaStatus.FAILED,
}


def next_status(current: MediaStatus, step: Step) -> MediaStatus:
    """The status that `step` leads to; StateConflict where there is none."""
    try:
        return TRANSITIONS[current, step]
    except KeyError:
        raise StateConflict(current=current, action=step) from None


class Failure(StrEnum):
    """Why media failed: the upload is not what was announced, or it could not be processed."""

    SIZE = "size_mismatch"
    TYPE = "type_mismatch"
    CONTENT = "content_mismatch"
    UNDECODABLE = "undecodable"  #: no decoder can make anything of it
    PIXELS = "too_many_pixels"  #: whoever opens it may run out of memory
    GAVE_UP = "gave_up"  #: it took too long or too much, again and again


READABLE: Final = frozenset({MediaStatus.UPLOADED, MediaStatus.PROCESSING, MediaStatus.READY})
HARMLESS: Final = frozenset({Failure.UNDECODABLE, Failure.GAVE_UP})  #: the upload's own checks were passed
DOCUMENTS: Final = frozenset({MediaKind.LICENSE, MediaKind.COA})  #: made for people: text is an extra


def is_readable(status: str, failure: str | None) -> bool:
    """Whether there is content that passed its checks and may be shown."""
    return status in READABLE or (status == MediaStatus.FAILED and failure in HARMLESS)


def check_readable(status: MediaStatus, failure: str | None, action: str) -> None:
    """StateConflict unless `is_readable`."""
    if not is_readable(status, failure):
        raise StateConflict(current=status, action=action)


def processed(kind: MediaKind, failure: Failure | None) -> tuple[MediaStatus, Failure | None]:
    """What media that were `processing` become, and why if they failed."""
    if failure is None or (kind in DOCUMENTS and failure in HARMLESS):
        return next_status(MediaStatus.PROCESSING, Step.FINISH), None
    return next_status(MediaStatus.PROCESSING, Step.FAIL), failure


# -- content ----------------------------------------------------------------------------------------------------------


def _starts(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


MAGIC: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "image/jpeg": _starts(b"\xff\xd8\xff"),
    "image/png": _starts(b"\x89PNG\r\n\x1a\n"),
    "image/gif": _starts(b"GIF87a", b"GIF89a"),
    "image/webp": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "application/pdf": _starts(b"%PDF-"),
    "video/mp4": lambda head: head[4:8] == b"ftyp" and head[8:10] != b"qt",
}
"""Content types that may be uploaded, each with the test of an object's first HEAD_BYTES bytes."""

_PICTURES: Final = frozenset({"image/jpeg", "image/png", "image/webp"})
_PAPERS: Final = frozenset({"application/pdf", "image/jpeg", "image/png"})

CONTENT_TYPES: Final[Mapping[MediaKind, frozenset[str]]] = {
    MediaKind.LICENSE: _PAPERS,
    MediaKind.PRODUCT: _PICTURES | {"image/gif", "video/mp4"},
    MediaKind.COA: _PAPERS,
    MediaKind.STORE_LOGO: _PICTURES,
    MediaKind.STORE_BANNER: _PICTURES,
    MediaKind.AVATAR: _PICTURES,
    MediaKind.AD_CREATIVE: _PICTURES | {"image/gif"},
}


def check_announced(kind: MediaKind, content_type: str) -> None:
    """ValidationFailed unless media of the kind may have the content type."""
    if content_type not in CONTENT_TYPES[kind]:
        allowed = ", ".join(sorted(CONTENT_TYPES[kind]))
        error = FieldError("content_type", "content_type_unknown", f"media of kind {kind} may be {allowed}")
        raise ValidationFailed(errors=[error])


class ObjectFacts(NamedTuple):
    """What the storage says of an object; `head` is its first HEAD_BYTES bytes."""

    size_bytes: int
    content_type: str
    generation: int
    head: bytes


def failure_of(facts: ObjectFacts, *, content_type: str, size_bytes: int) -> Failure | None:
    """Why the object is not the one that was announced; None when it is."""
    if facts.size_bytes != size_bytes:
        return Failure.SIZE
    if facts.content_type != content_type:
        return Failure.TYPE
    return None if MAGIC[content_type](facts.head) else Failure.CONTENT


# -- objects ----------------------------------------------------------------------------------------------------------

ORIGINAL: Final = "original"


class ObjectName(NamedTuple):
    """An object's name, made by the server alone: store, media and part; never what a client called the file."""

    store_id: UUID
    media_id: UUID
    part: str

    def __str__(self) -> str:
        return f"{self.store_id}/{self.media_id}/{self.part}"

    @property
    def prefix(self) -> str:
        """What the names of all objects of this media begin with."""
        return f"{self.store_id}/{self.media_id}/"

    @classmethod
    def parse(cls, text: str) -> ObjectName | None:
        """The name that `text` is in its one spelling; None for anything else."""
        parts = text.split("/")
        try:
            store_id, media_id, part = UUID(parts[0]), UUID(parts[1]), parts[2]
        except (ValueError, IndexError):
            return None
        name = cls(store_id, media_id, part)
        return name if str(name) == text and part else None


def grace_over(media_id: UUID, *, wall: datetime) -> bool:
    """Whether UPLOAD_GRACE has passed since the id was made, by the wall clock: a UUIDv7 begins with its time in ms."""
    made_ms = media_id.int >> 80
    return media_id.version != 7 or wall.timestamp() * 1000 - made_ms > UPLOAD_GRACE / timedelta(milliseconds=1)


# -- attachments ------------------------------------------------------------------------------------------------------


class EntityType(StrEnum):
    """What media can be attached to."""

    LICENSE = "license"
    PRODUCT = "product"
    STORE = "store"
    USER = "user"
    AD = "ad"


class Slot(StrEnum):
    """The part that attached media play."""

    DOCUMENT = "document"
    GALLERY = "gallery"
    COA = "coa"
    LOGO = "logo"
    BANNER = "banner"
    AVATAR = "avatar"
    CREATIVE = "creative"


@dataclass(frozen=True, slots=True)
class SlotRule:
    """Which kind of media a slot takes, how many, and whether it protects them from deletion."""

    kind: MediaKind
    protects: bool = False
    places: int = 1


SLOTS: Final[Mapping[tuple[EntityType, Slot], SlotRule]] = {
    (EntityType.LICENSE, Slot.DOCUMENT): SlotRule(MediaKind.LICENSE, protects=True),
    (EntityType.PRODUCT, Slot.COA): SlotRule(MediaKind.COA, protects=True),
    (EntityType.PRODUCT, Slot.GALLERY): SlotRule(MediaKind.PRODUCT, places=20),
    (EntityType.STORE, Slot.LOGO): SlotRule(MediaKind.STORE_LOGO),
    (EntityType.STORE, Slot.BANNER): SlotRule(MediaKind.STORE_BANNER),
    (EntityType.USER, Slot.AVATAR): SlotRule(MediaKind.AVATAR),
    (EntityType.AD, Slot.CREATIVE): SlotRule(MediaKind.AD_CREATIVE),
}


def check_kind(rule: SlotRule, kind: MediaKind, field: str) -> None:
    """ValidationFailed, about `field`, when media of `kind` do not belong in the slot."""
    if kind is not rule.kind:
        message = f"this takes media of kind {rule.kind}, not {kind}"
        raise ValidationFailed(errors=[FieldError(field, "media_kind", message)])


def check_deletable(kind: MediaKind, status: MediaStatus, attached: list[tuple[EntityType, Slot]]) -> None:
    """MediaProtected while a protecting slot holds the media, and for a licence's that is not whole."""
    holders = [entity_type for entity_type, slot in attached if SLOTS[entity_type, slot].protects]
    if holders:
        raise MediaProtected(f"a {holders[0]} holds it")
    if kind is MediaKind.LICENSE and status not in (MediaStatus.UPLOADED, MediaStatus.READY):
        raise MediaProtected(f"media of a licence cannot be deleted while {status}")


class DeletionReason(StrEnum):
    """Why objects go."""

    DELETED = "deleted"  #: somebody deleted the media
    STALE = "stale"  #: nothing was uploaded in time
    FAILED = "failed"  #: a failed upload, kept long enough
    LATE = "late_upload"  #: it was uploaded after its row had gone
    ORPHAN = "orphan"  #: an object without a row was found


class DeletionStatus(StrEnum):
    PENDING = "pending"
    DONE = "done"


class Removed(NamedTuple):
    """What a removal of objects met."""

    deleted: int
    missing: int

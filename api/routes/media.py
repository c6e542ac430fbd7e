"""A store's media: announce an upload, list, read, delete. And the webhook by which the storage tells of an upload."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from api.dependencies import Now, Process, StoreMember, Tx
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.media_services import MediaServices
from api.pagination import Paged, by_time
from models.errors import FieldError, ValidationFailed
from models.media import reads, writes
from models.media.rules import MediaKind, MediaStatus, ObjectName, check_readable
from schemas.http.media import MediaCreated, MediaOut, MediaUrl, NewMedia, Push, UploadOut
from schemas.http.media import MediaKind as KindFilter
from schemas.http.media import MediaStatus as StatusFilter

LIST: Final = "media"
FINALIZE: Final = "OBJECT_FINALIZE"
ACTOR: Final = "webhook:gcs"
MESSAGE: Final = {"attributes": {"type": "object", "additionalProperties": {"type": "string"}}}
PUSH: Final = {"message": {"type": "object", "required": ["attributes"], "properties": MESSAGE}}
PUSH_BODY: Final[dict[str, Any]] = {  # FastAPI does not read it: who pushes is checked first
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "required": ["message"], "properties": PUSH}}},
    }
}

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v1/media", tags=["media"], route_class=IdempotentRoute)
webhook_router = APIRouter(prefix="/webhooks", tags=["webhooks"])


async def _media_services(process: Process) -> MediaServices:
    return process.get(MediaServices)


DerivedKind = Annotated[str, Query(max_length=40, description="one of the media's `derived` kinds")]
Bucket = Annotated[MediaServices, Depends(_media_services)]


@router.post("", status_code=201)
async def announce(body: NewMedia, member: StoreMember, tx: Tx, now: Now, bucket: Bucket) -> Envelope[MediaCreated]:
    """Media that wait for their content, and the request by which it is to be uploaded.

    The signature binds type and size. The content is checked when it is there: `uploaded`, or `failed`.
    """
    media = await writes.create(tx, body, store_id=member.store_id, now=now)
    upload = await bucket.store.sign_upload(
        media.object_name, content_type=media.content_type, size_bytes=media.size_bytes
    )
    request = UploadOut(url=upload.url, headers=upload.headers, expires_at=upload.expires_at)
    return Envelope(data=MediaCreated(media=MediaOut.model_validate(media), upload=request))


@router.get("")
async def list_media(
    member: StoreMember, tx: Tx, page: Paged, kind: KindFilter | None = None, status: StatusFilter | None = None
) -> ListEnvelope[MediaOut]:
    """The store's media, newest first."""
    name = f"{LIST}:{member.store_id}:{kind}:{status}"
    rows = await reads.media_list(
        tx,
        store_id=member.store_id,
        limit=page.limit + 1,
        after=page.after_time(name),
        kind=None if kind is None else MediaKind(kind),
        status=None if status is None else MediaStatus(status),
    )
    media, cursor = page.cut(name, rows, by_time)
    return ListEnvelope.of([MediaOut.model_validate(one) for one in media], cursor)


@router.get("/{media_id}")
async def get_media(media_id: UUID, member: StoreMember, tx: Tx) -> Envelope[MediaOut]:
    """One of the store's media."""
    return Envelope(data=MediaOut.model_validate(await reads.view(tx, media_id, store_id=member.store_id)))


@router.get("/{media_id}/url")
async def read_url(
    media_id: UUID, member: StoreMember, tx: Tx, bucket: Bucket, derived: DerivedKind | None = None
) -> Envelope[MediaUrl]:
    """A signed read of the original, or of something derived, good for half an hour at least.

    409 while there is no content to show, 404 for what was not derived.
    """
    media = await reads.view(tx, media_id, store_id=member.store_id)
    check_readable(media.status, media.failure, "read")
    signed = await bucket.read_urls.url(media.object_name if derived is None else media.derived_name(derived))
    return Envelope(data=MediaUrl(url=signed.url, expires_at=signed.expires_at))


@router.delete("/{media_id}", status_code=204)
async def delete_media(media_id: UUID, member: StoreMember, tx: Tx, now: Now) -> Response:
    """Row, attachments and objects go, unless a licence or a product's certificate holds the media."""
    await writes.delete(tx, media_id, store_id=member.store_id, actor=member.actor, now=now)
    return Response(status_code=204)


async def _pushed(request: Request, bucket: Bucket) -> Push:
    """The push, from whom it should come: that is checked before anything is read."""
    await bucket.pushes.check(request)
    return _parsed(await request.body())


@webhook_router.post("/gcs", status_code=204, response_class=Response, openapi_extra=PUSH_BODY)
async def object_finalised(
    push: Annotated[Push, Depends(_pushed)], process: Process, bucket: Bucket, now: Now
) -> Response:
    """A Pub/Sub push about an object. 204 once what follows from it is durable; news that concern nobody are taken too.

    The object itself is looked at, not what the message says of it: messages come twice, late and in any order.
    """
    event = push.message.attributes
    name = ObjectName.parse(event.object_name)
    if event.event_type != FINALIZE or event.bucket != bucket.store.bucket or name is None:
        log.info("gcs_push_ignored", kind=event.event_type, bucket=event.bucket, message_id=push.message.message_id)
        return Response(status_code=204)
    facts = await bucket.store.facts(str(name))
    if facts is None:
        log.info("gcs_object_gone", media_id=str(name.media_id))
        return Response(status_code=204)
    async with process.transaction() as tx:
        outcome, failure = await writes.finalise(tx, name, facts, actor=ACTOR, now=now)
    log.info("gcs_object", media_id=str(name.media_id), outcome=outcome, failure=failure)
    return Response(status_code=204)


def _parsed(body: bytes) -> Push:
    """ValidationFailed for anything but a push about an object."""
    try:
        return Push.model_validate_json(body)
    except ValidationError as exc:
        errors = [
            FieldError(".".join(map(str, entry["loc"]))[:200] or "body", entry["type"], entry["msg"])
            for entry in exc.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise ValidationFailed("this is not a push about an object", errors=errors) from None

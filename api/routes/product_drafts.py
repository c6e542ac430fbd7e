"""Drafts of products, made of certificates of analysis: ask for one, look at it, publish it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from fastapi import APIRouter

from api.dependencies import Now, Process, Tx, Vendor
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Paged, by_time
from api.products import with_pictures
from models.drafts import reads, writes
from schemas.http.catalog import NewProduct, ProductOut
from schemas.http.drafts import DraftOut, NewDraft

LIST: Final = "product_drafts"

router = APIRouter(prefix="/api/v1/vendor/product-drafts", tags=["catalogue"], route_class=IdempotentRoute)


@router.post("", status_code=202)
async def draft_product(body: NewDraft, vendor: Vendor, tx: Tx, now: Now) -> Envelope[DraftOut]:
    """A draft that is `processing` until the certificate was read: then it is `ready`, or `failed`."""
    wall = datetime.now(UTC)
    draft = await writes.create(tx, body.coa_media_id, store_id=vendor.store_id, now=now, wall=wall)
    return Envelope(data=DraftOut.model_validate(draft))


@router.get("")
async def list_drafts(vendor: Vendor, tx: Tx, page: Paged) -> ListEnvelope[DraftOut]:
    """The store's drafts, newest first."""
    name = f"{LIST}:{vendor.store_id}"
    rows = await reads.drafts_of(tx, vendor.store_id, limit=page.limit + 1, after=page.after_time(name))
    drafts, cursor = page.cut(name, rows, by_time)
    return ListEnvelope.of([DraftOut.model_validate(draft) for draft in drafts], cursor)


@router.get("/{draft_id}")
async def get_draft(draft_id: UUID, vendor: Vendor, tx: Tx) -> Envelope[DraftOut]:
    """One of the store's drafts."""
    return Envelope(data=DraftOut.model_validate(await reads.draft_of(tx, draft_id, store_id=vendor.store_id)))


@router.post("/{draft_id}/publish", status_code=201)
async def publish_draft(
    draft_id: UUID, body: NewProduct, vendor: Vendor, tx: Tx, now: Now, process: Process
) -> Envelope[ProductOut]:
    """Make a product of a draft that is `ready`, once. The certificate is the product's unless the body has another."""
    made = await writes.publish(tx, draft_id, body, store_id=vendor.store_id, actor=vendor.actor, now=now)
    return Envelope(data=(await with_pictures(tx, process, [made]))[0])

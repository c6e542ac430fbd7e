"""A vendor's ads: create, list, change, and the counters of the day as they run."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter

from api.ad_services import AdServices
from api.dependencies import Now, Process, Tx, Vendor
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.live_counters import live_counters
from api.pagination import Paged, by_time
from models.ads import reads, writes
from models.ads.rules import AdStatus
from schemas.http.ads import AdOut, ChangeAd, CreateAd, LiveOut
from schemas.http.ads import AdStatus as StatusFilter

LIST: Final = "vendor_ads"

router = APIRouter(prefix="/api/v1/vendor/ads", tags=["ads"], route_class=IdempotentRoute)


@router.post("", status_code=201)
async def create_ad(body: CreateAd, vendor: Vendor, tx: Tx, now: Now) -> Envelope[AdOut]:
    """A new ad, as a draft: it is not served before it is activated."""
    ad = await writes.create(tx, body, store_id=vendor.store_id, actor=vendor.actor, now=now)
    return Envelope(data=AdOut.model_validate(ad))


@router.get("")
async def list_ads(vendor: Vendor, tx: Tx, page: Paged, status: StatusFilter | None = None) -> ListEnvelope[AdOut]:
    """The store's ads, newest first."""
    name = f"{LIST}:{vendor.store_id}:{status}"
    rows = await reads.ads_of(
        tx,
        store_id=vendor.store_id,
        limit=page.limit + 1,
        after=page.after_time(name),
        status=None if status is None else AdStatus(status),
    )
    ads, cursor = page.cut(name, [AdOut.model_validate(row) for row in rows], by_time)
    return ListEnvelope.of(ads, cursor)


@router.get("/{ad_id}")
async def get_ad(ad_id: UUID, vendor: Vendor, tx: Tx) -> Envelope[AdOut]:
    """One ad of the store."""
    return Envelope(data=AdOut.model_validate(await reads.ad_of(tx, ad_id, store_id=vendor.store_id)))


@router.patch("/{ad_id}")
async def change_ad(ad_id: UUID, body: ChangeAd, vendor: Vendor, tx: Tx, now: Now, process: Process) -> Envelope[AdOut]:
    """Change an ad. Its status goes draft → active ⇄ paused, and from each to archived, which is final.

    An active ad keeps its placement and target; everything else may change at any time before the archive.
    A new bid or budget is in force for the next serve; tokens that were issued keep their price.
    """
    ad = await writes.change(tx, ad_id, body, store_id=vendor.store_id, actor=vendor.actor, now=now)
    process.get(AdServices).feed.reload_after(tx)
    return Envelope(data=AdOut.model_validate(ad))


@router.get("/{ad_id}/live")
async def live(ad_id: UUID, vendor: Vendor, tx: Tx, now: Now, process: Process) -> Envelope[LiveOut]:
    """The ad's counters of the UTC day, from the stream: all that happened before `as_of` is in them."""
    ad = await reads.ad_of(tx, ad_id, store_id=vendor.store_id)
    return Envelope(data=await live_counters(process, ad, now))

"""A vendor's promo codes."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Response

from api.dependencies import Now, Tx, Vendor
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Paged, by_time
from models.catalog import reads, writes
from schemas.http.catalog import NewPromo, PromoOut

LIST: Final = "vendor_promos"

router = APIRouter(prefix="/api/v1/vendor/promos", tags=["catalogue"], route_class=IdempotentRoute)


@router.post("", status_code=201)
async def create_promo(body: NewPromo, vendor: Vendor, tx: Tx, now: Now) -> Envelope[PromoOut]:
    """A new promo; a store has a code once, in whatever case."""
    made = await writes.create_promo(tx, body, store_id=vendor.store_id, actor=vendor.actor, now=now)
    return Envelope(data=PromoOut.model_validate(made))


@router.get("")
async def list_promos(vendor: Vendor, tx: Tx, page: Paged) -> ListEnvelope[PromoOut]:
    """The store's promos, newest first, whether in force or not."""
    name = f"{LIST}:{vendor.store_id}"
    rows = await reads.promos_of(tx, vendor.store_id, limit=page.limit + 1, after=page.after_time(name))
    shown, cursor = page.cut(name, rows, by_time)
    return ListEnvelope.of([PromoOut.model_validate(one) for one in shown], cursor)


@router.delete("/{promo_id}", status_code=204)
async def delete_promo(promo_id: UUID, vendor: Vendor, tx: Tx, now: Now) -> Response:
    """End a promo: quotes from now on do not have it. Its code may be used again."""
    await writes.delete_promo(tx, promo_id, store_id=vendor.store_id, actor=vendor.actor, now=now)
    return Response(status_code=204)

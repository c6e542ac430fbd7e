"""A vendor's products: create, list, change, delete."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from api.ad_services import AdServices
from api.dependencies import Member, Now, Process, Tx, Vendor
from api.envelope import Envelope, ListEnvelope
from api.idempotency import IdempotentRoute
from api.pagination import Paged, by_time
from api.products import with_pictures
from api.services import Services
from models.catalog import reads, writes
from schemas.http.catalog import ChangeProduct, NewProduct, ProductOut

LIST: Final = "vendor_products"

router = APIRouter(prefix="/api/v1/vendor/products", tags=["catalogue"], route_class=IdempotentRoute)


@router.post("", status_code=201)
async def create_product(body: NewProduct, vendor: Vendor, tx: Tx, now: Now, process: Process) -> Envelope[ProductOut]:
    """A new product. Buyers see it while it is active and the store has a verified licence and a subscription."""
    made = await writes.create(tx, body, store_id=vendor.store_id, actor=vendor.actor, now=now)
    return Envelope(data=await _shown(tx, process, made.id, vendor))


@router.get("")
async def list_products(vendor: Vendor, tx: Tx, page: Paged, process: Process) -> ListEnvelope[ProductOut]:
    """The store's products, active or not, newest first."""
    name = f"{LIST}:{vendor.store_id}"
    views = await reads.products_of(tx, vendor.store_id, limit=page.limit + 1, after=page.after_time(name))
    shown, cursor = page.cut(name, views, lambda view: by_time(view.product))
    return ListEnvelope.of(await with_pictures(tx, process, shown), cursor)


@router.get("/{product_id}")
async def get_product(product_id: UUID, vendor: Vendor, tx: Tx, process: Process) -> Envelope[ProductOut]:
    """One product of the store."""
    return Envelope(data=await _shown(tx, process, product_id, vendor))


@router.patch("/{product_id}")
async def change_product(
    product_id: UUID, body: ChangeProduct, vendor: Vendor, tx: Tx, now: Now, process: Process
) -> Envelope[ProductOut]:
    """Change what the body names. Lists of tiers and pictures are replaced as a whole."""
    await writes.change(tx, product_id, body, store_id=vendor.store_id, actor=vendor.actor, now=now)
    process.get(AdServices).feed.reload_after(tx)
    return Envelope(data=await _shown(tx, process, product_id, vendor))


@router.delete("/{product_id}", status_code=204)
async def delete_product(product_id: UUID, vendor: Vendor, tx: Tx, now: Now, process: Process) -> Response:
    """The product goes from every list, its media are free, its SKU may be used again. Orders keep what they say."""
    await writes.delete(tx, product_id, store_id=vendor.store_id, actor=vendor.actor, now=now)
    process.get(AdServices).feed.reload_after(tx)
    return Response(status_code=204)


async def _shown(tx: AsyncSession, services: Services, product_id: UUID, vendor: Member) -> ProductOut:
    view = await reads.view_of(tx, product_id, store_id=vendor.store_id)
    return (await with_pictures(tx, services, [view]))[0]

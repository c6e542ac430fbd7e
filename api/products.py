"""Products with what belongs to them: pictures, certificate, vendor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api.media_services import MediaServices
from api.services import Services
from models.catalog.reads import ProductView
from models.media import reads as media
from models.media.reads import UrlSigner
from models.media.rules import EntityType, Slot, is_readable
from models.stores import reads as stores
from schemas.http.catalog import PictureOut, ProductOut, VendorOut

Pictures = Mapping[UUID, Sequence[PictureOut]]


async def with_pictures(tx: AsyncSession, services: Services, views: Sequence[ProductView]) -> list[ProductOut]:
    """The products in full; the number of queries does not depend on how many there are."""
    signer = services.get(MediaServices).read_urls
    ids = [view.product.id for view in views]
    galleries, certificates = [await _pictures(tx, signer, ids, slot) for slot in (Slot.GALLERY, Slot.COA)]
    vendors = await _vendors(tx, signer, {view.product.store_id for view in views})
    return [_out(view, galleries, certificates, vendors[view.product.store_id]) for view in views]


def _out(view: ProductView, galleries: Pictures, certificates: Pictures, vendor: VendorOut) -> ProductOut:
    product = view.product
    gallery = galleries.get(product.id, ())
    coa = next(iter(certificates.get(product.id, ())), None)
    columns = {name: getattr(product, name) for name in ProductOut.model_fields if hasattr(product, name)}
    return ProductOut(
        **columns,
        gallery=list(gallery),
        gallery_media_ids=[picture.media_id for picture in gallery],
        coa=coa,
        coa_media_id=None if coa is None else coa.media_id,
        vendor=vendor,
        available_qty=view.available_qty,
    )


async def _pictures(tx: AsyncSession, signer: UrlSigner, product_ids: Sequence[UUID], slot: Slot) -> Pictures:
    found = await media.attachments(tx, entity_type=EntityType.PRODUCT, entity_ids=product_ids, slot=slot)
    held = {one.id: one for several in found.values() for one in several if is_readable(one.status, one.failure)}
    urls = await signer.urls({one.id: str(media.original(one)) for one in held.values()})
    return {
        product_id: [
            PictureOut(media_id=one.id, content_type=one.content_type, url=urls[one.id])
            for one in several
            if one.id in urls
        ]
        for product_id, several in found.items()
    }


async def _vendors(tx: AsyncSession, signer: UrlSigner, store_ids: set[UUID]) -> dict[UUID, VendorOut]:
    found = await stores.by_ids(tx, store_ids)
    logos = await media.urls(tx, signer, entity_type=EntityType.STORE, entity_ids=list(store_ids), slot=Slot.LOGO)
    return {one.id: VendorOut(store_id=one.id, name=one.name, logo_url=logos.get(one.id)) for one in found.values()}

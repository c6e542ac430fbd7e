"""The shop: what buyers see of the vendors in their state who may sell."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

import orjson
from fastapi import APIRouter, Query

from api.dependencies import Buyer, Process, Tx
from api.envelope import Envelope, ListEnvelope
from api.pagination import Key, Paged, by_time
from api.products import with_pictures
from models.catalog import reads
from models.catalog.reads import ProductView, ShopFilter
from models.catalog.rules import Sort
from schemas.http.catalog import Category, PriceBound, ProductOut, Words
from schemas.http.catalog import Sort as SortName

LIST: Final = "products"

router = APIRouter(prefix="/api/v1/products", tags=["catalogue"])


@router.get("")
async def browse(
    buyer: Buyer,
    tx: Tx,
    page: Paged,
    process: Process,
    q: Annotated[Words | None, Query()] = None,
    category: Category | None = None,
    vendor_store_id: UUID | None = None,
    min_price_cents: PriceBound | None = None,
    max_price_cents: PriceBound | None = None,
    sort: SortName = "newest",
) -> ListEnvelope[ProductOut]:
    """Active products of vendors in the buyer's state with a verified licence and an active subscription."""
    wanted = ShopFilter(q or None, category, vendor_store_id, min_price_cents, max_price_cents)
    order = Sort(sort)
    name = _list_name(buyer.store_id, wanted, order)
    views = await reads.browse(
        tx,
        wanted,
        buyer_store_id=buyer.store_id,
        sort=order,
        limit=page.limit + 1,
        after=page.after_time(name) if order is Sort.NEWEST else page.after_number(name),
    )
    shown, cursor = page.cut(name, views, _by_time if order is Sort.NEWEST else _by_price)
    return ListEnvelope.of(await with_pictures(tx, process, shown), cursor)


@router.get("/{product_id}")
async def get_product(product_id: UUID, buyer: Buyer, tx: Tx, process: Process) -> Envelope[ProductOut]:
    """One product of the shop; 404 for what the list does not have."""
    view = await reads.shown(tx, product_id, buyer_store_id=buyer.store_id)
    return Envelope(data=(await with_pictures(tx, process, [view]))[0])


def _list_name(store_id: UUID, wanted: ShopFilter, order: Sort) -> str:
    """A list is one buyer's, one filter's, one order's: a cursor of it is good for nothing else."""
    return orjson.dumps([LIST, store_id, order, *wanted]).decode()


def _by_time(view: ProductView) -> Key:
    return by_time(view.product)


def _by_price(view: ProductView) -> Key:
    return [view.product.price_cents, str(view.product.id)]
